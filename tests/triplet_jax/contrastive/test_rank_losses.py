"""What ranks have beside the definitions in test_batch_loss.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, oracles
from triplet_jax import contrastive

Y = np.repeat([0, 1, 2], [3, 4, 5])


def rows(seed=0):
    return np.random.default_rng(seed).normal(size=(len(Y), 4)).astype(np.float32)


def value(x, y=Y, **settings):
    return calls.compiled(contrastive.contrastive_loss, jnp.asarray(x), y, **settings)[0]


def test_smooth_ap_of_a_low_temperature_is_one_minus_map():
    x = rows()
    found = value(x, loss=functools.partial(contrastive.smooth_ap, temperature=1e-6))
    scores, _ = oracles.retrieval(x, Y, (1,), metric="cosine")
    assert float(found) == pytest.approx(1 - scores["map"], abs=1e-5)


def test_recall_at_k_of_low_temperatures_is_the_share_that_is_found():
    x, far = rows(), rows(1)
    low = {"temperature": 1e-6, "rank_temperature": 1e-6}
    d = oracles.pairwise(x, far, "cosine")
    nearest = np.argsort(d, axis=1)
    # The step at k itself counts half: rank k is half found, and ranks below k are found.
    found = [
        [(Y[order[: k - 1]] == y).sum() + 0.5 * (Y[order[k - 1]] == y) for k in (1, 2, 4)]
        for order, y in zip(nearest, Y, strict=True)
    ]
    positives = (Y[:, None] == Y).sum(axis=1)
    recall = np.array(found) / np.minimum([1, 2, 4], positives[:, None])
    loss = functools.partial(contrastive.recall_at_k, most=4, **low)
    ours = value(x, loss=loss, references=jnp.asarray(far), reference_labels=Y)
    assert float(ours) == pytest.approx(1 - recall.mean(), abs=1e-5)


@pytest.mark.parametrize("name", ["smooth_ap", "pnp", "fast_ap"])
def test_a_perfect_ranking_costs_nothing(name):
    x = np.eye(3, dtype=np.float32)[Y]
    assert float(value(x, loss=name)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "knob", "values"), [("fast_ap", "bins", (4, 10)), ("recall_at_k", "most", (1, 8))]
)
def test_whole_numbers_may_be_traced(loss, knob, values):
    traces = 0

    @jax.jit
    def traced(x, number):
        nonlocal traces
        traces += 1
        settings = {"loss": functools.partial(contrastive.LOSSES[loss], **{knob: number})}
        return contrastive.contrastive_loss(x, Y, **settings)[0]

    for number in values:
        fixed = value(rows(), loss=functools.partial(contrastive.LOSSES[loss], **{knob: number}))
        found = traced(rows(), jnp.int32(number))
        assert float(found) == pytest.approx(float(fixed), rel=1e-5)
    assert traces == 1
