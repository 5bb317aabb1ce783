"""The space of a study: what may stand in it, its corners, and where a config lies in it."""

import optuna
import pytest

from configs.tune import base
from experiments.tuning import space as spaces
from tests.support import small_studies
from triplet_jax import errors

RULES = base.alternatives(
    semi_hard={"mining.miner": "semi_hard"},
    quantile={"mining.miner": "quantile", "mining.knobs.hardness": 0.7},
)


def parsed(**parts):
    return spaces.parse([(name.replace("__", "."), part) for name, part in parts.items()])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "space is empty"),
        ({"loss__margin": base.between(1.0, 0.1)}, "'loss.margin' is between 1.0 and 0.1"),
        ({"loss__margin": base.between(0.1, float("nan"))}, "give finite numbers"),
        ({"loss__margin": base.between("a", "b")}, "give finite numbers"),
        ({"loss__margin": base.between(0.0, 1.0, log=True)}, "numbers above 0 and no step"),
        ({"loss__margin": base.between(0.1, 1.0, step=-0.1)}, "a step is above 0"),
        ({"loss__margin": base.one_of()}, "at least one value"),
        ({"loss__margin": (0.1, 1.0)}, "use between, one_of or alternatives"),
        ({"rule": RULES, "mining__miner": base.one_of("hard")}, "is set by 'rule' and by"),
        ({"value": RULES}, "'value' names a column of trials.csv"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(parts, message):
    with pytest.raises(errors.InputError, match=message):
        parsed(**parts)


def test_two_parts_of_one_name_are_refused():
    margins = base.alternatives(near={"loss.margin": 0.1}, far={"loss.margin": 1.0})
    with pytest.raises(errors.InputError, match="'rule' is there twice"):
        spaces.parse([("rule", RULES), ("rule", margins)])


def test_corners_are_all_ends_of_all_parts():
    space = parsed(loss__margin=base.between(0.1, 1.0), rule=RULES)
    corners = [(point["loss.margin"], point["rule"]) for point in space.corners()]
    assert corners == [(0.1, "semi_hard"), (0.1, "quantile"), (1.0, "semi_hard"), (1.0, "quantile")]
    assert space.differences({"loss.margin": 0.5, "rule": "quantile"}) == {
        "loss.margin": 0.5,
        "mining.miner": "quantile",
        "mining.knobs.hardness": 0.7,
    }


def test_of_many_corners_every_end_is_there():
    space = spaces.parse([(f"part{i}", base.between(0, i + 1)) for i in range(12)])
    corners = list(space.corners())
    assert len(corners) < 2**12
    for part in space.parts:
        alone = [p for p in corners if p[part.name] == part.high]
        assert any(sum(p.values()) == part.high for p in alone)


def test_numbers_are_whole_if_both_ends_are():
    space = parsed(
        a=base.between(1, 5), b=base.between(1.0, 5), c=base.between(0.0, 1.0, step=0.25)
    )
    for seed in range(5):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        point = space.suggest(study.ask())
        assert type(point["a"]) is int
        assert type(point["b"]) is float
        assert point["c"] in (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("parts", "point"),
    [
        ({"loss__margin": base.between(0.1, 0.5)}, {"loss.margin": 0.3}),
        ({"loss__margin": base.between(0.4, 0.5)}, None),
        ({"loss__margin": base.between(0.1, 0.5, step=0.1)}, {"loss.margin": 0.3}),
        ({"loss__margin": base.between(0.1, 0.5, step=0.15)}, None),
        ({"rule": RULES}, {"rule": "semi_hard"}),
        ({"mining__miner": base.one_of("batch_hard", "batch_all")}, None),
        ({"mining__knobs__hardness": base.between(0.1, 0.5)}, None),  # not set
    ],
)
def test_a_config_lies_in_a_space_or_outside(parts, point):
    assert parsed(**parts).of_run(small_studies.made().run) == point
