"""Losses of other number types than float32, and arrays that are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, cases, oracles
from triplet_jax import (
    contrastive,
    distances,
    errors,
    losses,
    mining,
    penalties,
    regularisers,
    telemetry,
)
from triplet_jax.devices import collectives

ROWS, LABELS = 12, np.repeat([3, 1, 2], 4)
LOW = (jnp.float16, jnp.bfloat16)


def rows(dim=5, seed=0, scale=1.0):
    return scale * np.abs(np.random.default_rng(seed).normal(size=(ROWS, dim)))


def triplet(x, **settings):
    return losses.triplet_loss(x, LABELS, key=jax.random.key(0), **settings)[0]


def given(x, **settings):
    return losses.of_triplets(x[:4], x[4:8], x[8:], **settings)[0]


def other(x, loss, metric):
    return contrastive.contrastive_loss(x, LABELS, loss=loss, metric=metric)[0]


def metric_of(loss):
    return {"lifted": "euclidean", "pairs": "euclidean"}.get(loss, "cosine")


def measured(x):
    """All that telemetry gives, as one number."""
    found = telemetry.of_batch(x, LABELS, miner="batch_all", margin=0.2, most_positives=3)
    return sum(jnp.sum(part) for part in found.values())


FUNCTIONS = {
    "triplet euclidean": functools.partial(triplet, miner="batch_all"),
    "triplet cosine": functools.partial(triplet, miner="semi_hard", metric="cosine"),
    "triplet minkowski": functools.partial(
        triplet, miner="batch_hard", metric="minkowski", metric_params={"p": 3.0}
    ),
    "triplet learned": functools.partial(
        triplet,
        miner="distance_weighted",
        penalty=functools.partial(penalties.margin_based, beta=jnp.bfloat16(1.2)),
    ),
    "given cosine": functools.partial(given, metric="cosine"),
    "given mahalanobis": functools.partial(
        given, metric="mahalanobis", precision=jnp.eye(5, dtype=jnp.bfloat16)
    ),
}
FUNCTIONS |= {
    loss: functools.partial(other, loss=loss, metric=metric_of(loss)) for loss in contrastive.LOSSES
}
FUNCTIONS |= {
    name: functools.partial(function, labels=LABELS)
    for name, function in regularisers.REGULARISERS.items()
}


QUICK = ["triplet learned", "given cosine", "info_nce", "norm", "spread"]


@pytest.mark.parametrize("name", cases.mostly_slow(FUNCTIONS, QUICK))
def test_low_precision_gives_the_value_of_float32_and_its_gradient(name):
    function = jax.jit(jax.value_and_grad(FUNCTIONS[name]))
    kind = LOW[len(name) % 2]
    low = jnp.asarray(rows(), kind)
    found, slope = function(low)
    expected, expected_slope = function(low.astype(jnp.float32))
    assert found.dtype == jnp.float32 and float(found) == pytest.approx(float(expected), rel=1e-6)
    assert slope.dtype == kind and np.any(slope)
    # A rounding to the type may go either way where the programs differ in the last bit.
    apart = 2 * float(jnp.finfo(kind).eps)
    np.testing.assert_allclose(
        np.float64(slope), np.float64(expected_slope), rtol=apart, atol=1e-3 * apart
    )


@pytest.mark.parametrize(
    "name",
    cases.mostly_slow(
        ["triplet euclidean", "triplet cosine", "info_nce", "norm"], ["triplet cosine", "norm"]
    ),
)
def test_long_rows_of_float16_do_not_overflow(name):
    # A squared length of 300 * 25^2 is beyond float16.
    low = jnp.asarray(rows(dim=300, scale=25.0), jnp.float16)
    found, slope = jax.jit(jax.value_and_grad(FUNCTIONS[name]))(low)
    expected = jax.jit(FUNCTIONS[name])(low.astype(jnp.float32))
    assert np.isfinite(found) and float(found) == pytest.approx(float(expected), rel=1e-6)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize(
    "kind", cases.mostly_slow([">f4", ">f8", "<f8", "int8", ">i4", "bool"], [">f4", "bool"])
)
def test_arrays_of_numpy_give_the_value_of_float32(kind):
    x = (rows(scale=40.0) > 30 if kind == "bool" else rows(scale=40.0)).astype(kind)
    wide = jnp.asarray(x.astype(np.float32))
    for name in ("triplet cosine", "norm"):
        expected = float(jax.jit(FUNCTIONS[name])(wide))
        assert float(FUNCTIONS[name](x)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(distances.pairwise(x, x), distances.pairwise(wide, wide))


@pytest.mark.parametrize("kind", cases.mostly_slow(LOW, LOW[:1]))
def test_lengths_and_telemetry_of_low_precision(kind):
    x = jnp.asarray(rows(dim=300, scale=25.0), kind)
    unit = distances.unit(x)
    assert unit.dtype == kind
    np.testing.assert_allclose(np.linalg.norm(np.float64(unit), axis=1), 1, atol=1e-2)
    found, expected = (float(jax.jit(measured)(a)) for a in (x, x.astype(jnp.float32)))
    assert found == pytest.approx(expected, rel=1e-6)


def test_float64_stays_where_jax_has_it():
    with jax.enable_x64(True):
        x = jnp.asarray(rows(dim=3))
        assert x.dtype == jnp.float64
        near = distances.pairwise(x, x + 1e-5)
        np.testing.assert_allclose(np.diag(near), 1e-5 * np.sqrt(3), rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        ({"miner": "semi_hard"}, "float32"),
        ({"loss": "pairs"}, "bfloat16"),
        pytest.param({"miner": "semi_hard"}, "bfloat16", marks=pytest.mark.slow),
        pytest.param({"loss": "pairs"}, "float32", marks=pytest.mark.slow),
    ],
)
def test_losses_of_float64_in_tiles(settings, precision):
    settings = settings | {"metric": "euclidean", "precision": precision, "tile_size": 5}
    function = contrastive.contrastive_loss if "loss" in settings else losses.triplet_loss

    def run(x):
        return jax.value_and_grad(lambda x: function(x, LABELS, **settings)[0])(x)

    x = rows(dim=3)
    value, slope = jax.jit(run)(jnp.asarray(x, jnp.float32))
    with jax.enable_x64(True):
        wide_value, wide_slope = jax.jit(run)(jnp.asarray(x, jnp.float64))
        assert wide_slope.dtype == jnp.float64
    assert float(wide_value) == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(wide_slope, slope, atol=1e-3 if precision == "bfloat16" else 1e-5)


@pytest.mark.parametrize(
    "miner", cases.mostly_slow(sorted(mining.MINERS), ["quantile", "semi_hard_facenet"])
)
def test_every_miner_takes_float64(miner, key):
    def run(x):
        return losses.triplet_loss(x, LABELS, miner=miner, key=key)

    value, stats = jax.jit(run)(jnp.asarray(rows(dim=3), jnp.float32))
    with jax.enable_x64(True):
        wide_value, wide_stats = jax.jit(run)(jnp.asarray(rows(dim=3), jnp.float64))
    assert wide_stats["num_valid"] == stats["num_valid"]
    if miner not in oracles.RANDOM:  # other types, other draws
        assert float(wide_value) == pytest.approx(float(value), rel=1e-5)


def test_knobs_of_low_precision_are_learned_in_float32():
    x = jnp.asarray(rows(), jnp.float32)

    def value(beta):
        penalty = functools.partial(penalties.margin_based, beta=beta)
        return triplet(x, penalty=penalty, miner="batch_all", average="valid")

    of_knob = jax.jit(jax.grad(value))
    slope = of_knob(jnp.bfloat16(1.25))
    assert slope.dtype == jnp.bfloat16
    assert float(slope) == pytest.approx(float(of_knob(1.25)), rel=1e-2)


# -- labels and masks ---------------------------------------------------------------------

TAKE_LABELS = {
    "triplet_loss": losses.triplet_loss,
    "contrastive_loss": contrastive.contrastive_loss,
    "spread": regularisers.spread,
    "of_batch": functools.partial(
        telemetry.of_batch, miner="semi_hard", margin=0.1, most_positives=3
    ),
}


MAKERS = {
    "list": list,
    "numpy": np.array,
    "jax": jnp.array,
    "big-endian": lambda y: np.array(y, ">i8"),
    "uint8": lambda y: np.array(y, np.uint8),
}


@pytest.mark.parametrize(
    ("name", "make"),
    cases.mostly_slow(
        [(name, make) for name in TAKE_LABELS for make in MAKERS],
        [(name, make) for name in ("triplet_loss", "spread") for make in ("list", "big-endian")],
    ),
)
def test_labels_may_be_a_list_or_any_array_of_integers(name, make):
    function, x = TAKE_LABELS[name], jnp.asarray(rows(), jnp.float32)
    found, expected = function(x, MAKERS[make](LABELS.tolist())), function(x, LABELS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", TAKE_LABELS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:-1], r"labels have the shape \(11,\), and the rows \(12,\)"),
        (LABELS[:, None], r"labels have the shape \(12, 1\).*labels\[:, 0\]"),
        (np.eye(12)[LABELS], r"labels have the shape \(12, 12\).*argmax"),
        (LABELS * 1.0, "labels have dtype float64, and a loss needs integers"),
        (LABELS.astype(str), "np.unique"),
        (LABELS + 2**31, "more than 2\\^31 - 1"),
        (LABELS - 2**40, "below -2\\^31"),
    ],
)
def test_other_labels_are_refused(name, labels, message):
    with pytest.raises(errors.InputError, match=message):
        TAKE_LABELS[name](jnp.asarray(rows(), jnp.float32), labels)


def test_unsigned_labels_above_the_largest_are_refused():
    with pytest.raises(errors.InputError, match="go up to 4294967295"):
        triplet_labels = jnp.asarray([0, 2**32 - 1] * 6, jnp.uint32)
        losses.triplet_loss(jnp.asarray(rows(), jnp.float32), triplet_labels)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", TAKE_LABELS)
@pytest.mark.parametrize(
    "mask", [np.ones(11, bool), np.ones((12, 1), bool), np.ones(12), np.ones(12, int)]
)
def test_other_masks_are_refused(name, mask):
    with pytest.raises(errors.InputError, match=r"mask has shape .* booleans \[12\]"):
        TAKE_LABELS[name](jnp.asarray(rows(), jnp.float32), LABELS, mask=mask)


# -- embeddings ---------------------------------------------------------------------------

TAKE_ROWS = {
    **{name: functools.partial(f, labels=LABELS) for name, f in TAKE_LABELS.items()},
    "norm": functools.partial(regularisers.norm, labels=LABELS),
    "pairwise": lambda x: distances.pairwise(a=x, b=np.ones((2, 5))),
    "of_triplets": lambda x: losses.of_triplets(x, x, x),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", TAKE_ROWS)
@pytest.mark.parametrize(
    "bad, message",
    [
        (np.ones(12), r"\(12,\)"),
        (np.ones((12, 5, 1)), r"\(12, 5, 1\)"),
        (np.ones((12, 5), complex), "dtype complex128"),
        (jnp.ones((12, 5), jnp.complex64), "dtype complex64"),
        (np.full((12, 5), "a"), "dtype <U1"),
        ([[1.0] * 5] * 12, "pass an array"),
        (None, "pass an array"),
    ],
    ids=["1d", "3d", "complex", "complex of jax", "text", "list", "none"],
)
def test_other_embeddings_are_refused_by_name(name, bad, message):
    argument = {"pairwise": "^a", "of_triplets": "^anchors"}.get(name, "^embeddings")
    with pytest.raises(errors.InputError, match=f"{argument}.*{message}"):
        TAKE_ROWS[name](bad)


@pytest.mark.usefixtures("unchecked")
def test_references_of_another_length_are_refused():
    x = jnp.ones((12, 5))
    with pytest.raises(errors.InputError, match=r"references has shape \(3, 4\)"):
        losses.triplet_loss(x, LABELS, references=jnp.ones((3, 4)), reference_labels=[1, 2, 3])
    with pytest.raises(errors.InputError, match=r"reference_labels have the shape \(2,\)"):
        losses.triplet_loss(x, LABELS, references=jnp.ones((3, 5)), reference_labels=[1, 2])
    with pytest.raises(errors.InputError, match=r"a has shape \(2, 5\) and b has shape \(2, 4\)"):
        distances.pairwise(np.ones((2, 5)), np.ones((2, 4)))


def test_low_precision_on_every_device():
    x = jnp.asarray(rows(seed=4), jnp.bfloat16)
    x, labels = jnp.tile(x, (2, 1)), np.tile(LABELS, 2)

    def on_device(x, labels):
        return losses.triplet_loss(x, labels, miner="batch_hard", axis_name=collectives.DEVICES)[0]

    over_devices = collectives.over_devices(on_device, in_axes=(0, 0))
    found = over_devices(x.reshape(8, 3, 5), labels.reshape(8, 3))
    alone = calls.compiled(losses.triplet_loss, x.astype(jnp.float32), labels, miner="batch_hard")[
        0
    ]
    assert float(found) == pytest.approx(float(alone), rel=1e-6)
