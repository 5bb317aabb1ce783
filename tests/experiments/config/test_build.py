"""From config fields to miners, penalties and losses."""

import functools
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, digits, omniglot
from experiments.config import (
    check,
    datasets,
    encoders,
    objective,
    optimizers,
    pk_batches,
    settings,
    stepping,
)
from triplet_jax import contrastive, data, errors, losses, mining, schedules
from triplet_jax.curricula import difficulty
from triplet_jax.data import sampling
from triplet_jax.engine import rules
from triplet_jax.training import data_parallel


def config(**fields):
    made = digits.get_config()
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return made


def run(config):
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels = jnp.arange(24) // 4
    loss = functools.partial(objective.loss(config), axis_name=None, **objective.learned(config))
    return jax.jit(loss)(x, labels, key=jax.random.key(1))[0]


@pytest.mark.parametrize("variant", sorted(base.VARIANTS))
def test_every_variant_makes_sense(variant):
    check.check(digits.get_config(variant))


@pytest.mark.parametrize("variant", ["proxy_nca", "proxy_anchor", "softmax", "arcface"])
def test_omniglot_knows_how_many_proxies_it_needs(variant):
    check.check(omniglot.get_config(variant))


def test_every_miner_and_penalty_has_a_variant():
    made = [digits.get_config(variant) for variant in base.VARIANTS]
    assert {c.mining.miner for c in made} == set(mining.MINERS)
    assert {c.loss.penalty for c in made} == set(losses.PENALTIES)
    assert {c.loss.name for c in made} == {"triplet", *contrastive.LOSSES}


def test_every_knob_is_a_field():
    def knobs(table, given):
        parameters = [p for f in table.values() for p in inspect.signature(f).parameters.values()]
        return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - set(given)

    assert set(config().mining.knobs) == knobs(mining.MINERS, rules.GIVEN_TO_MINERS)
    of_losses = losses.PENALTIES | contrastive.LOSSES
    assert set(config().loss.knobs) == knobs(of_losses, rules.GIVEN_TO_PENALTIES)


def test_a_knob_reaches_its_miner_and_its_penalty():
    easiest = run(config(mining__miner="quantile", mining__knobs__hardness=0.0))
    assert float(run(config(mining__miner="quantile"))) > float(easiest)
    wide = config(loss__penalty="margin_based", loss__knobs__beta=5.0)
    assert float(run(wide)) != pytest.approx(float(run(config(loss__penalty="margin_based"))))


