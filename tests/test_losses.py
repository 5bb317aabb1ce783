import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from triplet_jax import collectives, distances, errors, losses, mining

DETERMINISTIC = [name for name in sorted(mining.MINERS) if name != "random"]

# A few sizes, so that hypothesis reuses compiled programs.
sizes = st.sampled_from([2, 3, 7, 12])
labellings = st.integers(0, 5).flatmap(
    lambda most: st.lists(st.integers(0, most), min_size=12, max_size=12)
)


@functools.cache
def compiled(**settings):
    return jax.jit(functools.partial(losses.triplet_loss, **settings))


def spread(seed, n, dim=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, dim)), jnp.float32)


@pytest.mark.parametrize("average", losses.AVERAGES)
@pytest.mark.parametrize("penalty", sorted(losses.PENALTIES))
@pytest.mark.parametrize("metric", sorted(distances.METRICS))
@pytest.mark.parametrize("miner", DETERMINISTIC)
@hypothesis.given(seed=st.integers(0, 999), n=sizes, labels=labellings)
def test_agrees_with_brute_force(miner, metric, penalty, average, seed, n, labels):
    x, y = spread(seed, n), np.array(labels[:n])
    settings = {"miner": miner, "metric": metric, "penalty": penalty, "average": average}
    loss, stats = compiled(**settings)(x, y)
    found = oracles.mine(x, y, miner, metric)
    expected, valid, active = oracles.loss_of(
        x, found, metric=metric, margin=0.2, penalty=penalty, average=average
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    assert (stats["num_valid"], stats["num_active"]) == (valid, active)


@pytest.mark.parametrize("metric", sorted(distances.METRICS))
@pytest.mark.parametrize("penalty", sorted(losses.PENALTIES))
@pytest.mark.parametrize("miner", DETERMINISTIC)
def test_gradient_agrees_with_finite_differences(miner, penalty, metric):
    x, y = np.asarray(spread(3, 8), np.float64), np.array([0, 1, 0, 1, 2, 0, 3, 1])
    settings = {"miner": miner, "metric": metric, "penalty": penalty}
    gradient = jax.grad(lambda x: losses.triplet_loss(x, y, **settings)[0])(jnp.asarray(x))
    found = oracles.mine(x, y, miner, metric)

    def value(x):  # of the same triplets: the choice is not differentiated
        return oracles.loss_of(
            x, found, metric=metric, margin=0.2, penalty=penalty, average="active"
        )[0]

    for i, j in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i, j] = 1e-6
        difference = (value(x + step) - value(x - step)) / 2e-6
        assert gradient[i, j] == pytest.approx(float(difference), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("miner", DETERMINISTIC)
def test_references_are_the_only_candidates(miner):
    x, references = spread(0, 7), spread(1, 12)
    y, reference_labels = np.arange(7) % 3, np.arange(12) % 4
    loss, stats = losses.triplet_loss(
        x, y, miner=miner, references=references, reference_labels=reference_labels
    )
    found = oracles.mine(x, y, miner, "euclidean", references, reference_labels)
    expected, valid, _ = oracles.loss_of(
        x,
        found,
        metric="euclidean",
        margin=0.2,
        penalty="hinge",
        average="active",
        references=references,
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert stats["num_valid"] == valid
    # An equal row among the references is a positive like any other: no row is "itself".
    _, stats = losses.triplet_loss(x, y, miner=miner, references=x, reference_labels=y)
    assert stats["num_positive_pairs"] == sum(int((y == label).sum()) for label in y)


@pytest.mark.parametrize("miner", sorted(mining.MINERS))
@pytest.mark.parametrize("tile_size", [1, 8, 100])
def test_tiles_change_nothing(miner, tile_size, key):
    x, y = spread(5, 20), np.random.default_rng(0).integers(0, 6, 20)

    def run(tile_size):
        loss = functools.partial(losses.triplet_loss, miner=miner, key=key, tile_size=tile_size)
        return jax.jit(jax.value_and_grad(loss, has_aux=True))(x, y)

    (loss, stats), gradient = run(None)
    (tiled_loss, tiled_stats), tiled_gradient = run(tile_size)
    assert tiled_loss == pytest.approx(float(loss), rel=1e-5)
    for name in ("num_valid", "num_active", "num_positive_pairs", "num_negative_pairs"):
        assert stats[name] == tiled_stats[name]
    np.testing.assert_allclose(gradient, tiled_gradient, atol=1e-6)


@pytest.mark.parametrize("miner", sorted(mining.MINERS))
@pytest.mark.parametrize("average", losses.AVERAGES)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_devices_change_nothing(miner, average, devices, key):
    # Two tight classes and scattered rest: the devices' active counts differ widely, so that
    # a mean of the devices' means would be another number.
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 2, 4, 3, 5, 2, 4])
    x = spread(7, 16)
    x = x.at[:8].set(x[:8] * 0.01 + np.repeat([[9.0], [-9.0]], 4, axis=0))
    settings = {"miner": miner, "average": average, "key": key}

    def value(x, y, axis_name):
        return losses.triplet_loss(x, y, axis_name=axis_name, **settings)

    whole = jax.jit(lambda x: jax.value_and_grad(value, has_aux=True)(x, y, None))
    (loss, stats), gradient = whole(x)

    def on_device(scale, x, y):
        # A shared parameter, whose gradient is reduced as train_step reduces it.
        def of_scale(scale):
            return value(scale * x, y, collectives.DEVICES)

        (loss, stats), gradient = jax.value_and_grad(of_scale, has_aux=True)(scale)
        return loss, stats, collectives.mean(gradient, collectives.DEVICES)

    lifted = jax.pmap(
        on_device,
        axis_name=collectives.DEVICES,
        in_axes=(None, 0, 0),
        out_axes=None,
        devices=jax.devices()[:devices],
    )
    shard = (devices, 16 // devices)
    found, found_stats, found_gradient = lifted(
        jnp.float32(1), x.reshape(*shard, 3), y.reshape(shard)
    )
    assert float(found) == pytest.approx(float(loss), rel=1e-5)
    assert float(found_gradient) == pytest.approx(float((gradient * x).sum()), rel=1e-4)
    for name, number in stats.items():
        assert float(found_stats[name]) == pytest.approx(float(number), rel=1e-5)


def test_uneven_active_counts_tell_a_global_mean_from_a_mean_of_means():
    """The batch of the test above does separate the two."""
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 2, 4, 3, 5, 2, 4])
    x = spread(7, 16)
    x = x.at[:8].set(x[:8] * 0.01 + np.repeat([[9.0], [-9.0]], 4, axis=0))
    whole, _ = losses.triplet_loss(x, y, miner="batch_all")
    halves = [
        losses.triplet_loss(h, g, miner="batch_all", references=x, reference_labels=y)[0]
        for h, g in ((x[:8], y[:8]), (x[8:], y[8:]))
    ]
    assert abs(np.mean(halves) - whole) > 0.05 * whole


