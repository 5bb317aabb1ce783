import dataclasses
import json

import ml_collections
import numpy as np
import pytest

from configs import digits
from experiments.config import completion, datasets
from experiments.run import data_json
from experiments.run.setup import Setup
from triplet_jax import errors


def make(workdir, **fields):
    config = digits.get_config("semi_hard")
    config.update_from_flattened_dict({"model.name": "mlp"} | fields)
    config = ml_collections.FrozenConfigDict(completion.completed(config))
    return Setup(config, workdir, datasets.dataset(config))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset.test_fraction": 0.0}, "test_fraction=0.0 leaves none"),
        ({"batch.classes": 11}, "batch.classes=11"),
        ({"augment.crop": 8}, "augment.crop=8 may leave nothing"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_before_anything_is_written(
    fields, message, tmp_path
):
    with pytest.raises(errors.InputError, match=message):
        make(tmp_path, **fields).check()
    assert not list(tmp_path.iterdir())


def test_each_part_is_built_once(tmp_path):
    run = make(tmp_path)
    run.check()
    assert run.examples is run.examples
    assert run.encoder is run.encoder
    assert run.embed is run.embed


def test_copies_of_an_image_are_judged_where_a_head_learns_from_features(tmp_path):
    run = make(tmp_path)
    features = np.zeros((len(run.everything), 3), np.float32)
    embed, inputs = dataclasses.replace(run, features=features).judging
    assert inputs is features
    run = make(tmp_path, **{"evaluate.augment": ("shifts",)})
    _, inputs = dataclasses.replace(run, features=features).judging
    assert inputs is run.everything.inputs


def test_a_run_remembers_its_config_its_data_and_the_labels_that_are_wrong_on_purpose(tmp_path):
    run = make(tmp_path, **{"dataset.label_noise": 0.25})
    run.remember(data_json.content(run.everything))
    assert json.loads((tmp_path / "config.json").read_text())["dataset"]["label_noise"] == 0.25
    assert (tmp_path / "data.json").exists()
    with np.load(tmp_path / "label_noise.npz") as noise:
        assert np.array_equal(noise["wrong"], noise["true"] != noise["given"])
        assert 0.2 < noise["wrong"].mean() < 0.3
        of_train = run.everything.labels[noise["positions"]]
        assert np.array_equal(of_train, noise["true"])
        assert np.array_equal(run.examples.labels, noise["given"])
    other = make(tmp_path, **{"dataset.label_noise": 0.25, "model.dim": 8})
    with pytest.raises(errors.InputError, match="model.dim"):
        other.remember(data_json.content(other.everything))
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    calm = make(quiet)
    calm.remember(data_json.content(calm.everything))
    assert not (quiet / "label_noise.npz").exists()