def test_a_metric_has_its_parameter():
    manhattan = run(config(loss__metric="manhattan"))
    one = run(config(loss__metric="minkowski", loss__p=1.0))
    assert float(one) == pytest.approx(float(manhattan), rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mining__knobs__beta": 1.0}, "'semi_hard' has no knob 'beta'; it has none"),
        ({"mining__miner": "band", "mining__knobs__n": 1}, "its knobs are high, low"),
        ({"loss__knobs__beta": 1.0}, "loss.penalty='hinge' has no knob 'beta'"),
        ({"loss__learned": ("margin",)}, "loss.learned: loss.penalty='hinge' has no knob"),
        ({"mining__miner": "quantile", "mining__knobs__hardness": 1.5}, "hardness=1.5 must be"),
        ({"loss__metric": "minkowski"}, "takes p, and was given no parameters"),
        ({"loss__p": 2.0}, "'euclidean' takes no parameters, and was given p"),
        ({"loss__penalty": "selectively_contrastive"}, "metric='euclidean' does not suit"),
        (
            {"mining__miner": "angular", "loss__metric": "cosine"},
            "defined for loss.metric='euclidean'",
        ),
        ({"model__dropout": 0.96}, "model.dropout=0.96 must be .* at least 0 and at most 0.95"),
        ({"model__projection": -1}, "model.projection=-1 must be"),
        ({"model__projection_dim": 0}, "model.projection_dim=0 must be"),
        ({"train__micro_batches": 7}, "train.micro_batches=7 does not divide the 15 examples"),
        ({"loss__name": "infonce"}, "loss.name='infonce'"),
        ({"loss__name": "info_nce"}, "metric='euclidean' does not suit info_nce"),
        (
            {"loss__name": "arcface", "loss__metric": "dot"},
            "does not suit arcface, which is defined for loss.metric='cosine'",
        ),
        ({"loss__name": "pairs", "loss__knobs__beta": 1.0}, "loss.name='pairs' has no knob 'beta'"),
        ({"loss__name": "pairs", "loss__penalty": "ratio"}, "has no effect with loss.name='pairs'"),
        ({"loss__proxies": "references"}, "goes with no triplet loss"),
        ({"loss__name": "proxy_anchor"}, "'anchors' goes with 'proxy_anchor'"),
        (
            {"loss__name": "multi_similarity", "loss__metric": "cosine", "loss__knobs__beta": 0.0},
            "loss.knobs.beta=0.0 must be",
        ),
        ({"loss__name": "pairs", "loss__knobs__power": 0.5}, "loss.knobs.power=0.5 must be"),
        (
            {"loss__name": "pairs", "loss__knobs__margin": float("nan")},
            "loss.knobs.margin=nan must be a finite number",
        ),
        (
            {"mining__miner": "band", "mining__knobs__low": float("-inf")},
            "mining.knobs.low=-inf must be a finite number",
        ),
        ({"offline__near": 2}, "offline.near=2 has no effect with offline.every=0"),
        ({"model__projection_dim": 5}, "has no effect with model.projection=0"),
        ({"optimizer__proxies_rate": 2.0}, "has no effect with loss.proxies=''"),
        ({"optimizer__momentum": 0.5}, "has no effect with optimizer.name='adam'"),
        (
            {"loss__name": "arcface", "loss__metric": "cosine", "loss__knobs__scale": 0.0},
            "loss.knobs.scale=0.0 must be",
        ),
        (
            {"loss__name": "info_nce", "loss__metric": "cosine", "loss__knobs__temperature": 0.0},
            "loss.knobs.temperature=0.0 must be",
        ),
        (
            {"loss__name": "pairs", "loss__proxies": "references", "loss__num_classes": 0},
            "needs a proxy for each training class",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(config(**fields))


def test_triplets_are_picked_by_a_metric_of_their_own():
    made = config(mining__miner="batch_hard", mining__metric="cosine")
    check.check(made)
    x, labels = jax.random.normal(jax.random.key(0), (24, 8)), jnp.arange(24) // 4
    by_hand, _ = losses.triplet_loss(
        x, labels, miner="batch_hard", mining_metric="cosine", margin=made.loss.margin
    )
    assert float(run(made)) == pytest.approx(float(by_hand), rel=1e-6)
    assert float(run(config(mining__miner="batch_hard"))) != pytest.approx(float(by_hand), rel=1e-3)
    measure = objective.telemetry(made)
    found = measure(49, x, labels, key=jax.random.key(1), axis_name=None)
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset__split_by": "class"}, "split_by='class' has no effect with dataset.name='dig"),
        ({"dataset__image_size": 28}, "image_size=28 has no effect"),
        (
            {"loss__name": "info_nce", "loss__metric": "cosine", "mining__metric": "cosine"},
            "mining.metric='cosine' has no effect with loss.name='info_nce'",
        ),
        (
            {"dataset__name": "omniglot", "dataset__class_level": 2},
            "class_level=2 has no effect with dataset.name='omniglot'",
        ),
        ({"memory__miner": "batch_hard"}, "memory.miner='batch_hard' has no effect with memory.s"),
        ({"memory__start": 5}, "memory.start=5 has no effect"),
        (
            {"loss__name": "info_nce", "loss__metric": "cosine", "mining__second": "batch_hard"},
            "mining.second='batch_hard' has no effect with loss.name='info_nce'",
        ),
        (
            {
                "loss__name": "info_nce",
                "loss__metric": "cosine",
                "memory__size": 1024,
                "memory__miner": "batch_hard",
            },
            "memory.miner='batch_hard' has no effect with loss.name='info_nce'",
        ),
    ],
)
def test_a_field_that_nothing_reads_is_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(config(**fields))


