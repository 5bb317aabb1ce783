"""Configs of runs that are older than a field."""

import json

import pytest

from configs import base, digits, saved
from experiments.config import check, saved_configs


def write(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return str(path)


def without(field):
    content = json.loads(base.get_config().to_json())
    owner, name = field.split(".")
    del content[owner][name]
    return content


@pytest.mark.parametrize("before", [0.25, lambda content: content["loss"]["margin"] + 0.15])
def test_a_field_that_a_saved_config_lacks_means_what_it_meant_before(
    before, tmp_path, monkeypatch
):
    monkeypatch.setattr(saved_configs, "BEFORE", {"model.dropout": before})
    assert saved.get_config(write(tmp_path, without("model.dropout"))).model.dropout == 0.25


def test_a_schedule_that_was_saved_before_it_had_a_scale_is_linear(tmp_path):
    usual = digits.get_config("curriculum")
    content = json.loads(usual.to_json())
    del content["schedules"]["hardness"]["scale"]
    opened = saved.get_config(write(tmp_path, content))
    check.check_anywhere(opened)
    assert opened.schedules == usual.schedules


def test_a_field_that_a_saved_config_has_keeps_its_value(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_configs, "BEFORE", {"model.dropout": 0.25})
    content = json.loads(base.get_config().to_json())
    assert saved.get_config(write(tmp_path, content)).model.dropout == 0.0


def test_the_table_names_fields_that_there_are(tmp_path):
    """And gives a value of their type, also to a config that lacks them all."""
    for field in saved_configs.BEFORE:
        saved.get_config(write(tmp_path, without(field)))


@pytest.mark.parametrize(("before", "trackers"), [(True, ("tensorboard",)), (False, ())])
def test_the_field_for_tensorboard_became_one_of_the_trackers(before, trackers, tmp_path):
    content = without("log.trackers")
    content["log"]["tensorboard"] = before
    assert saved.get_config(write(tmp_path, content)).log.trackers == trackers
    content["log"]["tensorboard"] = "yes"
    with pytest.raises(TypeError, match="log.tensorboard='yes' must be true or false"):
        saved.get_config(write(tmp_path, content))
