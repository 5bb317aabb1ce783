"""What goes wrong, mostly in silence, in other libraries of this kind: here it does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import distances, errors, losses, mining, penalties
from triplet_jax.devices import collectives


def spread(seed, n, dim=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, dim)), jnp.float32)


def run(x, y, **settings):
    return jax.jit(
        lambda x: jax.value_and_grad(losses.triplet_loss, has_aux=True)(x, y, **settings)
    )(x)


@pytest.mark.parametrize("name", ["semi-hard", "nonsense", "seminard", "Semi_Hard", ""])
def test_an_unknown_kind_of_triplet_is_refused(name):
    """PyTorch Metric Learning mines all triplets for any unknown `type_of_triplets`."""
    with pytest.raises(errors.InputError, match="is not known"):
        losses.triplet_loss(spread(0, 4), np.array([0, 0, 1, 1]), miner=name)


def test_swap_with_references_measures_between_references():
    """PyTorch Metric Learning looks up `swap` in the matrix from queries to references."""
    x, refs = spread(0, 6), spread(1, 9)
    y, ref_labels = np.arange(6) % 3, np.arange(9) % 3
    for miner in ("batch_all", "semi_hard"):
        (loss, _), _ = run(
            x, y, miner=miner, penalty="anchor_swap", references=refs, reference_labels=ref_labels
        )
        chosen = oracles.mine(x, y, miner, refs=refs, ref_labels=ref_labels)
        means, _, _ = oracles.loss_of(x, chosen, penalty="anchor_swap", refs=refs)
        assert float(loss) == pytest.approx(means["active"], rel=1e-5)


@pytest.mark.parametrize("miner", cases.mostly_slow(["semi_hard", "batch_all"], ["semi_hard"]))
def test_large_labels_compare_exactly(miner):
    """PyTorch Metric Learning casts labels to float32 when it evaluates."""
    x, y = spread(2, 9), np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    large = np.array([2**31 - 1, 2**24, 2**24 + 1])[y]
    (plain, _), gradient = run(x, y, miner=miner)
    for renamed in (large, -large):
        (loss, stats), renamed_gradient = run(x, renamed, miner=miner)
        assert float(loss) == pytest.approx(float(plain), rel=1e-5)
        np.testing.assert_allclose(gradient, renamed_gradient, atol=1e-6)
        assert stats["num_positive_pairs"] == 18


@pytest.mark.slow
@pytest.mark.parametrize("dim", [512, 2048])
def test_distance_weighted_gives_every_anchor_its_triplets(dim, key):
    """PyTorch Metric Learning scales weights by the batch's largest, and most underflow."""
    x = distances.unit(spread(0, 64, dim))
    close = distances.unit(x[:1] + 0.3 * distances.unit(spread(1, 1, dim)))
    x, y = x.at[33].set(close[0]), np.arange(64) % 32
    mine = functools.partial(mining.distance_weighted, farthest=1.6)
    (_, stats), _ = run(x, y, miner=mine, key=key)
    assert stats["num_valid"] == 64


