"""Regularisers against float64 loops over pairs, alone and as a config adds them to a loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, digits
from experiments.config import check, objective, settings
from experiments.run import embedding_metrics
from tests.support import calls, cases, oracles
from tests.support.configs import config
from triplet_jax import data, errors, evaluation, regularisers
from triplet_jax.training import cross_batch_memory

NAMES = sorted(regularisers.REGULARISERS)
N, DIM = 16, 3
LABELLINGS = {
    "pairs": np.arange(N) // 2,
    "imbalanced": np.array([7] * 10 + [-3, -3, 2, 2, 2, 0]),
    "all_different": np.arange(N),
    "one_class": np.zeros(N, int),
}


def rows(seed, n=N):
    # Of a common direction, so that the second moment is above that of random ones.
    return (np.random.default_rng(seed).normal(size=(n, DIM)) + 1.0).astype(np.float32)


def by_definition(name, x, y):
    x = np.asarray(x, np.float64)
    if name == "norm":
        return np.mean([row @ row for row in x])
    if name == "coding_rate":
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        of_sphere = np.linalg.eigvalsh(unit.T @ unit) * DIM / len(x)  # all 1 where it is filled
        return 1 - np.sum(np.log(1 + 2 * of_sphere)) / (DIM * np.log(3))
    if name in ("variance", "covariance"):
        products = np.cov(x, rowvar=False)
        if name == "variance":
            return np.mean(np.maximum(0, 1 - np.sqrt(np.diag(products) + 1e-4)))
        return sum(products[i, j] ** 2 for i in range(DIM) for j in range(DIM) if i != j) / DIM
    unit = [row / np.linalg.norm(row) for row in x]
    if name != "spread":
        return of_pairs(name, unit, y)
    cosines = [unit[i] @ unit[j] for i in range(len(x)) for j in range(len(x)) if y[i] != y[j]] or [
        0.0
    ]
    return np.mean(cosines) ** 2 + max(0.0, np.mean(np.square(cosines)) - 1 / DIM)


def of_histograms(near, far):
    edges = np.linspace(-1, 1, 101)
    of_near, of_far = (
        np.maximum(0, 1 - abs(edges - s[:, None]) / 0.02).sum(axis=0) / max(len(s), 1)
        for s in (near, far)
    )
    return sum(of_far[j] * of_near[: j + 1].sum() for j in range(101))


def of_pairs(name, unit, y):
    places = [(i, j) for i in range(len(y)) for j in range(len(y)) if i != j]
    near, far = (
        np.array([unit[i] @ unit[j] for i, j in places if (y[i] == y[j]) == of_one])
        for of_one in (True, False)
    )
    if name == "threshold_consistency":
        costs = [0.9 - s for s in near if s <= 0.9], [s - 0.5 for s in far if s >= 0.5]
    elif name == "histogram":
        return of_histograms(near, far)
    else:
        costs = (
            [max(0, 0.99 * near.mean() - s) ** 2 for s in near],
            [max(0, s - 1.01 * far.mean()) ** 2 for s in far],
        )
    return sum(np.mean(cost) for cost in costs if cost)


@functools.cache
def program(name):
    return jax.jit(jax.value_and_grad(regularisers.REGULARISERS[name]))


@pytest.mark.parametrize("labelling", LABELLINGS)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_the_definition(name, labelling):
    x, y = rows(0), LABELLINGS[labelling]
    value, gradient = program(name)(x, y)
    np.testing.assert_allclose(value, by_definition(name, x, y), rtol=1e-5)
    expected = oracles.slope(lambda x: {"loss": by_definition(name, x, y)}, x)["loss"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("anchors", [1, 5, 8])
def test_spread_is_the_same_a_few_anchors_at_a_time(anchors, monkeypatch):
    x, y = rows(2), LABELLINGS["imbalanced"]
    value, gradient = program("spread")(x, y)
    monkeypatch.setattr(regularisers, "ANCHORS", anchors)
    in_parts = jax.jit(jax.value_and_grad(lambda x: regularisers.spread(x, y)))(x)
    np.testing.assert_allclose(in_parts[0], value, rtol=1e-6)
    np.testing.assert_allclose(in_parts[1], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", cases.mostly_slow(NAMES, ["histogram", "spread", "variance"]))
def test_eight_devices_have_the_value_and_the_gradient_of_one(name):
    x, y = rows(1), LABELLINGS["imbalanced"]
    mask = np.arange(N) % 5 > 0
    term = regularisers.REGULARISERS[name]
    value, gradient = jax.jit(jax.value_and_grad(term))(x, y, mask=mask)
    np.testing.assert_allclose(value, by_definition(name, x[mask], y[mask]), rtol=1e-5)

    def of_device(x, y, mask):
        return jax.value_and_grad(term)(x, y, mask=mask, axis_name="devices")

    lifted = jax.pmap(of_device, axis_name="devices")
    values, gradients = lifted(*(a.reshape(8, 2, *a.shape[1:]) for a in (x, y, mask)))
    np.testing.assert_allclose(values, np.full(8, value), rtol=1e-5)
    # Of the global value, once for every device: the step takes the mean.
    np.testing.assert_allclose(np.reshape(gradients, (N, DIM)) / 8, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["covariance", "norm", "pair_variance", "spread"])
def test_a_zero_embedding_gives_a_finite_gradient(name):
    value, gradient = program(name)(jnp.zeros((N, DIM)), LABELLINGS["pairs"])
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_a_mask_hides_may_hold_anything(name):
    x, y, mask = rows(2), LABELLINGS["imbalanced"], np.arange(N) % 4 > 0
    term = functools.partial(regularisers.REGULARISERS[name], mask=mask)
    hidden = np.where(mask[:, None], x, np.nan)
    value, gradient = jax.jit(jax.value_and_grad(term))(hidden, y)
    kept, of_kept = jax.value_and_grad(regularisers.REGULARISERS[name])(x[mask], y[mask])
    np.testing.assert_allclose(value, kept, rtol=1e-5)
    np.testing.assert_allclose(gradient[mask], of_kept, rtol=1e-4, atol=1e-6)
    assert not gradient[~mask].any()


@pytest.mark.parametrize("rows", cases.mostly_slow([0, 1, 2], [0]))
@pytest.mark.parametrize("name", NAMES)
def test_few_rows_have_a_finite_value_and_gradient(name, rows):
    mask = np.arange(N) < rows
    term = functools.partial(regularisers.REGULARISERS[name], mask=mask)
    for x in (np.ones((N, DIM), np.float32), np.zeros((N, DIM), np.float32)):
        value, gradient = jax.jit(jax.value_and_grad(term))(x, LABELLINGS["pairs"])
        assert np.isfinite(value) and np.isfinite(gradient).all()
        if rows < 2 and name != "norm":
            assert value == 0


def test_the_coding_rate_tells_a_point_from_a_filled_sphere():
    term = regularisers.REGULARISERS["coding_rate"]
    filled, point = jnp.eye(DIM), jnp.ones((DIM, DIM))
    assert calls.compiled(term, filled, labels=np.arange(DIM)) == pytest.approx(0, abs=1e-6)
    expected = 1 - np.log(1 + 2 * DIM) / (DIM * np.log(3))
    assert calls.compiled(term, point, labels=np.arange(DIM)) == pytest.approx(expected, rel=1e-5)


def test_orthogonal_classes_are_spread_out():
    assert calls.compiled(regularisers.spread, jnp.eye(DIM), labels=np.arange(DIM)) == 0
    equal = calls.compiled(regularisers.spread, jnp.ones((4, DIM)), labels=np.arange(4))
    assert equal == pytest.approx(1 + 1 - 1 / DIM)


# -- in a config


def test_a_config_adds_weighted_terms_and_leaves_the_stats():
    made = config(loss__norm_weight=0.3, loss__spread_weight=2.0, model__normalize=False)
    check.check(made)
    context = {"key": None, "axis_name": None}
    x, y = jnp.asarray(rows(2)), LABELLINGS["pairs"]
    plain, stats = calls.compiled(objective.loss(config()), x, labels=y, **context)
    whole, their_stats = calls.compiled(objective.loss(made), x, labels=y, **context)
    norm, spread = (by_definition(name, x, y) for name in ("norm", "spread"))
    np.testing.assert_allclose(whole, plain + 0.3 * norm + 2.0 * spread, rtol=1e-5)
    np.testing.assert_allclose(their_stats.pop("regulariser/norm"), norm, rtol=1e-5)
    np.testing.assert_allclose(their_stats.pop("regulariser/spread"), spread, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), their_stats, stats)
    # What the loss of a collapsed embedding is, only the loss alone says.
    assert objective.collapsed_loss(made) == 0 < objective.collapsed_loss(config())


NESTED = [
    (variant, normalize)
    for variant in ("semi_hard", "xbm", "proxy_nca", "proxy_anchor")
    for normalize in (True, False)
]


@pytest.mark.parametrize(("variant", "normalize"), cases.mostly_slow(NESTED, NESTED[6:7]))
def test_a_nested_loss_is_the_mean_of_those_of_the_first_values(variant, normalize):
    made = digits.get_config(variant)
    made.update_from_flattened_dict(
        {"model.normalize": normalize, "model.dim": 6, "loss.num_classes": 8}
    )
    random = np.random.default_rng(3)
    x, past, y = random.normal(size=(N, 6)), random.normal(size=(20, 6)), LABELLINGS["pairs"]
    tables = objective.learned(made)

    def loss(made, x, past, **tables):
        if made.memory.size:
            ring = cross_batch_memory.empty(20, past.shape[1])._replace(
                embeddings=past, labels=jnp.arange(20) % 8
            )
            tables["remembered"] = ring, jnp.arange(20) > 3
        run = functools.partial(objective.loss(made), key=None, axis_name=None)
        return jax.jit(run)(x, y, **tables)

    def cut(x, dim):
        short = x[:, :dim]
        return short / np.linalg.norm(short, axis=1, keepdims=True) if normalize else short

    expected = {
        dim: loss(
            made,
            *(jnp.float32(cut(a, dim)) for a in (x, past)),
            **{k: t[:, :dim] for k, t in tables.items()},
        )
        for dim in (2, 3, 6)
    }
    made.loss.nested_dims = (2, 3, 6)
    check.check(made)
    value, stats = loss(made, *(jnp.float32(cut(a, 6)) for a in (x, past)), **tables)
    np.testing.assert_allclose(value, np.mean([v for v, _ in expected.values()]), rtol=1e-4)
    for dim, (of_dim, _) in expected.items():
        np.testing.assert_allclose(stats.pop(f"nested/{dim}"), of_dim, rtol=1e-4)
    for name, number in expected[6][1].items():
        np.testing.assert_allclose(stats.pop(name), number, rtol=1e-4)
    assert not stats


def test_evaluation_reports_every_nested_size():
    x, y = rows(5), LABELLINGS["pairs"]
    test = data.Dataset(x, y, np.full(len(y), "test"), tuple("abcdefgh"))
    found = embedding_metrics.nested(config(loss__nested_dims=(2, 3)), test, x)
    short = x[:, :2] / np.linalg.norm(x[:, :2], axis=1, keepdims=True)
    assert found["2"] == pytest.approx(evaluation.retrieval(short, y))
    assert list(found) == ["2", "3"]
    assert not embedding_metrics.nested(config(), test, x)


@pytest.mark.slow
def test_a_weight_may_move():
    made = config()
    made.schedules.one = base.schedule("loss.spread_weight", start=0.0, end=2.0, a=1.0)
    check.check(made)
    moved, loss = settings.numbers(made), objective.loss(made)
    x, y = jnp.asarray(rows(2)), LABELLINGS["pairs"]
    plain, _ = objective.loss(config())(x, y, key=None, axis_name=None)
    for step, weight in ((0, 0.0), (500, 1.0)):
        numbers = moved(jnp.int32(step), {})
        value, _ = loss(x, y, key=None, axis_name=None, numbers=numbers)
        expected = plain + weight * by_definition("spread", x, y)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loss__norm_weight": -0.1}, "loss.norm_weight=-0.1 must be .* at least 0"),
        ({"loss__spread_weight": float("inf")}, "loss.spread_weight=inf must be a finite number"),
        (
            {"loss__nested_dims": (8, 4, 64)},
            "nested_dims=.8, 4, 64. must .* set it to .4, 8, 64., or",
        ),
        ({"loss__nested_dims": (1, 64)}, "nested_dims=.1, 64. must .* at least 2"),
        ({"loss__nested_dims": (8.0, 64)}, "nested_dims=.8.0, 64. must be whole numbers"),
        ({"loss__nested_dims": (8, 8, 64)}, "nested_dims=.8, 8, 64. must be"),
        ({"loss__nested_dims": (8, 128)}, "model.dim=64, which is the last: set it to .8, 64., or"),
        ({"loss__nested_dims": (8, 32)}, "set it to .8, 32, 64., or to .. for none"),
        (
            {"loss__nested_dims": (8, 64), "model__projection": 32},
            "evaluation leaves out: set model.projection=32 to 0, or",
        ),
        (
            {"loss__nested_dims": (8, 64), "evaluate__augment": ("turns", "shifts")},
            r"evaluate.augment=\('turns', 'shifts'\) joins embeddings, .* leave out turns, or",
        ),
        ({"loss__variance_weight": 0.1}, "length 1 can't have: set model.normalize=False, or"),
        ({"loss__norm_weight": 0.1}, "loss.norm_weight=0.1 would .* set model.normalize=False, or"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(errors.InputError, match=words):
        check.check(config(**fields))
