"""Losses of one anchor against those of PyTorch Metric Learning 2.9. Run by `make oracle`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import class_centres, contrastive, losses, regularisers

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


# -- losses of softmaxes and class weights -----------------------------------------------


def test_nca_is_theirs(torch, pml):
    x, labels = batch(0, (2, 3, 5, 6))
    expected = theirs(torch, pml.NCALoss(softmax_scale=4), x, labels)
    loss = functools.partial(contrastive.nca, temperature=1 / 8)
    # For unit vectors 4 d^2 = 8 - 8 cos.
    assert_agree(ours(x, labels, loss), expected)


def test_tuplet_margin_is_theirs(torch, pml):
    x, labels = batch(0, (2, 3, 5, 6))
    expected = theirs(torch, pml.TupletMarginLoss(margin=np.degrees(0.1), scale=64), x, labels)
    loss = functools.partial(contrastive.tuplet_margin, slack=0.1)
    assert_agree(ours(x, labels, loss), expected, within=5e-4)


def weights_of(loss, classes, dim):
    """Where a loss of theirs keeps its weights."""
    name = next(name for name in ("W", "fc", "weight") if hasattr(loss, name))
    return getattr(loss, name)


def against_weights(torch, theirs_loss, name, knobs, centres=1, temperature=0.0):
    x, labels = batch(1, (3, 4, 5, 4))
    classes, dim = labels.max() + 1, x.shape[1]
    drawn = np.random.default_rng(2).normal(size=(classes, centres, dim))
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    weights = weights_of(theirs_loss.double(), classes, dim)
    weights.data = torch.tensor(drawn.reshape(-1, dim).T)
    value, slope = theirs(torch, theirs_loss, x, labels)

    def ours_loss(x, centre):
        return contrastive.contrastive_loss(
            class_centres.repeated(x, centres),
            labels,
            loss=functools.partial(contrastive.LOSSES[name], **knobs),
            references=losses.References(
                centre.reshape(classes, -1), np.arange(classes), shared=True
            ),
            metric=class_centres.to_centres,
            metric_params={"centres": centres, "temperature": temperature},
        )[0]

    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(drawn, jnp.float32)
    found, (of_x, of_weights) = jax.jit(jax.value_and_grad(ours_loss, (0, 1)))(*arrays)
    their_weights = weights.grad.numpy().T.reshape(drawn.shape)
    return (float(found), of_x, of_weights), (value, slope, their_weights), (x, drawn)


@pytest.mark.parametrize(
    ("name", "knobs", "theirs_of", "centres", "temperature"),
    [
        ("cosface", {}, ("CosFaceLoss", {}), 1, 0.0),
        (
            "cosface",
            {"margin": 0.1, "scale": 10.0},
            ("CosFaceLoss", {"margin": 0.1, "scale": 10}),
            1,
            0.0,
        ),
        ("sphereface", {}, ("SphereFaceLoss", {"scale": 30}), 1, 0.0),
        ("sphereface", {"multiplier": 3.0}, ("SphereFaceLoss", {"margin": 3, "scale": 30}), 1, 0.0),
        ("sphereface", {}, ("LargeMarginSoftmaxLoss", {"scale": 30}), 1, 0.0),
        (
            "arcface",
            {},
            ("SubCenterArcFaceLoss", {"margin": np.degrees(0.5), "sub_centers": 3}),
            3,
            0.0,
        ),
        (
            "cosface",
            {"margin": 0.01, "scale": 20.0},
            ("SoftTripleLoss", {"centers_per_class": 4}),
            4,
            0.1,
        ),
    ],
)
def test_losses_against_class_weights_are_theirs(
    torch, pml, name, knobs, theirs_of, centres, temperature
):
    kind, settings = theirs_of
    made = getattr(pml, kind)(num_classes=4, embedding_size=5, **settings)
    found, expected, points = against_weights(torch, made, name, knobs, centres, temperature)
    for slope, theirs_slope, at in zip(found[1:], expected[1:], points, strict=True):
        # Some of theirs have a slope along the lengths too, which are 1 here.
        across = theirs_slope - at * (theirs_slope * at).sum(axis=-1, keepdims=True)
        assert_agree((found[0], slope), (expected[0], across), within=5e-4)


def test_p2s_grad_is_theirs_times_the_number_of_classes(torch, pml):
    made = pml.P2SGradLoss(descriptors_dim=5, num_classes=4)
    found, (value, slope, _), _ = against_weights(torch, made, "p2s_grad", {})
    assert_agree(found[:2], (4 * value, 4 * slope))


def test_pairs_by_signal_to_noise_are_theirs(torch, pml):
    x, labels = batch(5, (2, 3, 5, 6))
    expected = theirs(torch, pml.SignalToNoiseRatioContrastiveLoss(), x, labels)

    # Theirs takes lengths away.
    def of_directions(x):
        return contrastive.contrastive_loss(
            x / jnp.linalg.norm(x, axis=1, keepdims=True),
            labels,
            loss=functools.partial(contrastive.pairs, power=1.0),
            metric="signal_to_noise",
        )[0]

    found, slope = jax.jit(jax.value_and_grad(of_directions))(jnp.asarray(x, jnp.float32))
    assert_agree((float(found), slope), expected)


# -- regularisers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("pair_variance", "IntraPairVarianceLoss", {}),
        ("threshold_consistency", "ThresholdConsistentMarginLoss", {}),
        ("histogram", "HistogramLoss", {}),
    ],
)
def test_regularisers_of_pairs_are_theirs(torch, pml, name, kind, settings):
    x, labels = batch(3, (2, 3, 5, 6))
    expected = theirs(torch, getattr(pml, kind)(**settings), x, labels)
    run = jax.jit(jax.value_and_grad(regularisers.REGULARISERS[name]))
    value, slope = run(jnp.asarray(x, jnp.float32), labels)
    assert_agree((float(value), slope), expected)


def test_variance_and_covariance_are_those_of_vicreg(torch, pml):
    x = np.random.default_rng(4).normal(size=(12, 5)) * np.linspace(0.3, 2, 5)
    parts = {"invariance_lambda": 0, "variance_mu": 0, "covariance_v": 0}
    for name, part, views in (("variance", "variance_mu", 1), ("covariance", "covariance_v", 2)):
        loss = pml.VICRegLoss(**(parts | {part: 1}))
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = loss(leaf, ref_emb=leaf)
        value.backward()
        run = jax.jit(jax.value_and_grad(regularisers.REGULARISERS[name]))
        found, slope = run(jnp.asarray(x, jnp.float32), np.zeros(12, int))
        # The covariances of two views are added, and their variances averaged.
        expected = value.item() / views, leaf.grad.numpy() / views
        assert_agree((float(found), slope), expected)