@pytest.mark.parametrize("miner", sorted(mining.MINERS))
def test_order_of_the_batch_changes_nothing(miner, key):
    if miner == "random":
        pytest.skip("a draw belongs to a place in the batch")
    x, y = spread(2, 15), np.random.default_rng(1).integers(0, 5, 15)
    order = np.random.default_rng(2).permutation(15)
    loss, stats = losses.triplet_loss(x, y, miner=miner)
    shuffled_loss, shuffled_stats = losses.triplet_loss(x[order], y[order], miner=miner)
    assert shuffled_loss == pytest.approx(float(loss), rel=1e-5)
    assert stats["num_active"] == shuffled_stats["num_active"]


@pytest.mark.parametrize("miner", DETERMINISTIC)
def test_labels_are_only_compared(miner):
    x, y = spread(2, 9), np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    large = np.array([2**31 - 1, 2**24, 2**24 + 1])[y]
    plain, _ = losses.triplet_loss(x, y, miner=miner)
    renamed, _ = losses.triplet_loss(x, large, miner=miner)
    assert float(renamed) == pytest.approx(float(plain), rel=1e-6)
    negative, _ = losses.triplet_loss(x, -large, miner=miner)
    assert negative == pytest.approx(float(plain), rel=1e-6)


@pytest.mark.parametrize("miner", sorted(mining.MINERS))
@pytest.mark.parametrize("penalty", sorted(losses.PENALTIES))
@pytest.mark.parametrize(
    "labels", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1]], ids=["one", "all", "singleton"]
)
def test_batches_without_triplets_give_zero_and_say_why(miner, penalty, labels, key):
    x, y = jnp.asarray(spread(0, 4)), np.array(labels)

    def value(x):
        return losses.triplet_loss(x, y, miner=miner, penalty=penalty, key=key)

    (loss, stats), gradient = jax.value_and_grad(value, has_aux=True)(x)
    assert np.isfinite(gradient).all()
    if len(set(labels)) == 1:
        assert (loss, stats["num_valid"], stats["num_negative_pairs"]) == (0, 0, 0)
    elif len(set(labels)) == 4:
        assert (loss, stats["num_valid"], stats["num_positive_pairs"]) == (0, 0, 0)
    else:
        # The singleton is a negative of others and no anchor.
        assert stats["num_positive_pairs"] == 6
        assert not np.any(np.isnan(loss))


