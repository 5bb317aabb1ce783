"""A run that starts from another run: what does not fit is named, with the field to set."""

import types

import numpy as np
import pytest

from experiments.run import other_run
from tests.support.configs import config
from triplet_jax import errors
from triplet_jax.runs import files


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts from a run with other fields than this one, whose inputs have a shape."""

    def start(theirs, own, shape=(4,), pairs=None, shapes=None):
        content = {"fingerprint": "", "input_shape": list(shape), "pair_shapes": pairs}
        files.write_json(tmp_path / "data.json", content)
        files.write_json(tmp_path / "config.json", {})  # its fields are those given here
        monkeypatch.setattr(other_run.config_json, "read", lambda workdir: config(**theirs))
        own = config(**own, model__init_from=str(tmp_path))
        return other_run.start(own, shapes or {}, "weights.json")

    return start


def test_the_second_of_two_encoders_is_compared_too(start):
    fields = {"model__towers": 2, "model__name": "mlp"}
    with pytest.raises(errors.InputError) as refused:
        start(fields, fields | {"model__second": "conv4"}, pairs=[[4], [4]])
    assert str(refused.value) == (
        "that run has an encoder of another kind:\n"
        "  model.second='conv4' here, 'mlp' there: set model.second='mlp'"
    )


@pytest.mark.parametrize(("size", "by_size"), [(28, "3x3"), (64, "7x7")])
def test_a_first_layer_by_size_is_compared_as_what_it_is(size, by_size, start):
    other = "7x7" if by_size == "3x3" else "3x3"
    fields = {"model__name": "resnet18", "model__width": 64}
    with pytest.raises(errors.InputError) as refused:
        start(fields, fields | {"model__stem": other}, shape=(size, size, 3))
    assert f"model.stem={other!r} here, {by_size!r} there: set model.stem='{by_size}'" in str(
        refused.value
    )


def test_arrays_that_differ_are_listed(start, monkeypatch):
    def arrays(width):
        layers = {f"layer{i}": {"kernel": np.zeros((2, width))} for i in range(10)}
        return {"params": {"backbone": layers}}

    run = types.SimpleNamespace(judged=lambda: (3, types.SimpleNamespace(variables=arrays(4))))
    monkeypatch.setattr(other_run.restoring, "load", lambda *given: run)
    with pytest.raises(errors.InputError) as refused:
        start({}, {}, shape=(8, 8, 1), shapes=arrays(5))
    lines = str(refused.value).splitlines()
    assert lines[0] == "the encoder of that run has other arrays:"
    assert lines[1] == "  params/backbone/layer0/kernel: [2, 5] here, [2, 4] there"
    assert len(lines) == 11 and lines[9] == "  ... and 2 more"
    assert lines[10] == "Give the fields of model and dataset that the other run has."