def test_both_averages_are_exact():
    """The default mean of PyTorch Metric Learning is over violators alone, and says so nowhere."""
    x, y = spread(4, 12), np.arange(12) // 3
    means, valid, active = oracles.loss_of(x, oracles.mine(x, y, "batch_all"))
    assert 0 < active < valid
    for average in losses.AVERAGES:
        (loss, stats), _ = run(x, y, miner="batch_all", average=average)
        assert float(loss) == pytest.approx(means[average], rel=1e-5)
        assert (stats["num_active"], stats["num_valid"]) == (active, valid)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_the_number_of_devices_does_not_change_the_experiment(devices):
    """sentence-transformers and others mine on every device for itself."""
    x, y = spread(4, 16), np.random.default_rng(0).permutation(np.arange(16) // 2)
    means, valid, _ = oracles.loss_of(x, oracles.mine(x, y, "semi_hard"))
    lifted = jax.pmap(
        functools.partial(losses.triplet_loss, axis_name=collectives.DEVICES),
        axis_name=collectives.DEVICES,
        devices=jax.devices()[:devices],
    )
    loss, stats = lifted(x.reshape(devices, -1, 3), y.reshape(devices, -1))
    assert np.asarray(loss) == pytest.approx(means["active"], rel=1e-5)
    assert np.all(stats["num_valid"] == valid)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_the_soft_margin_is_finite_at_any_scale(scale):
    """log1p(exp(x)) overflows in TensorFlow Addons and sentence-transformers."""
    x, y = scale * spread(0, 8), np.arange(8) // 2
    (loss, _), gradient = run(x, y, miner="batch_hard", penalty="soft_margin", average="valid")
    chosen = np.array(oracles.mine(x, y, "batch_hard")).T
    d = oracles.pairwise(x, x, "euclidean")
    expected = np.logaddexp(0, d[chosen[0], chosen[1]] - d[chosen[0], chosen[2]]).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(gradient).all()


def test_the_hinge_has_no_gradient_at_its_kink():
    """`jnp.maximum(z, 0)` has a slope of a half there."""
    assert jax.grad(lambda d: penalties.hinge(d, jnp.float32(1.0), 0.0))(jnp.float32(1.0)) == 0
    _, gradient = run(jnp.ones((8, 3)), np.arange(8) // 2, miner="batch_all", margin=0.0)
    assert not np.any(gradient)


@pytest.mark.parametrize("miner", cases.mostly_slow(["batch_hard", "batch_all"], ["batch_all"]))
def test_duplicates_give_no_nan(miner):
    """The slope of sqrt at 0 is infinite; optax's norm of a difference gives NaN."""
    x = jnp.repeat(spread(0, 4), 2, axis=0)
    for y in (np.arange(8) // 2, np.arange(8) % 2):  # equal rows alike, or apart
        (loss, _), gradient = run(x, y, miner=miner)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_norms_of_odd_degree_are_right(p):
    """optax takes no absolute value: NaN for degrees that are not even."""
    x, y = spread(0, 8), np.arange(8) // 2
    (loss, _), gradient = run(x, y, metric="minkowski", metric_params={"p": p}, miner="batch_all")
    chosen = oracles.mine(x, y, "batch_all", "minkowski", params={"p": p})

    def brute(x):
        return oracles.loss_of(x, chosen, metric="minkowski", params={"p": p})[0]

    assert float(loss) == pytest.approx(brute(x)["active"], rel=1e-5)
    np.testing.assert_allclose(gradient, oracles.slope(brute, x)["active"], rtol=1e-3, atol=1e-4)


EDGES = [
    (miner, penalty)
    for miner in ("batch_hard", "semi_hard_tfa", "batch_all")
    for penalty in ("hinge", "soft_margin")
]


@pytest.mark.parametrize(("miner", "penalty"), cases.mostly_slow(EDGES, EDGES[3:4]))
def test_batches_at_the_edge(miner, penalty):
    """Anchors without a positive or a negative count elsewhere, with distances of 0 or NaN."""
    x = spread(0, 6)

    def settled(x, y):
        return run(x, np.array(y), miner=miner, penalty=penalty, average="valid")

    for y in ([0, 1, 2, 3, 4, 5], [0] * 6):  # TensorFlow Addons: NaN; sentence-transformers: 0.4
        (loss, stats), gradient = settled(x, y)
        assert (loss, stats["num_valid"]) == (0, 0)
        assert not np.any(gradient)
    # A class of one is no anchor: the mean is that of the others (elsewhere d_ap = 0 joins it).
    y = np.array([0, 0, 0, 1, 1, 2])
    (loss, stats), _ = settled(x, y)
    chosen = oracles.mine(x, y, miner)
    assert all(a != 5 for a, _, _ in chosen)
    assert stats["num_valid"] == len(chosen)
    means, _, _ = oracles.loss_of(x, chosen, penalty=penalty)
    assert float(loss) == pytest.approx(means["valid"], rel=1e-5)
    # All in one place: the loss of equal distances, and nowhere to go.
    (loss, stats), gradient = settled(jnp.ones((6, 3)), y)
    assert float(loss) == pytest.approx(0.2 if penalty == "hinge" else np.log(2))
    assert not np.any(gradient)
