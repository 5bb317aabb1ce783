"""From config fields to miners, penalties and losses."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, digits
from experiments import build
from triplet_jax import errors, losses, mining, sweep


def config(**fields):
    made = digits.get_config()
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return made


def run(config):
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels = jnp.arange(24) // 4
    loss = functools.partial(build.loss(config), axis_name=None, **build.learned(config))
    return jax.jit(loss)(x, labels, key=jax.random.key(1))[0]


@pytest.mark.parametrize("variant", sorted(base.VARIANTS))
def test_every_variant_makes_sense(variant):
    build.check(digits.get_config(variant))


def test_every_miner_and_penalty_has_a_variant():
    made = [digits.get_config(variant) for variant in base.VARIANTS]
    assert {c.mining.miner for c in made} == set(mining.MINERS)
    assert {c.loss.penalty for c in made} == set(losses.PENALTIES)


def test_every_knob_is_a_field():
    def knobs(table, given):
        parameters = [p for f in table.values() for p in inspect.signature(f).parameters.values()]
        return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - set(given)

    assert set(config().mining.knobs) == knobs(mining.MINERS, sweep.GIVEN_TO_MINERS)
    assert set(config().loss.knobs) == knobs(losses.PENALTIES, sweep.GIVEN_TO_PENALTIES)


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
        ({"mining__miner": "angular", "loss__metric": "cosine"}, "defined for metric='euclidean'"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, message):
    with pytest.raises(errors.InputError, match=message):
        build.check(config(**fields))


def test_a_new_miner_is_named_in_a_config_like_any_other(monkeypatch):
    def farthest(to_positives, is_positive, to_negatives, is_negative, *, scale=1.0):
        d_an = jnp.max(to_negatives, where=is_negative, initial=-jnp.inf)
        found = is_positive & jnp.any(is_negative)
        return mining.Triplets(to_positives, jnp.where(found, d_an, 0.0), found * scale)

    monkeypatch.setitem(mining.MINERS, "farthest", farthest)
    made = config(mining__miner="farthest", loss__penalty="soft_margin")
    made.mining.knobs.scale = 2.0
    build.check(made)
    assert np.isfinite(run(made))
    with pytest.raises(errors.InputError, match="Did you mean 'farthest'"):
        build.check(config(mining__miner="farthes"))


def test_a_collapse_is_recognised_by_the_loss_of_a_point():
    assert build.collapsed_loss(config()) == pytest.approx(0.3)
    assert build.collapsed_loss(config(loss__penalty="soft_margin")) == pytest.approx(np.log(2))
    assert build.collapsed_loss(config(loss__penalty="anchor_swap")) == pytest.approx(0.3)
