"""Configs at random: each is refused at launch, in words, or makes a step that can be taken.

FUZZ=1000 looks at so many.
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
from triplet_jax import contrastive, distances, errors, losses, mining, models, train_step

EXAMPLES = int(os.environ.get("FUZZ", 25))
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
        return st.sampled_from([*inside, -1.0, 1e30, float("nan"), float("inf")])
    if isinstance(now, tuple):
        return st.sampled_from([(), (8,), (2, 4), (0,), (-1, 3)])
    return st.just(now) | st.text(max_size=5)


differences = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: values(name) for name in names})
)


def refused_or_built(config):
    """What a step is made of."""
    check.check(config)
    everything = build.dataset(config)
    examples, _ = build.training_split(config, everything)
    encoder = build.encoder(config, everything.input_shape, everything.pair_shapes)
    augment = build.augmentation(config, everything.input_shape)
    return everything, encoder, augment, build.class_index(config, examples)


def refused_or_traced(config):
    """Whether a config is refused; if not, a step of it is traced whole."""
    try:
        everything, encoder, augment, index = refused_or_built(config)
    except errors.InputError as error:
        assert len(str(error)) > 20
        return True
    draw = build.draw_on_host(config, index)
    positions = draw(0)
    assert positions.shape == (config.batch.classes * config.batch.per_class,)
    shape = everything.input_shape
    state = jax.eval_shape(lambda: build.initial_state(config, encoder, shape))
    lifted = jax.vmap(
        build.step(config, encoder, augment),
        in_axes=(None, 0, 0, 0),
        axis_name="devices",
    )
    inputs = np.asarray(everything.inputs[:1])
    rows = len(positions)
    after, metrics = jax.eval_shape(
        lifted,
        state,
        jax.ShapeDtypeStruct((1, rows, *inputs.shape[1:]), inputs.dtype),
        jax.ShapeDtypeStruct((1, rows), np.int32),
        jax.ShapeDtypeStruct((1, rows), np.int32),
    )
    assert metrics["loss"].shape == (1,)
    assert isinstance(after, train_step.TrainState)
    return False


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """What is traced does not depend on how many there are, but what is refused does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        yield


@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,  # new ones where somebody asks for them
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)
@hypothesis.given(differences=differences, variant=st.sampled_from(VARIANTS))
def test_a_config_is_refused_or_makes_a_step(differences, variant):
    config = digits.get_config(variant)
    try:
        base.with_differences(config, differences)
    except (TypeError, ValueError):  # as the command line refuses it
        return
    refused_or_traced(ml_collections.FrozenConfigDict(config))


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({"augment.crop": 2**31}, "augment.crop=2147483648 may leave nothing"),
        ({"augment.crop": 8}, "set it below 8"),
        ({"memory.size": 2**31}, "memory.size=2147483648 must be .* at most 16777216"),
    ],
)
def test_what_was_found_at_random_stays_refused(differences, message):
    config = digits.get_config("anchor_swap")
    base.with_differences(config, differences)
    with pytest.raises(errors.InputError, match=message):
        refused_or_built(ml_collections.FrozenConfigDict(config))
