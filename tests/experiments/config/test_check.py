"""Whole configs: what makes sense, and what is refused."""

import inspect

import pytest

from configs import base, benchmarks, digits, omniglot
from experiments.config import check, completion, settings
from tests.support.configs import config, scheduled
from triplet_jax import contrastive, data, errors, losses, mining
from triplet_jax.engine import rules


@pytest.mark.parametrize("variant", sorted(base.VARIANTS))
def test_every_variant_makes_sense(variant):
    check.check(digits.get_config(variant))


@pytest.mark.parametrize("variant", ["proxy_nca", "proxy_anchor", "softmax", "arcface"])
def test_omniglot_knows_how_many_proxies_it_needs(variant):
    check.check(omniglot.get_config(variant))


@pytest.mark.parametrize("name", data.BENCHMARKS)
def test_every_benchmark_has_a_config_that_makes_sense(name):
    found = benchmarks.get_config(name)
    assert found.dataset.name == name
    check.check(completion.completed(found))


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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mining__knobs__beta": 1.0}, "'semi_hard' has no knob 'beta'; it has none"),
        ({"mining__miner": "band", "mining__knobs__n": 1}, "its knobs are high, low"),
        ({"loss__knobs__beta": 1.0}, "loss.penalty='hinge' has no knob 'beta'"),
        ({"loss__learned": ("margin",)}, "loss.learned: loss.penalty='hinge' has no knob"),
        ({"mining__miner": "quantile", "mining__knobs__hardness": 1.5}, "hardness=1.5 must be"),
        ({"loss__metric": "minkowski"}, "takes p, and was given no parameters"),
        ({"loss__precision": "float16"}, "loss.precision='float16' is not known"),
        (
            {"loss__precision": "bfloat16", "loss__metric": "manhattan"},
            "loss.precision='bfloat16' does not suit manhattan",
        ),
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
        (
            {
                "loss__name": "pairs",
                "loss__proxies": "references",
                "loss__num_classes": 6,
                "loss__centres": 2,
            },
            "loss.metric='euclidean' with loss.centres=2: .* set loss.metric='cosine', or loss.c",
        ),
        (
            {"dataset__test_fraction": 0.9, "dataset__validation_fraction": 0.2},
            "validation_fraction=0.2 leave nothing to train on; together they must be below 1",
        ),
        (
            {"optimizer__warmup_steps": 1000},
            "optimizer.warmup_steps=1000 must be below train.steps=1000",
        ),
        (
            {"batch__scores": "none.npz"},
            "batch.scores='none.npz' is not a file: make it with python -m experiments.score",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(config(**fields))


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
        ("loss.margin", {"start": 0.0, "scale": "log"}, "needs ends above 0, not start=0.0 and"),
        ("mining.mix", {}, "A schedule of mining.mix has no effect with mining.second=''"),
        ("batch.pool", {"start": 0.5}, "batch.scores is empty"),
        ("loss.margin", {"kind": "self_paced", "holds": "loss"}, "one.holds='loss' is not known"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(field, record, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(scheduled(field, **record))


@pytest.mark.parametrize(
    ("field", "kind", "fields", "message"),
    [
        (
            "loss.margin",
            "linear",
            {"loss.name": "info_nce", "loss.metric": "cosine"},
            "of loss.margin of kind 'linear' needs triplets, and loss.name='info_nce' has none",
        ),
        (
            "batch.pool",
            "self_paced",
            {"dataset.placement": "stream", "batch.scores": __file__},
            "self_paced' moves batch.pool by .* set dataset.placement='device', or choose a pacing",
        ),
    ],
)
def test_schedules_that_do_not_suit_other_fields_are_refused(field, kind, fields, message):
    made = scheduled(field, miner="semi_hard", kind=kind)
    made.update_from_flattened_dict(fields)
    with pytest.raises(errors.InputError, match=message):
        check.check(made)


def test_a_number_in_the_place_of_a_section_is_refused():
    made = config()
    with made.ignore_type():
        made.loss.knobs = 3
    with pytest.raises(errors.InputError, match="^loss.knobs=3 must be a section of fields.$"):
        check.check(made)


@pytest.mark.parametrize(
    ("record", "least"),
    [
        ({"b": 0.25}, 0.25),
        ({"kind": "constant"}, 1.0),
        ({"kind": "piecewise", "levels": (0.5, 1.0), "boundaries": (0.5,)}, 0.5),
        ({"kind": "self_paced"}, 0.0),
    ],
)
def test_the_least_value_of_a_schedule_is_one_that_it_reaches(record, least):
    config = scheduled("batch.pool", start=0.0, end=1.0, **record)
    assert settings.lowest(config, "batch.pool") == pytest.approx(least)


def test_a_loss_without_triplets_paces_itself_by_the_share_of_its_gradient():
    made = config(loss__name="info_nce", loss__metric="cosine")
    paced = {"kind": "self_paced", "start": 9.0, "end": 0.0}
    made.schedules.one = base.schedule("loss.knobs.hardness_strength", **paced)
    with pytest.raises(errors.InputError, match="set its holds='gradient_share'"):
        check.check(made)
    made.schedules.one.holds = "gradient_share"
    check.check(made)


CHOICE = {"batch__choose_from": 32, "batch__scores": "scores.npz"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch__choose_from": 4}, "batch.choose_from=4 leaves nothing to choose"),
        ({"batch__scores": ""}, "batch.scores is empty"),
        ({"model__towers": 2, "batch__per_class": 2}, "model.towers=2 does not go .* set it to 1"),
        ({"dataset__placement": "stream"}, "set it to 'device'"),
        ({"dataset__turns_as_classes": True}, "set it to False"),
        ({"offline__every": 10}, "set it to 0"),
        ({"batch__choose_from": 0, "batch__strictness": 2.0}, "needs batch.choose_from above 0"),
    ],
)
def test_a_choice_of_classes_that_cannot_be_made_is_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        check.check(config(**CHOICE | fields))


def test_a_choice_of_classes_needs_a_batch_of_one_shape(tmp_path):
    scores = tmp_path / "scores.npz"
    scores.touch()
    made = config(**CHOICE | {"batch__scores": str(scores)})
    check.check(made)
    made.schedules.one = base.schedule("batch.classes", start=2, end=4)
    with pytest.raises(errors.InputError, match="does not go with batch.choose_from"):
        check.check(made)


def test_a_field_is_moved_once():
    made = scheduled("loss.margin")
    made.schedules.two = base.schedule("loss.margin")
    with pytest.raises(errors.InputError, match="moved by schedules.one too"):
        check.check(made)
