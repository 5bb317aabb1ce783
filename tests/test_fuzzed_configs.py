"""Configs at random: each is refused at launch, in words, or makes steps that can be taken.

FUZZ=1000 traces so many, and trains as many others for three steps.
"""

import os

import hypothesis
import hypothesis.strategies as st
import jax
import ml_collections
import numpy as np
import pytest

from configs import base, digits
from experiments import build, check, settings
from triplet_jax import (
    contrastive,
    distances,
    errors,
    health,
    loop,
    losses,
    mining,
    models,
    stopping,
    train_step,
)

TRACED = int(os.environ.get("FUZZ", 25))
TRAINED = int(os.environ.get("FUZZ", 2))
HUGE = 1e30
FIELDS = sorted(
    name
    for name in settings.flat(base.get_config())
    # What is on disk, and what is only looked at while a run goes on.
    if not name.startswith(
        ("dataset.path", "dataset.data_dir", "log.", "evaluate.", "offline.table")
    )
    and name not in ("dataset.name", "batch.scores", "dataset.placement")
)
NAMES = {
    "mining.miner": sorted(mining.MINERS),
    "mining.second": ["", *sorted(mining.MINERS)],
    "memory.miner": ["", *sorted(mining.MINERS)],
    "loss.name": ["triplet", *sorted(contrastive.LOSSES)],
    "loss.penalty": sorted(losses.PENALTIES),
    "loss.metric": sorted(distances.METRICS),
    "loss.average": ["active", "valid"],
    "model.name": sorted(models.BACKBONES),
    "model.second": ["", *sorted(models.BACKBONES)],
}
VARIANTS = sorted(base.VARIANTS)


def values(name):
    """Some that make sense, and some that do not."""
    now = settings.flat(base.get_config())[name]
    if name in NAMES:
        return st.sampled_from(NAMES[name]) | st.just("no_such_name")
    if isinstance(now, bool):
        return st.booleans()
    if isinstance(now, int):
        return st.sampled_from([-1, 0, 1, 2, 3, 8, 10, 64, 2**31 - 1, 2**31])
    if isinstance(now, float):
        inside = [0.0, 1e-6, 0.1, 0.5, 1.0, 2.0]
        return st.sampled_from([*inside, -1.0, HUGE, float("nan"), float("inf")])
    if isinstance(now, tuple):
        return st.sampled_from([(), (8,), (2, 4), (0,), (-1, 3)])
    return st.just(now) | st.text(max_size=5)


differences = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: values(name) for name in names})
)


def refused_or_built(config):
    """What a step is made of; None of a config that is refused in words."""
    try:
        return built(config)
    except errors.InputError as error:
        assert len(str(error)) > 20
        return None


def built(config):
    check.check(config)
    everything = build.dataset(config)
    examples, _ = build.training_split(config, everything)
    encoder = build.encoder(config, everything.input_shape, everything.pair_shapes)
    augment = build.augmentation(config, everything.input_shape)
    return everything, encoder, augment, build.class_index(config, examples)


def refused_or_traced(config):
    """A step is traced whole."""
    parts = refused_or_built(config)
    if parts is None:
        return
    everything, encoder, augment, index = parts
    state = jax.eval_shape(lambda: build.initial_state(config, encoder, everything.input_shape))
    step = _on_one_device(build.step(config, encoder, augment))
    after, metrics = jax.eval_shape(step, state, *_batch(config, everything, index, 0))
    assert metrics["loss"].shape == (1,)
    assert isinstance(after, train_step.TrainState)


def refused_or_trained(config, steps=3):
    """The steps are taken, as a run takes them."""
    parts = refused_or_built(config)
    if parts is None:
        return
    everything, encoder, augment, index = parts
    step = jax.jit(_on_one_device(build.step(config, encoder, augment)))

    def take_step(state):
        after = step(state, *_batch(config, everything, index, int(state.step)))
        return jax.tree.map(lambda x: x[0], after)

    after = loop.train(
        build.initial_state(config, encoder, everything.input_shape),
        take_step,
        schedule=loop.Schedule(steps, log_every=1, telemetry_every=1, evaluate_every=steps),
        score=lambda state: {},
        score_name="map_at_r",
        save=lambda *saved: None,
        journal=None,
        stop=stopping.Stop(),
    )
    assert after.step == steps


def _on_one_device(step):
    return jax.vmap(step, in_axes=(None, 0, 0, 0), axis_name="devices")


def _batch(config, everything, index, step):
    """What one device, which is all there is, is given of a step."""
    examples, _ = build.training_split(config, everything)
    positions = build.draw_on_host(config, index)(step)
    assert positions.shape == (config.batch.classes * config.batch.per_class,)
    batch = examples.inputs[positions], examples.labels[positions], positions
    return jax.tree.map(lambda x: np.asarray(x)[None], batch)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """What is traced does not depend on how many there are, but what is refused does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        yield


def at_random(examples):
    """A test of so many configs."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize="FUZZ" not in os.environ,  # new ones where somebody asks for them
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.filter_too_much,
        ],
    )
    given = hypothesis.given(differences=differences, variant=st.sampled_from(VARIANTS))
    return lambda test: settings(given(test))


def refused_by_command_line_or(take, differences, variant):
    config = digits.get_config(variant)
    try:
        base.with_differences(config, differences)
    except (TypeError, ValueError):  # as the command line refuses it
        return
    take(ml_collections.FrozenConfigDict(config))


@at_random(TRACED)
def test_a_config_is_refused_or_makes_a_step(differences, variant):
    refused_by_command_line_or(refused_or_traced, differences, variant)


@at_random(TRAINED)
@hypothesis.example(differences={}, variant="semi_hard")
def test_a_config_is_refused_or_trains(differences, variant):
    try:
        refused_by_command_line_or(refused_or_trained, differences, variant)
    except health.NotFiniteError:
        assert HUGE in differences.values(), "no number of it explains that"


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"augment.crop": 2**31 - 1}, "augment.crop=2147483647 may leave nothing"),
        ({"augment.crop": 8}, "set it below 8"),
        ({"memory.size": 2**31}, "memory.size=2147483648 must be .* at most 16777216"),
        ({"model.dim": 2**31}, "model.dim=2147483648 must be .* at most 65536"),
        ({"log.every": 10**400}, "must be .* at most 2147483647"),
    ],
)
def test_what_was_found_at_random_stays_refused(differences, message):
    config = digits.get_config("anchor_swap")
    base.with_differences(config, differences)
    with pytest.raises(errors.InputError, match=message):
        built(ml_collections.FrozenConfigDict(config))
