"""Losses of one anchor against those of PyTorch Metric Learning 2.9. Run by `make oracle`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import contrastive

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore"),  # those of torch and its friends
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="make oracle installs it")


@pytest.fixture(scope="module")
def pml(torch):
    return pytest.importorskip("pytorch_metric_learning.losses", reason="make oracle installs it")


def batch(seed, sizes=(4, 4, 4, 4), dim=5):
    """Rows of length 1, and labels. Every anchor has a positive."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = random.normal(size=(len(labels), dim)) + random.normal(size=(len(sizes), dim))[labels]
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels


def theirs(torch, loss, x, labels):
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = loss(leaf, torch.tensor(labels))
    value.backward()
    return value.item(), leaf.grad.numpy()


def ours(x, labels, loss, metric="cosine", counts_itself=False):
    def value(x):
        itself = {"references": x, "reference_labels": labels} if counts_itself else {}
        return contrastive.contrastive_loss(x, labels, loss=loss, metric=metric, **itself)[0]

    found, slope = jax.jit(jax.value_and_grad(value))(jnp.asarray(x, jnp.float32))
    return float(found), slope


def assert_agree(found, expected, within=1e-4):
    (value, slope), (their_value, their_slope) = found, expected
    assert value == pytest.approx(their_value, rel=within)
    atol = within * max(1.0, np.abs(their_slope).max())
    np.testing.assert_allclose(slope, their_slope, rtol=10 * within, atol=atol)


# -- losses of ranks ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_smooth_ap_is_theirs_if_the_anchor_is_a_positive_too(torch, pml, seed, temperature):
    x, labels = batch(seed)
    expected = theirs(torch, pml.SmoothAPLoss(temperature=temperature), x, labels)
    loss = functools.partial(contrastive.smooth_ap, temperature=temperature)
    assert_agree(ours(x, labels, loss, counts_itself=True), expected, within=5e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [10, 7])
def test_fast_ap_is_theirs(torch, pml, seed, bins):
    x, labels = batch(seed, (2, 3, 5, 6))
    expected = theirs(torch, pml.FastAPLoss(num_bins=bins), x, labels)
    assert_agree(ours(x, labels, functools.partial(contrastive.fast_ap, bins=bins)), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("power", [1.0, 4.0])
def test_pnp_is_their_variant_dq_if_the_anchor_is_a_positive_too(torch, pml, seed, power):
    x, labels = batch(seed, (2, 3, 5, 6))
    expected = theirs(torch, pml.PNPLoss(variant="Dq", alpha=power), x, labels)
    loss = functools.partial(contrastive.pnp, power=power)
    assert_agree(ours(x, labels, loss, counts_itself=True), expected, within=5e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tn", [0.0, 5.0])
def test_ranked_list_is_theirs_but_for_the_slope_of_its_weights(torch, pml, seed, tn):
    x, labels = batch(seed, (2, 3, 5, 6))
    theirs_loss = pml.RankedListLoss(margin=0.4, Tn=tn, alpha=1.2, imbalance=0.3)
    value, slope = theirs(torch, theirs_loss, x, labels)
    loss = functools.partial(
        contrastive.ranked_list, temperature=1 / tn if tn else np.inf, negative_share=0.3
    )

    # Theirs takes lengths away.
    def of_directions(x):
        return contrastive.contrastive_loss(
            x / jnp.linalg.norm(x, axis=1, keepdims=True), labels, loss=loss, metric="euclidean"
        )[0]

    found, of_x = jax.jit(jax.value_and_grad(of_directions))(jnp.asarray(x, jnp.float32))
    if not tn:
        assert_agree((float(found), of_x), (value, slope), within=2e-4)
    assert float(found) == pytest.approx(value, rel=2e-4)
