"""Triplets that are mined by one metric and penalised by another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, oracles
from triplet_jax import errors, losses, mining
from triplet_jax.devices import collectives

RULED = [name for name in sorted(mining.MINERS) if name not in oracles.RANDOM]
RULED.remove("semi_hard_hardest_beyond")
METRICS = {"angular": ("manhattan", "euclidean")}
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 5, 3, 3, 0])
X = np.random.default_rng(5).normal(size=(12, 3)).astype(np.float32)
REFERENCES = np.random.default_rng(6).normal(size=(9, 3)).astype(np.float32)
REFERENCE_LABELS = np.array([2, 1, 1, 0, 7, 0, 3, 5, 2])
SETTINGS = {"margin": 0.3, "average": "valid", "penalty": "anchor_swap"}


def found(x, refs=None, ref_labels=None, **settings):
    def value(x, refs):
        references = {"references": refs, "reference_labels": ref_labels}
        return losses.triplet_loss(x, LABELS, **references, **SETTINGS, **settings)

    of = (0,) if refs is None else (0, 1)
    return jax.jit(jax.value_and_grad(value, of, has_aux=True))(x, refs)


def expected(x, miner, mined_by, metric, refs=None, ref_labels=None):
    """The triplets, the loss and its slopes from the definitions, by two matrices of distances."""
    chosen = oracles.mine(x, LABELS, miner, mined_by, refs, ref_labels)
    settings = {"metric": metric, "margin": 0.3, "penalty": "anchor_swap"}

    def brute(x, refs):
        return oracles.loss_of(x, chosen, refs=refs, **settings)[0]

    slopes = [oracles.slope(lambda x: brute(x, refs), x)["valid"]]
    if refs is not None:
        slopes.append(oracles.slope(lambda refs: brute(x, refs), refs)["valid"])
    return chosen, brute(x, refs)["valid"], slopes


OF_EITHER_KIND = ("angular", "batch_all", "batch_hard", "quantile", "semi_hard")


@pytest.mark.parametrize(
    "miner",
    [
        name if name in OF_EITHER_KIND else pytest.param(name, marks=pytest.mark.slow)
        for name in RULED
    ],
)
def test_a_miner_sees_its_metric_and_the_penalty_its_own(miner):
    metric, mined_by = METRICS.get(miner, ("squared_euclidean", "cosine"))
    chosen, value, slopes = expected(X, miner, mined_by, metric)
    tiles = {"tile_size": 5} if miner in ("semi_hard", "batch_all") else {}
    (loss, stats), gradient = found(X, miner=miner, metric=metric, mining_metric=mined_by, **tiles)
    assert stats["num_valid"] == len(chosen) > 0
    d = oracles.pairwise(X, X, metric)
    assert float(stats["mean_d_an"]) == pytest.approx(
        np.mean([d[a, n] for a, _, n in chosen]), 1e-4
    )
    assert float(loss) == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(gradient[0], slopes[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("miner", ["semi_hard", "hard"])
def test_references_are_measured_by_both(miner):
    refs = (REFERENCES, REFERENCE_LABELS)
    chosen, value, slopes = expected(X, miner, "manhattan", "euclidean", *refs)
    (loss, stats), gradient = found(X, *refs, miner=miner, mining_metric="manhattan", tile_size=7)
    assert stats["num_valid"] == len(chosen) > 0
    assert float(loss) == pytest.approx(value, rel=1e-5)
    for one, other in zip(gradient, slopes, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("miner", [pytest.param("batch_hard", marks=pytest.mark.slow), "batch_all"])
def test_devices_and_second_derivatives_change_nothing(miner):
    chosen, value, slopes = expected(X, miner, "cosine", "euclidean")
    settings = SETTINGS | {"miner": miner, "mining_metric": "cosine", "derivatives": "all"}

    def of_device(x, y):
        run = functools.partial(losses.triplet_loss, axis_name=collectives.DEVICES, **settings)
        return jax.value_and_grad(run, has_aux=True)(x, y)

    lifted = jax.pmap(of_device, axis_name=collectives.DEVICES, devices=jax.devices()[:4])
    (loss, stats), gradient = lifted(X.reshape(4, 3, 3), LABELS.reshape(4, 3))
    assert stats["num_valid"][0] == len(chosen)
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    np.testing.assert_allclose(gradient.reshape(12, 3) / 4, slopes[0], rtol=1e-3, atol=1e-4)


def test_the_parameters_of_both_metrics_are_apart():
    params = {"metric": "minkowski", "metric_params": {"p": 3.0}}
    mined_by = {"mining_metric": "minkowski", "mining_metric_params": {"p": 1.0}}
    run = functools.partial(losses.triplet_loss, miner="batch_hard", **params)
    loss, _ = calls.compiled(run, X, LABELS, **mined_by)
    same, _ = calls.compiled(run, X, LABELS, mining_metric="manhattan")
    assert float(loss) == pytest.approx(float(same), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mining_metric": "l1"}, "mining_metric='l1' is not known"),
        ({"mining_metric_params": {"p": 2.0}}, "without mining_metric"),
        ({"mining_metric": "minkowski"}, "mining_metric='minkowski' takes p"),
        ({"miner": "angular", "mining_metric": "cosine"}, "mining_metric='cosine' does not suit"),
        ({"penalty": "selectively_contrastive", "mining_metric": "cosine"}, "does not suit"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        losses.triplet_loss(jnp.asarray(X), LABELS, **settings)


def test_a_miner_that_computes_distances_needs_the_metric_of_the_penalty():
    def mean_of_negatives(to_positives, is_positive, to_negatives, is_negative):
        far = jnp.mean(to_negatives, where=is_negative)
        return mining.Triplets(to_positives[:, None], far[None, None], is_positive[:, None])

    run = functools.partial(losses.triplet_loss, miner=mean_of_negatives)
    with pytest.raises(errors.InputError, match="leave mining_metric out"):
        calls.compiled(run, X, LABELS, mining_metric="cosine")