def test_a_data_set_of_which_nothing_is_left_to_test_on_is_refused():
    made = config(dataset__test_fraction=0.0)
    with pytest.raises(errors.InputError, match="test_fraction=0.0 leaves none of 1797"):
        datasets.check_test(made, datasets.dataset(made))


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


# -- proxies -----------------------------------------------------------------------------


def test_proxies_are_of_the_classes_of_training():
    made = digits.get_config("proxy_nca")
    x, labels = np.zeros((12, 8, 8, 1), np.uint8), np.repeat([3, 5, 8], 4)
    made.batch.update({"classes": 3, "per_class": 4})
    everything = data.Dataset(x, labels, np.full(12, "train"), tuple("0123456789"))
    with pytest.raises(errors.InputError, match="set loss.num_classes=3"):
        datasets.training_split(made, everything)
    made.loss.num_classes = 3
    train, _ = datasets.training_split(made, everything)
    assert train.labels.tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert train.class_names == ("3", "5", "8")
    proxies = objective.learned(made)["proxies"]
    assert proxies.shape == (3, made.model.dim)
    np.testing.assert_array_equal(proxies, objective.learned(made)["proxies"])
    made.seed = 1
    assert not np.array_equal(proxies, objective.learned(made)["proxies"])


@pytest.mark.parametrize("variant", ["proxy_nca", "proxy_anchor"])
def test_proxies_see_the_rows_of_a_batch_that_count(variant):
    made = digits.get_config(variant)
    made.batch.update({"classes": 4, "per_class": 3})
    made.model.dim = 6
    x, labels = jax.random.normal(jax.random.key(0), (12, 6)), jnp.arange(12) // 3
    loss = functools.partial(
        objective.loss(made), axis_name=None, key=None, **objective.learned(made)
    )
    counts = jnp.arange(12) % 3 < 2
    fewer, _ = loss(x, labels, numbers={"batch.per_class": jnp.int32(2)})
    made.batch.per_class = 2
    expected, _ = loss(x[counts], labels[counts])
    np.testing.assert_allclose(fewer, expected, rtol=1e-5)


