"""Losses of whole rows of distances, against float64 written from their definitions."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from tests.support import angle_oracles, cases, oracles, rank_oracles
from triplet_jax import contrastive, errors

NAMES = sorted(contrastive.LOSSES)
METRICS = dict.fromkeys(NAMES, "cosine") | {
    "lifted": "euclidean",
    "n_pairs": "dot",
    "nca": "squared_euclidean",
    "pairs": "euclidean",
    "ranked_list": "euclidean",
}
N, DIM = 10, 3
# The others are longer paths to what these show of the engine, once their definition is tested.
SLOW = {*angle_oracles.KNOBS, *rank_oracles.KNOBS} - {"sphereface", "smooth_ap"}
QUICK = [name for name in NAMES if name not in SLOW]
KNOBS = [(name, knob) for name in NAMES for knob in oracles.CONTRASTIVE[name]]
# Knobs of the weights of pairs, which are constants to the gradient.
WEIGHTS = {("circle", "margin"), ("ranked_list", "temperature")}


def labellings(n=N):
    return st.one_of(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.sampled_from([7, 7, 7, -3, 2]), min_size=n, max_size=n),  # imbalanced
        st.permutations(range(n)),  # nobody has a positive
        st.just([4] * n),  # nobody has a negative
    ).map(np.array)


def spread(seed, n=N):
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


@functools.cache
def program(name, devices=1, **fixed):
    """The loss, its gradient in embeddings, references and knobs, and the stats, compiled."""

    def value(x, refs, y, ref_labels, knobs, axis_name=None):
        loss = functools.partial(contrastive.LOSSES[name], **knobs)
        return contrastive.contrastive_loss(
            x,
            y,
            loss=loss,
            metric=METRICS[name],
            references=refs,
            reference_labels=ref_labels,
            axis_name=axis_name,
            **fixed,
        )

    axis = {"axis_name": "devices"} if devices > 1 else {}
    both = jax.value_and_grad(functools.partial(value, **axis), (0, 1, 4), has_aux=True)
    if devices == 1:
        return jax.jit(both)
    lifted = jax.pmap(both, **axis, devices=jax.devices()[:devices])

    def run(x, refs, y, ref_labels, knobs):
        shares = jax.tree.map(
            lambda a: a.reshape(devices, -1, *a.shape[1:]), (x, refs, y, ref_labels)
        )
        on_each = {knob: np.full(devices, value, np.float32) for knob, value in knobs.items()}
        outputs, (of_x, of_refs, of_knobs) = lifted(*shares, on_each)
        jax.tree.map(lambda a: np.testing.assert_array_equal(a, np.full(devices, a[0])), outputs)
        # Of the global loss, once for every device: the step takes the mean.
        of_rows = jax.tree.map(lambda g: g.reshape(-1, DIM) / devices, (of_x, of_refs))
        of_knobs = jax.tree.map(lambda g: g.mean(axis=0), of_knobs)
        return jax.tree.map(lambda a: a[0], outputs), (*of_rows, of_knobs)

    return run


def slope(function, x):
    return oracles.slope(lambda x: {"loss": function(x)}, x)["loss"]


def knobs_of(name, **changed):
    """All knobs are inputs of the program, so that each loss is compiled once for most tests."""
    return {knob: float(value) for knob, value in (oracles.CONTRASTIVE[name] | changed).items()}


def check(name, x, y, refs=None, ref_labels=None, changed=None, **fixed):
    """Against the definition; `changed` are knobs with another value, whose slopes are compared."""
    changed = changed or {}
    knobs = knobs_of(name, **changed)
    (loss, stats), (of_x, of_refs, of_knobs) = program(name, **fixed)(x, refs, y, ref_labels, knobs)
    metric = METRICS[name]

    def oracle(x, refs=refs, **changed):
        return oracles.contrastive(
            x, y, name, metric, refs, ref_labels, frozen=frozen, **(knobs | changed)
        )

    frozen = (x, refs)
    np.testing.assert_allclose(loss, oracle(x), rtol=2e-4, atol=1e-5)
    scale = {"circle": 30.0, "arcface": 30.0, "multi_similarity": 3.0, "proxy_anchor": 10.0}
    close = {"rtol": 5e-3, "atol": 2e-4 * scale.get(name, 1.0)}
    np.testing.assert_allclose(of_x, slope(oracle, x), **close)
    if refs is not None:
        expected = slope(lambda refs: oracle(x, refs), refs)
        np.testing.assert_allclose(of_refs, expected, **close)
    for knob, value in changed.items():
        if (name, knob) in WEIGHTS:
            continue
        expected = slope(lambda v, knob=knob: oracle(x, **{knob: float(v)}), value)
        np.testing.assert_allclose(of_knobs[knob], expected, rtol=5e-3, atol=5e-4)
    own = refs is None
    pairs = list(oracles.candidates_of(y, None if own else ref_labels))
    assert stats["num_positive_pairs"] == sum(len(p) for _, p, _ in pairs)
    assert stats["num_negative_pairs"] == sum(len(n) for _, _, n in pairs)
    d = oracles.pairwise(x, x if own else refs, metric)
    for stat, which in (("mean_d_ap", 1), ("mean_d_an", 2)):
        all_of = [d[pair[0], c] for pair in pairs for c in pair[which]]
        np.testing.assert_allclose(stats[stat], np.mean(all_of or [0]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(seed=st.integers(0, 5), y=labellings())
def test_value_gradient_and_counts_are_those_of_the_definition(name, seed, y):
    check(name, spread(seed), y)


@pytest.mark.parametrize("name", cases.mostly_slow(NAMES, QUICK[::8]))
@settings(max_examples=4)
@given(
    seed=st.integers(0, 5),
    y=labellings(),
    ref_labels=st.lists(st.integers(-3, 5), min_size=7, max_size=7),
)
def test_references_take_the_place_of_the_batch_in_tiles(name, seed, y, ref_labels):
    # Of tiles of four the last is filled up with nobody.
    check(name, spread(seed), y, spread(seed + 10, 7), np.array(ref_labels), tile_size=4)


# Of knobs that are off by default, or change little: a value that changes the loss.
OTHER_VALUES = {
    ("debiased", "concentration"): 0.5,
    ("info_nce", "hardness_strength"): 5.0,
    ("pairs", "positive_margin"): 0.2,
    ("positive_aware", "absolute_margin"): -0.2,
    ("positive_aware", "hardness_strength"): -3.0,
    ("positive_aware", "relative_margin"): 0.7,
}


def other_value(name, knob):
    return OTHER_VALUES.get((name, knob), 0.7 * oracles.CONTRASTIVE[name][knob])


@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_knobs_are_those_of_the_definition_and_have_a_gradient(name, knob):
    check(name, spread(3), np.arange(N) // 2, changed={knob: other_value(name, knob)})


@pytest.mark.parametrize("name", cases.mostly_slow(NAMES, ["proxy_anchor"]))
@pytest.mark.parametrize("tile_size", [4, pytest.param(1, marks=pytest.mark.slow)])
@settings(max_examples=4)
@given(seed=st.integers(0, 5), y=labellings())
def test_tiles_change_nothing(name, tile_size, seed, y):
    check(name, spread(seed), y, tile_size=tile_size)


@pytest.mark.parametrize(
    ("name", "devices"),
    cases.mostly_slow(
        [(name, devices) for name in NAMES for devices in (2, 4, 8)],
        [("info_nce", 8), ("proxy_anchor", 4)],
    ),
)
@settings(max_examples=3)
@given(seed=st.integers(0, 5), y=labellings(16))
def test_devices_change_nothing(name, devices, seed, y):
    check(name, spread(seed, 16), y, devices=devices)


@pytest.mark.parametrize("name", cases.mostly_slow(NAMES, ["info_nce"]))
@settings(max_examples=3)
@given(seed=st.integers(0, 5), y=labellings(16), ref_labels=labellings(8))
def test_references_are_shared_by_devices(name, seed, y, ref_labels):
    refs = spread(seed + 10, 8)
    check(name, spread(seed, 16), y, refs, ref_labels, devices=4, tile_size=3)


@pytest.mark.slow
def test_memory_grows_as_a_tile_of_anchors_does():
    def scratch(n):
        y = np.arange(n) // 4
        run = functools.partial(contrastive.contrastive_loss, labels=y, tile_size=32)
        step = jax.jit(jax.value_and_grad(run, has_aux=True))
        program = step.lower(jax.ShapeDtypeStruct((n, DIM), jnp.float32)).compile()
        return program.memory_analysis().temp_size_in_bytes

    large, matrix = scratch(2048), 4 * 2048**2
    assert large < 5 * scratch(512)
    assert large < matrix / 4


@pytest.mark.parametrize("name", cases.mostly_slow(NAMES, ["info_nce", "pairs"]))
def test_a_mask_leaves_rows_out(name):
    x, y = spread(4), np.array([0, 1, 1, 2, 2, 2, 5, 0, 1, 9])
    mask = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0], bool)
    run = functools.partial(contrastive.contrastive_loss, loss=name, metric=METRICS[name])
    hidden = np.where(mask[:, None], x, np.nan).astype(np.float32)
    masked = jax.jit(jax.value_and_grad(lambda x: run(x, y, mask=jnp.asarray(mask))[0]))(hidden)
    kept = jax.jit(jax.value_and_grad(lambda x: run(x, y[mask])[0]))(x[mask])
    np.testing.assert_allclose(masked[0], kept[0], rtol=1e-5)
    np.testing.assert_allclose(masked[1][mask], kept[1], rtol=1e-4, atol=1e-6)
    assert not masked[1][~mask].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_any_temperature_gives_finite_numbers(name, scale):
    knob = next(
        (k for k in ("temperature", "scale", "beta") if k in oracles.CONTRASTIVE[name]), None
    )
    knobs = knobs_of(name, **({knob: scale} if knob else {}))
    x = np.concatenate([spread(0, 6), np.zeros((2, DIM)), np.ones((2, DIM))]).astype(np.float32)
    for y in (np.arange(N) // 2, np.zeros(N, int), np.arange(N)):
        (loss, _), (gradient, _, _) = program(name)(x, None, y, None, knobs)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("pairs", "proxy_anchor", "sigmoid")]
)
def test_no_positive_pair_gives_no_loss(name):
    (loss, _), (gradient, _, _) = program(name)(spread(0), None, np.arange(N), None, knobs_of(name))
    assert loss == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("name", [name for name in NAMES if oracles.CONTRASTIVE[name]])
def test_knobs_that_move_do_not_recompile(name):
    run, y = program(name), np.arange(N) // 2

    def value(**changed):
        return run(spread(0), None, y, None, knobs_of(name, **changed))[0][0]

    first, compiled = value(), run._cache_size()
    for knob in oracles.CONTRASTIVE[name]:
        assert value(**{knob: other_value(name, knob)}) != first, knob
    assert run._cache_size() == compiled == 1


def test_bad_input_is_named():
    x, y = jnp.asarray(spread(0)), np.arange(N)
    with pytest.raises(errors.InputError, match="loss='infonce'.*info_nce"):
        contrastive.contrastive_loss(x, y, loss="infonce")
    with pytest.raises(errors.InputError, match="together"):
        contrastive.contrastive_loss(x, y, references=x)
    with pytest.raises(errors.InputError, match="tile_size=0"):
        contrastive.contrastive_loss(x, y, tile_size=0)
