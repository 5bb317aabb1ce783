"""Compiled triplet losses, kept for the next test of a module, and their check by brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import oracles
from triplet_jax import losses, mining

MINERS = [name for name in sorted(mining.MINERS) if name != "semi_hard_hardest_beyond"]
PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]])
PARAMS = {"minkowski": {"p": 3.0}, "mahalanobis": {"precision": jnp.float32(PRECISION)}}
MARGIN = 0.3
COUNTS = ("num_valid", "num_active", "num_positive_pairs", "num_negative_pairs")


def spread(seed, n, dim=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, dim)), jnp.float32)


def with_gradients(x, y, *, refs=None, ref_labels=None, **settings):
    """The loss, its gradients in embeddings and references, and the stats."""

    def value(x, refs):
        return losses.triplet_loss(x, y, references=refs, reference_labels=ref_labels, **settings)

    (loss, stats), gradients = jax.value_and_grad(value, (0, 1), has_aux=True)(x, refs)
    return loss, gradients, stats


@functools.cache
def _forward(**settings):
    return jax.jit(functools.partial(losses.triplet_loss, **settings))


def jitted(x, y, **settings):
    """`triplet_loss`, compiled: op by op it is slow."""
    arrays = {k: v for k, v in settings.items() if isinstance(v, np.ndarray | jax.Array)}
    fixed = {k: v for k, v in settings.items() if k not in arrays}
    return _forward(**fixed)(x, y, **arrays)


@functools.cache
def program(penalty="hinge", metric="euclidean", average="valid", tile_size=7, **settings):
    """A compiled `with_gradients`."""
    settings |= {"penalty": penalty, "metric": metric, "average": average, "tile_size": tile_size}
    params = PARAMS.get(metric)
    return jax.jit(
        functools.partial(with_gradients, margin=MARGIN, metric_params=params, **settings)
    )


def check(x, y, miner, refs=None, ref_labels=None, **settings):
    """Against brute force: value, counts, mean distances and gradient."""
    run = program(miner=miner, **settings)
    loss, (of_x, of_refs), stats = run(x, y, refs=refs, ref_labels=ref_labels)
    metric, average = settings.get("metric", "euclidean"), settings.get("average", "valid")
    penalty, params = settings.get("penalty", "hinge"), PARAMS.get(metric)
    chosen = oracles.mine(x, y, miner, metric, refs, ref_labels, params)
    brute = functools.partial(
        oracles.loss_of, found=chosen, metric=metric, margin=MARGIN, penalty=penalty, params=params
    )
    means, valid, active = brute(x, refs=refs)
    assert (stats["num_valid"], stats["num_active"]) == (valid, active)
    d = oracles.pairwise(x, x if refs is None else refs, metric, **(params or {}))
    for name, column in (("mean_d_ap", 1), ("mean_d_an", 2)):
        expected = np.mean([d[row[0], row[column]] for row in chosen]) if chosen else 0.0
        assert float(stats[name]) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert float(loss) == pytest.approx(means[average], rel=1e-5, abs=1e-6)
    slope = oracles.slope(lambda x: brute(x, refs=refs)[0], x)[average]
    np.testing.assert_allclose(of_x, slope, rtol=1e-3, atol=2e-4)
    if refs is not None:
        slope = oracles.slope(lambda r: brute(x, refs=r)[0], refs)[average]
        np.testing.assert_allclose(of_refs, slope, rtol=1e-3, atol=2e-4)
