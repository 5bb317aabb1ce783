"""From config fields to losses, and what is measured beside them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from experiments.config import check, objective, row_losses, settings
from tests.support import calls, cases
from tests.support.configs import config, scheduled
from triplet_jax import contrastive, errors, losses, mining, schedules


def run(config):
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels = jnp.arange(24) // 4
    loss = functools.partial(objective.loss(config), axis_name=None, **objective.learned(config))
    return jax.jit(loss)(x, labels, key=jax.random.key(1))[0]


def test_a_knob_reaches_its_miner_and_its_penalty():
    easiest = run(config(mining__miner="quantile", mining__knobs__hardness=0.0))
    assert float(run(config(mining__miner="quantile"))) > float(easiest)
    wide = config(loss__penalty="margin_based", loss__knobs__beta=5.0)
    assert float(run(wide)) != pytest.approx(float(run(config(loss__penalty="margin_based"))))


def test_a_memory_is_searched_by_the_loss_of_the_batch():
    made = config(loss__name="info_nce", loss__metric="cosine", memory__size=64)
    of_memory = row_losses.of_memory(made)
    assert of_memory.loss is contrastive.LOSSES["info_nce"]
    assert type(of_memory) is type(row_losses.of_batch(made))


def test_what_nested_embeddings_are_compared_with_is_cut_as_they_are(monkeypatch):
    """Batch, memory, the average of the weights and proxies; the loss here is the sum of all."""

    def compare(rows, given):
        past, _ = given.remembered
        every = (rows.embeddings, past.embeddings, given.by_average, given.proxies)
        return sum(np.asarray(a).sum() for a in every), {}

    monkeypatch.setattr(objective.comparisons, "comparison", lambda config: compare)
    made = config(loss__nested_dims=(2, 3), model__dim=3, model__normalize=False)
    random = np.random.default_rng(0)
    x, past, average, proxies = map(jnp.asarray, random.normal(size=(4, 5, 3)).astype("f4"))
    value, stats = objective.loss(made)(
        x,
        np.arange(5),
        key=None,
        axis_name=None,
        remembered=(row_losses.Rows(past, np.arange(5)), None),
        by_average=average,
        proxies=proxies,
    )
    every = np.asarray([x, past, average, proxies])
    expected = [every[..., :dim].sum() for dim in (2, 3)]
    np.testing.assert_allclose([stats["nested/2"], stats["nested/3"]], expected, rtol=1e-5)
    assert float(value) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_metric_has_its_parameter():
    manhattan = run(config(loss__metric="manhattan"))
    one = run(config(loss__metric="minkowski", loss__p=1.0))
    assert float(one) == pytest.approx(float(manhattan), rel=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"mining__miner": "batch_all"},
        pytest.param(
            {"loss__name": "nca", "loss__metric": "squared_euclidean"}, marks=pytest.mark.slow
        ),
        {
            "loss__name": "arcface",
            "loss__metric": "cosine",
            "loss__proxies": "references",
            "loss__num_classes": 6,
            "loss__centres": 2,
            "model__dim": 8,
        },
    ],
)
def test_the_precision_reaches_a_loss_of_any_kind(fields):
    low, full = (run(config(loss__precision=name, **fields)) for name in ("bfloat16", "float32"))
    assert float(low) != float(full)
    assert float(low) == pytest.approx(float(full), rel=0.02)


def test_triplets_are_picked_by_a_metric_of_their_own():
    made = config(mining__miner="batch_hard", mining__metric="cosine")
    check.check(made)
    x, labels = jax.random.normal(jax.random.key(0), (24, 8)), jnp.arange(24) // 4
    by_cosine = {"miner": "batch_hard", "mining_metric": "cosine", "margin": made.loss.margin}
    by_hand, _ = calls.compiled(losses.triplet_loss, x, labels, **by_cosine)
    assert float(run(made)) == pytest.approx(float(by_hand), rel=1e-6)
    assert float(run(config(mining__miner="batch_hard"))) != pytest.approx(float(by_hand), rel=1e-3)
    measure = functools.partial(objective.telemetry(made), 49)
    found = calls.compiled(measure, x, labels, key=jax.random.key(1), axis_name=None)
    assert np.max(found["distances"]) <= 2.0  # cosines
    for field, message in (("cosin", "mining.metric='cosin'"), ("minkowski", "takes p")):
        with pytest.raises(errors.InputError, match=message):
            check.check(config(mining__metric=field))
    # distance_weighted needs Euclidean distances, whatever the loss is measured by.
    check.check(
        config(
            mining__miner="distance_weighted",
            mining__metric="euclidean",
            loss__metric="cosine",
            loss__penalty="selectively_contrastive",
        )
    )


def test_a_new_miner_is_named_in_a_config_like_any_other(monkeypatch):
    def farthest(to_positives, is_positive, to_negatives, is_negative, *, scale=1.0):
        d_an = jnp.max(to_negatives, where=is_negative, initial=-jnp.inf)
        found = is_positive & jnp.any(is_negative)
        return mining.Triplets(to_positives, jnp.where(found, d_an, 0.0), found * scale)

    monkeypatch.setitem(mining.MINERS, "farthest", farthest)
    made = config(mining__miner="farthest", loss__penalty="soft_margin")
    made.lock()  # as the command line finds it
    made.mining.knobs.scale = 2.0
    check.check(made)
    assert np.isfinite(run(made))
    moving = config(mining__miner="farthest", loss__penalty="soft_margin")
    moving.schedules.scale = base.schedule("mining.knobs.scale", start=1.0, end=3.0)
    check.check(moving)
    assert float(settings.moving(moving)(jnp.int32(1000), {})["mining.knobs.scale"]) == 3.0
    with pytest.raises(errors.InputError, match="Did you mean 'farthest'"):
        check.check(config(mining__miner="farthes"))


def test_a_collapse_is_recognised_by_the_loss_of_a_point():
    assert objective.collapsed_loss(config()) == pytest.approx(0.3)
    assert objective.collapsed_loss(config(loss__penalty="soft_margin")) == pytest.approx(np.log(2))
    assert objective.collapsed_loss(config(loss__penalty="anchor_swap")) == pytest.approx(0.3)


def test_a_temperature_may_move():
    made = config(loss__name="info_nce", loss__metric="cosine")
    record = {"kind": "cosine", "start": 0.5, "end": 0.05, "a": 1.0}
    made.schedules.one = base.schedule("loss.knobs.temperature", **record)
    check.check(made)
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels, loss = jnp.arange(24) // 4, objective.loss(made)
    moved = settings.numbers(made)

    @jax.jit
    def by_name(step):
        numbers = moved(step, {})
        value, _ = loss(x, labels, key=None, axis_name=None, numbers=numbers)
        return numbers["loss.knobs.temperature"], value

    @jax.jit
    def by_hand(temperature):
        nce = functools.partial(contrastive.info_nce, temperature=temperature)
        return contrastive.contrastive_loss(x, labels, loss=nce)[0]

    for step, temperature in ((0, 0.5), (500, 0.275), (1000, 0.05)):
        of_step, found = by_name(jnp.int32(step))
        assert float(of_step) == pytest.approx(temperature, rel=1e-4)
        expected = by_hand(temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    made.loss.learned = ("temperature",)
    with pytest.raises(errors.InputError, match="learns temperature, which a schedule moves"):
        check.check(made)
    made.loss.learned = ()
    made.schedules.one.end = 0.0
    with pytest.raises(errors.InputError, match="schedules.one.end=0.0 must be .* more than 0"):
        check.check(made)


MOVED = [
    ("info_nce", "hardness_strength", 0.0, 9.0),
    ("positive_aware", "absolute_margin", -1.0, 0.2),
    ("positive_aware", "relative_margin", -1.0, 0.05),
    ("debiased", "prior", 0.0, 0.1),
    ("debiased", "concentration", 1.0, 0.0),
    ("sigmoid", "bias", -10.0, -5.0),
]


@pytest.mark.parametrize(
    ("name", "knob", "start", "end"),
    cases.mostly_slow(MOVED, MOVED[::4]),
)
def test_a_knob_of_a_loss_moves_without_compiling_again(name, knob, start, end):
    made = config(loss__name=name, loss__metric="cosine")
    made.schedules.one = base.schedule(f"loss.knobs.{knob}", start=start, end=end, a=1.0)
    check.check(made)
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels, loss, moved = jnp.arange(24) // 4, objective.loss(made), settings.numbers(made)
    traces = []

    @jax.jit
    def at(step):
        traces.append(step)
        return loss(x, labels, key=None, axis_name=None, numbers=moved(step, {}))[0]

    @jax.jit
    def by_hand(value):
        given = functools.partial(contrastive.LOSSES[name], **{knob: value})
        return contrastive.contrastive_loss(x, labels, loss=given)[0]

    found = [float(at(jnp.int32(step))) for step in (0, 500, 1000)]
    expected = [float(by_hand(value)) for value in (start, (start + end) / 2, end)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(set(found)) == 3
    assert len(traces) == 1


KINDS = [*schedules.PACINGS, "constant", "cosine", "self_paced"]


@pytest.mark.parametrize("kind", cases.mostly_slow(KINDS, ["linear", "self_paced"]))
def test_a_moving_number_is_compiled_once_and_changes_the_loss(kind):
    made = scheduled("mining.knobs.hardness", kind=kind, start=0.1, end=0.9, b=0.3)
    made.mining.second = "batch_hard"
    made.schedules.mix = base.schedule("mining.mix", kind="step", a=0.5)
    check.check(made)
    moved, loss, traces = settings.numbers(made), objective.loss(made), []
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels = jnp.arange(24) // 4

    @jax.jit
    def at(step, pace):
        traces.append(1)
        numbers = moved(step, pace)
        return loss(x, labels, key=jax.random.key(1), axis_name=None, numbers=numbers)[0]

    pace = settings.first_pace(made)
    found = [float(at(jnp.int32(step), pace)) for step in range(0, 1000, 100)]
    assert len(traces) == 1
    hard = run(config(mining__miner="batch_hard"))
    # The second miner takes over half way.
    assert found[-1] == pytest.approx(float(hard), rel=1e-6)
    assert found[0] != pytest.approx(float(hard), rel=1e-3)
