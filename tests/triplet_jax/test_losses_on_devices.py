"""Triplet losses over several devices, and of the rows that a mask shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from tests.support.triplet_programs import COUNTS, MARGIN, MINERS, jitted, spread, with_gradients
from triplet_jax import losses
from triplet_jax.devices import collectives

# Two tight classes and scattered rest: the devices' active counts differ widely, so that a
# mean of the devices' means would be another number.
UNEVEN_LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 2, 4, 3, 5, 2, 4])
UNEVEN = np.array(spread(7, 16))
UNEVEN[:8] = UNEVEN[:8] * 0.01 + np.repeat([[9.0], [-9.0]], 4, axis=0)
ON_DEVICES = [(miner, (2, 4, 8)[i % 3]) for i, miner in enumerate(MINERS)]
ON_DEVICES += [(miner, n) for miner in ("semi_hard", "batch_all", "boltzmann") for n in (1, 2, 4)]
ON_DEVICES = [(*case, losses.AVERAGES[i % 2]) for i, case in enumerate(sorted(set(ON_DEVICES)))]
# Too far apart for these to find a triplet.
NEAR = ("band", "semi_hard_band", "semi_hard_facenet", "multi_similarity", "distance_weighted")


QUICK = [case for case in ON_DEVICES if case[:2] in {(miner, 4) for miner in MINERS}]
QUICK = [case for case in QUICK if case[0] in ("batch_all", "semi_hard")]
QUICK += [case for case in ON_DEVICES if case[0] in ("angular", "distance_weighted", "batch_hard")]


@pytest.mark.parametrize(("miner", "devices", "average"), cases.mostly_slow(ON_DEVICES, QUICK))
def test_devices_change_nothing(miner, devices, average, key):
    x, y = (spread(9, 16) / 3 if miner in NEAR else UNEVEN), UNEVEN_LABELS
    settings = {"miner": miner, "margin": MARGIN, "average": average}
    draws = {"key": key} if miner in oracles.RANDOM else {}
    if draws:
        whole = jax.jit(functools.partial(with_gradients, **settings))
        expected, (slope, _), stats = whole(x, y, **draws)
    else:
        chosen = oracles.mine(x, y, miner)

        def brute(x):
            return oracles.loss_of(x, chosen, margin=MARGIN)[0]

        means, *counts = oracles.loss_of(x, chosen, margin=MARGIN)
        expected, slope = means[average], oracles.slope(brute, x)[average]
        stats = dict(zip(COUNTS, counts, strict=False))

    def on_device(x, y):
        # A shared parameter, whose gradient is reduced as train_step reduces it.
        def of_shift(shift):
            mine = jax.lax.axis_index(collectives.DEVICES) * len(x)
            rows = x + jax.lax.dynamic_slice_in_dim(shift, mine, len(x))
            return losses.triplet_loss(rows, y, axis_name=collectives.DEVICES, **settings, **draws)

        found, gradient = jax.value_and_grad(of_shift, has_aux=True)(jnp.zeros((16, 3)))
        return found, collectives.mean(gradient, collectives.DEVICES)

    lifted = jax.pmap(
        on_device,
        axis_name=collectives.DEVICES,
        out_axes=None,
        devices=jax.devices()[:devices],
    )
    shard = (devices, 16 // devices)
    (loss, found_stats), gradient = lifted(x.reshape(*shard, 3), y.reshape(shard))
    assert stats["num_valid"] > 0
    assert float(loss) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    for name, number in stats.items():
        assert float(found_stats[name]) == pytest.approx(float(number), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=2e-4)


def test_uneven_active_counts_tell_a_global_mean_from_a_mean_of_means():
    """The batch of the test above does separate the two."""
    x = jnp.asarray(UNEVEN)
    refs = {"references": x, "reference_labels": UNEVEN_LABELS}
    whole, _ = jitted(x, UNEVEN_LABELS, miner="batch_all")
    halves = [
        jitted(x[rows], UNEVEN_LABELS[rows], miner="batch_all", **refs)[0]
        for rows in (slice(8), slice(8, 16))
    ]
    assert abs(np.mean(halves) - whole) > 0.05 * whole


# -- masks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "miner",
    cases.mostly_slow(
        ["semi_hard", "batch_all", "batch_hard", "quantile"], ["semi_hard", "batch_all"]
    ),
)
def test_a_masked_batch_is_the_batch_without_the_hidden_rows(miner):
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 5)).astype(np.float32)
    # The largest label there is, which hidden rows are sorted under.
    y = random.choice([3, 1, 2**31 - 1], 24).astype(np.int32)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def masked(x, mask):
        return losses.triplet_loss(x, y, miner=miner, mask=mask, tile_size=5)

    for shown in (np.arange(24) % 3 > 0, y != 2**31 - 1, np.arange(24) < 5, np.zeros(24, bool)):
        (loss, stats), slope = masked(x, shown)
        alone, labels = x[shown], y[shown]
        chosen = oracles.mine(alone, labels, miner)
        means, *counts = oracles.loss_of(alone, chosen)
        pairs = list(oracles.candidates_of(labels))
        counts += [sum(len(pair[i]) for pair in pairs) for i in (1, 2)]
        # A hinge near zero has lost digits of the distances it is the difference of.
        assert float(loss) == pytest.approx(means["active"], rel=2e-5)
        assert [stats[name] for name in COUNTS] == counts
        d = oracles.pairwise(alone, alone, "euclidean")
        for name, column in (("mean_d_ap", 1), ("mean_d_an", 2)):
            expected = np.mean([d[row[0], row[column]] for row in chosen] or [0.0])
            assert float(stats[name]) == pytest.approx(expected, rel=2e-5)
        expected = np.zeros_like(x)
        if chosen:
            brute = functools.partial(oracles.loss_of, found=chosen)
            expected[shown] = oracles.slope(lambda x, brute=brute: brute(x)[0], alone)["active"]
        np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=2e-4)


def test_a_mask_hides_rows_of_all_devices():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(32, 4)).astype(np.float32), random.integers(0, 4, 32)
    mask = random.random(32) < 0.6
    one, _ = jitted(x, y, mask=mask)
    each = jax.pmap(
        lambda x, y, mask: losses.triplet_loss(x, y, mask=mask, axis_name="devices")[0],
        axis_name="devices",
    )
    eight = each(x.reshape(8, 4, 4), y.reshape(8, 4), mask.reshape(8, 4))
    np.testing.assert_allclose(eight, one, rtol=1e-6)