@pytest.mark.parametrize("miner", sorted(mining.MINERS))
@pytest.mark.parametrize("metric", sorted(distances.METRICS))
def test_collapsed_embeddings(miner, metric, key):
    x, y = jnp.ones((8, 3)), np.arange(8) // 2
    for penalty, level in (("hinge", 0.2), ("soft_margin", math.log(2))):
        run = functools.partial(losses.triplet_loss, miner=miner, metric=metric, key=key)
        (loss, _), gradient = jax.value_and_grad(
            lambda x, p=penalty, run=run: run(x, y, penalty=p), has_aux=True
        )(x)
        # No negative is farther than an equal positive, so semi-hard finds nothing.
        assert float(loss) == pytest.approx(0.0 if miner == "semi_hard" else level, abs=1e-4)
        assert np.isfinite(gradient).all()


def test_soft_margin_is_finite_at_any_scale():
    x, y = 1e4 * spread(0, 8), np.arange(8) // 2
    value, gradient = jax.value_and_grad(
        lambda x: losses.triplet_loss(x, y, miner="batch_hard", penalty="soft_margin")[0]
    )(jnp.asarray(x))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_hinge_has_no_gradient_at_its_kink():
    assert jax.grad(lambda d: losses.hinge(d, jnp.float32(1.2), 0.2))(jnp.float32(1.0)) == 0


def test_jit_equals_eager(key):
    x, y = spread(4, 12), np.arange(12) // 3
    for miner in mining.MINERS:
        eager = losses.triplet_loss(x, y, miner=miner, key=key)
        jitted = jax.jit(functools.partial(losses.triplet_loss, miner=miner, key=key))(x, y)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), eager, jitted)


def test_a_traced_margin_does_not_recompile():
    traces = 0

    def value(x, margin):
        nonlocal traces
        traces += 1
        return losses.triplet_loss(x, np.arange(8) // 2, margin=margin)[0]

    run = jax.jit(value)
    found = [float(run(spread(0, 8), jnp.float32(m))) for m in (0.1, 0.5, 2.0)]
    assert traces == 1
    assert found[0] < found[1] < found[2]


def test_a_miner_may_be_any_function_with_knobs():
    def nth_nearest(to_positives, is_positive, to_negatives, is_negative, *, n):
        ordered = jnp.sort(jnp.where(is_negative, to_negatives, jnp.inf))
        d_ap = jnp.max(to_positives, where=is_positive, initial=0.0)
        found = jnp.any(is_positive) & (jnp.sum(is_negative) > n)
        return mining.Triplets(d_ap, jnp.where(found, ordered[n], 0.0), found)

    x, y = spread(0, 12), np.arange(12) // 3
    hardest, _ = losses.triplet_loss(x, y, miner=functools.partial(nth_nearest, n=0))
    batch_hard, _ = losses.triplet_loss(x, y, miner="batch_hard")
    later, _ = losses.triplet_loss(x, y, miner=functools.partial(nth_nearest, n=5), tile_size=5)
    assert hardest == pytest.approx(float(batch_hard), rel=1e-5)
    assert later < hardest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"miner": "semi-hard"}, "miner='semi-hard' is not known. Did you mean 'semi_hard'"),
        ({"metric": "l2"}, "metric='l2' is not known"),
        ({"penalty": "softmargin"}, "Did you mean 'soft_margin'"),
        ({"average": "mean"}, "Allowed: active, valid"),
        ({"miner": "random"}, "key=None"),
        ({"tile_size": 0}, "tile_size=0 must be at least 1"),
        ({"references": jnp.ones((2, 3))}, "given together"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        losses.triplet_loss(spread(0, 4), np.array([0, 0, 1, 1]), **settings)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(errors.InputError, match="2147483648, more than"):
        losses.triplet_loss(spread(0, 2), np.array([0, 2**31]))