@pytest.mark.parametrize("variant", ["proxy_nca", "proxy_anchor", "arcface"])
def test_proxies_over_devices_are_those_of_one(variant):
    made = digits.get_config(variant)
    made.loss.num_classes = 5  # which eight devices cannot share evenly
    made.model.dim = 6
    x = jax.random.normal(jax.random.key(0), (16, 6))
    labels = jnp.arange(16) % 4
    proxies = objective.learned(made)["proxies"]
    loss = objective.loss(made)

    def value(x, proxies, labels, axis_name=None):
        return loss(x, labels, key=None, axis_name=axis_name, proxies=proxies)

    both = functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    (whole, stats), gradients = jax.jit(both(value))(x, proxies, labels)

    def of_device(x, labels):
        run = both(functools.partial(value, axis_name="devices"))
        (loss, stats), (of_x, of_proxies) = run(x, proxies, labels)
        return loss, stats, of_x / 8, jax.lax.pmean(of_proxies, "devices")

    lifted = jax.pmap(of_device, axis_name="devices")
    found, their_stats, of_x, of_proxies = lifted(x.reshape(8, 2, 6), labels.reshape(8, 2))
    np.testing.assert_allclose(found, np.full(8, whole), rtol=1e-5)
    np.testing.assert_allclose(of_x.reshape(16, 6), gradients[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(of_proxies[0], gradients[1], rtol=1e-3, atol=1e-5)
    for name, number in stats.items():
        np.testing.assert_allclose(their_stats[name], np.full(8, number), rtol=1e-5)


def test_proxies_and_memory_are_of_the_size_that_the_loss_sees():
    head = {"model__projection": 8, "model__projection_dim": 5, "model__name": "mlp"}
    made = config(loss__name="arcface", loss__metric="cosine", loss__proxies="references", **head)
    check.check(made)
    assert objective.learned(made)["proxies"].shape == (10, 5)
    made = config(memory__size=200, **head)
    state = stepping.initial_state(made, encoders.encoder(made, (8, 8, 1)), (8, 8, 1))
    assert state.memory.embeddings.shape == (200, 5)


def test_proxies_have_a_learning_rate_of_their_own():
    made = digits.get_config("proxy_nca")
    made.optimizer.update({"name": "sgd", "momentum": 0.0, "proxies_rate": 100.0})
    parameters = {"w": jnp.ones(2)}, {"proxies": jnp.ones((3, 2)), "temperature": jnp.float32(1)}
    optimizer = optimizers.optimizer(made)
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    rate = made.optimizer.learning_rate
    np.testing.assert_allclose(updates[0]["w"], -rate, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["temperature"], -rate, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["proxies"], -100 * rate, rtol=1e-5)


@pytest.mark.parametrize(("variant", "knob"), [("nt_xent", "temperature"), ("circle", "scale")])
def test_a_learned_temperature_survives_any_learning_rate(variant, knob):
    made = digits.get_config(variant)
    made.update_from_flattened_dict(
        {"loss.learned": (knob,), "optimizer.learning_rate": 100.0, "model.name": "mlp"}
        | {"model.norm": "group", "model.width": 8, "model.dim": 4, "log.telemetry_every": 0}
    )
    check.check(made)
    shape = (8, 8, 1)
    encoder = encoders.encoder(made, shape)
    state = stepping.initial_state(made, encoder, shape)
    step = data_parallel.streamed(stepping.step(made, encoder, augment=None))
    pixels = np.random.default_rng(0).integers(0, 255, (8, 2, *shape)).astype(np.uint8)
    labels, places = np.arange(16).reshape(8, 2) // 4, np.arange(16).reshape(8, 2)
    for _ in range(5):
        state, metrics = step(state, pixels, labels, places)
        assert 0 < float(metrics[f"learned_{knob}"]) < np.inf
        assert np.isfinite(float(metrics["loss"]))
    assert float(metrics[f"learned_{knob}"]) != made.loss.knobs[knob]


# -- schedules ---------------------------------------------------------------------------


def scheduled(field, miner="quantile", **record):
    made = config(mining__miner=miner)
    made.schedules.one = base.schedule(field, **record)
    return made


def values_of(made, steps):
    field = made.schedules.one.field
    moved = settings.moving(made)
    pace = settings.first_pace(made)
    return [moved(jnp.int32(step), pace)[field] for step in steps]


def test_a_schedule_moves_from_its_start_to_its_end():
    made = scheduled("mining.knobs.hardness", start=0.2, end=0.9, a=0.5)
    found = values_of(made, (0, 250, 500, 999))
    np.testing.assert_allclose(found, [0.2, 0.55, 0.9, 0.9], atol=1e-6)
    back = scheduled("loss.margin", start=0.2, end=0.9, a=0.5, order="anti_curriculum")
    np.testing.assert_allclose(values_of(back, (0, 250, 999)), [0.9, 0.55, 0.2], atol=1e-6)


def test_a_temperature_may_move():
    made = config(loss__name="info_nce", loss__metric="cosine")
    record = {"kind": "cosine", "start": 0.5, "end": 0.05, "a": 1.0}
    made.schedules.one = base.schedule("loss.knobs.temperature", **record)
    check.check(made)
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels, loss = jnp.arange(24) // 4, objective.loss(made)
    moved = settings.numbers(made)
    for step, temperature in ((0, 0.5), (500, 0.275), (1000, 0.05)):
        numbers = moved(jnp.int32(step), {})
        assert float(numbers["loss.knobs.temperature"]) == pytest.approx(temperature, rel=1e-4)
        found, _ = loss(x, labels, key=None, axis_name=None, numbers=numbers)
        nce = functools.partial(contrastive.info_nce, temperature=temperature)
        expected, _ = contrastive.contrastive_loss(x, labels, loss=nce)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    made.loss.learned = ("temperature",)
    with pytest.raises(errors.InputError, match="learns temperature, which a schedule moves"):
        check.check(made)
    made.loss.learned = ()
    made.schedules.one.end = 0.0
    with pytest.raises(errors.InputError, match="schedules.one.end=0.0 must be .* more than 0"):
        check.check(made)


def test_a_whole_number_stays_one():
    made = scheduled("mining.knobs.n", miner="rank", start=10, end=1)
    found = values_of(made, (0, 400, 999))
    assert [int(x) for x in found] == [10, 6, 1]  # 5.5 to the even one
    assert found[0].dtype == jnp.int32
    check.check(made)


@pytest.mark.parametrize("kind", [*schedules.PACINGS, "constant", "cosine", "self_paced"])
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


@pytest.mark.parametrize(
    ("field", "record", "message"),
    [
        ("mining.knobs.hardnes", {}, "hardnes.*Did you mean 'mining.knobs.hardness'"),
        ("mining.miner", {}, "mining.miner' cannot move"),
        ("train.steps", {}, "train.steps' cannot move"),
        ("mining.knobs.beta", {}, "'quantile' has no knob 'beta'"),
        ("mining.knobs.hardness", {"kind": "linera"}, "kind='linera' is not known.*'linear'"),
        ("mining.knobs.hardness", {"order": "anti"}, "order='anti' is not known"),
        ("mining.knobs.hardness", {"a": 0.0}, "schedules.one.a=0.0 must be .* more than 0"),
        ("mining.knobs.hardness", {"a": float("inf")}, "a=inf"),
        ("mining.knobs.hardness", {"b": 1.5}, "b=1.5 must be .* at least 0 and at most 1"),
        ("mining.knobs.hardness", {"end": 1.5}, "schedules.one.end=1.5 must be"),
        (
            "loss.margin",
            {"kind": "piecewise", "levels": (1.0,), "boundaries": (0.5,)},
            r"^schedules.one.levels=.*one more than schedules.one.boundaries=",
        ),
        ("mining.knobs.hardness", {"kind": "self_paced", "order": "random"}, "cannot shuffle"),
        ("mining.mix", {}, "A schedule of mining.mix has no effect with mining.second=''"),
        ("batch.pool", {"start": 0.5}, "batch.scores is empty"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(field, record, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(scheduled(field, **record))


def test_a_field_is_moved_once():
    made = scheduled("loss.margin")
    made.schedules.two = base.schedule("loss.margin")
    with pytest.raises(errors.InputError, match="moved by schedules.one too"):
        check.check(made)


def test_a_schedule_is_the_same_in_a_stream():
    made = scheduled("batch.pool", start=0.2, end=1.0, order="random")
    made.batch.order = "random"
    check.check(made)
    index = sampling.class_index(np.repeat(np.arange(12), 40))
    on_host = pk_batches.draw_on_host(made, index)
    draw = pk_batches.draw(made)

    @jax.jit
    def on_device(index, step):
        return draw(index, types.SimpleNamespace(step=step, pace={}))

    held = jax.tree.map(jnp.asarray, index)
    for step in (0, 1, 500, 999):
        np.testing.assert_array_equal(on_host(step), on_device(held, jnp.int32(step)))


def test_classes_and_images_of_a_batch_may_move():
    """What counts is the batch that a smaller config would have drawn."""
    made = scheduled("batch.per_class", start=2, end=6, a=0.5, miner="batch_all")
    made.batch.classes, made.batch.per_class = 4, 6
    made.schedules.two = base.schedule("batch.classes", start=3, end=4, kind="step", a=0.5)
    check.check(made)
    moved, loss = settings.numbers(made), objective.loss(made)
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels = jnp.arange(24) // 6
    for step, classes, per_class in ((0, 3, 2), (250, 3, 4), (600, 4, 6)):
        numbers = moved(jnp.int32(step), {})
        mask = pk_batches.rows_that_count(numbers, jnp.arange(24))
        _, stats = loss(x, labels, key=None, axis_name=None, numbers=numbers, mask=mask)
        assert stats["num_positive_pairs"] == classes * per_class * (per_class - 1)
        assert stats["num_negative_pairs"] == classes * per_class * (classes - 1) * per_class
    made.schedules.two.end = 5
    with pytest.raises(errors.InputError, match="more than batch.classes=4"):
        check.check(made)


def test_a_pool_that_is_too_small_is_refused():
    made = config(batch__pool=0.05, batch__order="random")
    with pytest.raises(errors.InputError, match="fewer than batch.per_class=12"):
        datasets.training_split(made, datasets.dataset(made))


# -- label noise and scores --------------------------------------------------------------


def test_noise_is_planted_in_training_alone_and_can_be_dropped():
    clean = datasets.dataset(config())
    made = config(dataset__label_noise=0.4)
    train, wrong = datasets.training_split(made, clean)
    truth = clean.only("train")
    np.testing.assert_array_equal(train.labels != truth.labels, wrong)
    assert wrong.mean() == pytest.approx(0.4, abs=0.01)
    made = config(dataset__label_noise=0.4, dataset__drop_noisy=True)
    kept, _ = datasets.training_split(made, clean)
    np.testing.assert_array_equal(kept.inputs, truth.inputs[~wrong])
    np.testing.assert_array_equal(kept.labels, truth.labels[~wrong])


def test_scores_order_the_pool_and_are_refused_for_other_data(tmp_path):
    clean = datasets.dataset(config())
    truth = clean.only("train")
    found = difficulty.Scores(np.linspace(1, 0, len(truth)), np.arange(10, dtype=np.int32) % 2)
    path = tmp_path / "scores.npz"
    difficulty.write(path, found, clean)
    made = config(batch__scores=str(path), batch__pool=0.3)
    train, _ = datasets.training_split(made, clean)
    index = pk_batches.class_index(made, train)
    members = index.order[: index.count[0]]
    assert (np.diff(train.difficulty[members]) >= 0).all()
    np.testing.assert_array_equal(index.group, np.arange(10) % 2)
    hard = pk_batches.class_index(config(batch__scores=str(path), batch__order="hard"), train)
    assert (np.diff(train.difficulty[hard.order[: hard.count[0]]]) <= 0).all()
    other = datasets.dataset(config(dataset__split_seed=1))
    with pytest.raises(errors.InputError, match="another data set"):
        datasets.training_split(made, other)
    for damaged in (
        found._replace(difficulty=found.difficulty[:3]),
        found._replace(difficulty=np.array(["hard"] * len(truth))),
        found._replace(difficulty=np.full(len(truth), np.nan)),
        found._replace(groups=found.groups[:2]),
        found._replace(groups=np.array(0.5)),
    ):
        difficulty.write(path, damaged, clean)
        with pytest.raises(errors.InputError, match="damaged"):
            datasets.training_split(made, clean)


def test_r_precision_of_each_example():
    # Two tight classes, and one example of class 0 among those of class 1.
    x = np.array([[0, 0], [0, 0.1], [0.1, 0], [5.0, 5], [5, 5.1], [5.1, 5], [5.05, 5.05]])
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    found = difficulty.r_precision(x, labels)
    np.testing.assert_allclose(found[[0, 1, 2]], 2 / 3)
    assert found[6] == 0
    assert difficulty.r_precision(x[:2], np.array([0, 1])).tolist() == [0, 0]
