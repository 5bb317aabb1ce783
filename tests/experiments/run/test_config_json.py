"""The config of a run, beside those that its checkpoints carry."""

import json
import pathlib
import types

import ml_collections
import pytest

from experiments.config import completion
from experiments.run import config_json
from tests.support.configs import config
from triplet_jax import errors


def checkpoints(contents):
    return types.SimpleNamespace(
        folder=pathlib.Path("run/checkpoints"), steps=sorted(contents), config_of=contents.get
    )


def test_damaged_configs_of_checkpoints_decide_nothing_and_whole_ones_do():
    made = ml_collections.FrozenConfigDict(completion.completed(config()))
    whole = json.loads(made.to_json())
    damaged = ([], {"model": 3}, {"model": {"dim": "wide"}}, {"log": {"tensorboard": "yes"}})
    steps = dict(enumerate([whole, None, *damaged]))
    config_json.check_checkpoints(made, checkpoints(steps))
    steps[0] = whole | {"model": whole["model"] | {"dim": 8}}
    with pytest.raises(errors.InputError) as refused:
        config_json.check_checkpoints(made, checkpoints(steps))
    assert str(refused.value).startswith(
        "The checkpoint of step 0 in run/checkpoints belongs to another config:\n"
        f"  model.dim: 8 in the checkpoint, {made.model.dim} in the config"
    )
