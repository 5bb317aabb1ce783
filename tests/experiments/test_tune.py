"""The program that carries out a study, in this process."""

import importlib
import json
import sys
import types

import pytest

from configs.tune import base
from experiments import command
from tests.support import mains, small_studies
from triplet_jax import errors


@pytest.fixture
def tune(monkeypatch):
    """The program; of those with a flag --config, a process can import only one."""
    made = types.SimpleNamespace(name="config", value=None)
    monkeypatch.setattr(command, "config_file", lambda *_: made)
    yield importlib.import_module("experiments.tune")
    del sys.modules["experiments.tune"]


def test_a_study_is_remembered_searched_and_written(tune, tmp_path, monkeypatch, capsys):
    def score(run):
        remembered.append(json.loads((workdir / "study.json").read_text())["trials"])
        return small_studies.score_of(run)

    workdir, remembered = tmp_path / "new" / "study", []
    trained = small_studies.put_engine(monkeypatch, score)
    tune.CONFIG.value = small_studies.made(trials=2, space=small_studies.SPACE[:1])
    mains.call(tune.main, f"--workdir={workdir}")
    assert remembered == [2, 2] and len(trained) == 2
    assert (workdir / "trials.csv").exists()
    assert "study   2 trials by tpe, 0 of them begun" in capsys.readouterr().out
    tune.CONFIG.value.sampler = "random"
    with pytest.raises(errors.InputError, match="holds another study: sampler differ"):
        mains.call(tune.main, f"--workdir={workdir}")


def test_a_study_that_makes_no_sense_leaves_no_folder(tune, tmp_path):
    with pytest.raises(errors.InputError, match="--config is missing: a study, such as"):
        mains.call(tune.main, f"--workdir={tmp_path / 'study'}")
    tune.CONFIG.value = small_studies.made(run={"dataset.validation_fraction": 0.0})
    tune.CONFIG.value.space = (("loss.margin", base.one_of(0.3)),)
    with pytest.raises(errors.InputError, match="--workdir is missing: the folder of the study"):
        mains.call(tune.main)
    with pytest.raises(errors.InputError, match="raise dataset.validation_fraction"):
        mains.call(tune.main, f"--workdir={tmp_path / 'study'}")
    assert not (tmp_path / "study").exists()
