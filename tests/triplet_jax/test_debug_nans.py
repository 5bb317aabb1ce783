"""No step makes a NaN of finite embeddings, so that `jax_debug_nans` may be on."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import contrastive, distances, losses, mining, regularisers, telemetry

# Of one anchor: distances, and which of four rows are positives and negatives.
USUAL, EQUAL = np.float32([0.3, 0.9, 0.5, 1.1]), np.zeros(4, np.float32)
NOBODY, SOME = np.zeros(4, bool), np.array([True, True, False, False])
ROWS = [
    (d, of_p, of_n)
    for d in (USUAL, EQUAL)
    for of_p, of_n in ((SOME, NOBODY), (NOBODY, ~SOME), (NOBODY, NOBODY), (SOME, ~SOME))
]
BATCHES = {
    "one class": (np.eye(4, 3), [0, 0, 0, 0]),
    "no pairs": (np.eye(4, 3), [0, 1, 2, 3]),
    "duplicates": (np.full((4, 3), 0.1), [0, 0, 1, 1]),
    "zeros": (np.zeros((4, 3)), [0, 0, 1, 1]),
}


@pytest.fixture(autouse=True)
def debug_nans():
    with jax.debug_nans(True):
        yield


@pytest.mark.parametrize(
    "miner",
    cases.mostly_slow(
        sorted(mining.MINERS),
        ["batch_all", "boltzmann", "distance_weighted", "quantile"],
    ),
)
def test_miners(miner, key):
    mine = mining.MINERS[miner]
    offered = {"key": key, "dim": 3, "positives_to_negatives": jnp.zeros((4, 4))}
    named = inspect.signature(mine).parameters
    given = {name: value for name, value in offered.items() if name in named}
    for d, is_positive, is_negative in ROWS:
        d, is_positive, is_negative = map(jnp.asarray, (d, is_positive, is_negative))
        mined = mine(d, is_positive, d, is_negative, **given)
        assert not any(np.isnan(x).any() for x in mined)


@pytest.mark.parametrize(
    "name",
    cases.mostly_slow(
        sorted(contrastive.LOSSES),
        ["debiased", "lifted", "smooth_ap"],
    ),
)
def test_contrastive_losses(name):
    loss = contrastive.LOSSES[name]

    def value(d, is_positive, is_negative):
        return jnp.sum(loss(d, is_positive, d, is_negative).value)

    for d, is_positive, is_negative in ROWS:
        slope = jax.grad(value)(*map(jnp.asarray, (d, is_positive, is_negative)))
        assert np.isfinite(slope).all()


def whole(x, y, mask):
    """Op by op, so that jax looks at every intermediate number."""
    x, y = jnp.asarray(x, jnp.float32), np.array(y)
    params = {"minkowski": {"p": 3.0}, "mahalanobis": {"precision": jnp.eye(3)}}
    for metric in distances.METRICS:
        for miner in ("batch_hard", "batch_all", "rank"):
            settings = {"miner": miner, "metric": metric, "metric_params": params.get(metric)}
            run = functools.partial(losses.triplet_loss, mask=mask, **settings)
            jax.grad(run, has_aux=True)(x, y)
    for penalty in losses.PENALTIES:
        metric = "cosine" if penalty == "selectively_contrastive" else "euclidean"
        run = functools.partial(losses.triplet_loss, mask=mask, penalty=penalty, metric=metric)
        jax.grad(run, has_aux=True)(x, y)
    for name in contrastive.LOSSES:
        metric = "euclidean" if name in ("lifted", "pairs") else "cosine"
        run = functools.partial(contrastive.contrastive_loss, mask=mask, loss=name, metric=metric)
        jax.grad(run, has_aux=True)(x, y)
    for term in regularisers.REGULARISERS.values():
        jax.grad(functools.partial(term, mask=mask))(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [None, 2, 4])
@pytest.mark.parametrize("batch", BATCHES)
def test_batches_at_the_edge(batch, hidden):
    whole(*BATCHES[batch], None if hidden is None else jnp.arange(4) >= hidden)


def test_telemetry_of_equal_embeddings():
    """Their triplets are at hardness 0, and not at the end of the scale."""
    x, y = BATCHES["duplicates"]
    run = functools.partial(telemetry.of_batch, miner="batch_all", margin=0.2, most_positives=3)
    hardness = jax.jit(run)(jnp.asarray(x, jnp.float32), jnp.array(y))["hardness"]
    middle = np.searchsorted(telemetry.HARDNESS_EDGES, 0.0, side="right") - 1
    np.testing.assert_array_equal(hardness, np.eye(len(hardness))[middle])
