"""Splits, numbers and maps that can tell nothing are reported, and end nothing."""

import dataclasses
import json
import math

import numpy as np
import pytest

from configs import base
from experiments.config import datasets
from experiments.run import collapse, embedding_metrics, evaluating, score_table
from experiments.run.setup import Setup
from experiments.sweeps import runs
from triplet_jax import arguments, data, errors, evaluation
from triplet_jax.analysis import projection
from triplet_jax.runs import files, row_files, telemetry_file


def dataset(test, validation=(0, 0, 1, 1)):
    labels = np.array([0, 0, 1, 1, *validation, *test], np.int32)
    split = np.repeat(["train", "validation", "test"], [4, len(validation), len(test)])
    names = tuple(str(c) for c in range(labels.max() + 1))
    return data.Dataset(np.zeros((len(labels), 2), np.float32), labels, split, names)


@pytest.mark.parametrize(
    "test, why",
    [
        ([0, 1, 2], "leaves 3 of 11 examples of 3 classes for the test .* no two are of one class"),
        ([3, 3, 3], "leaves 3 of 11 examples of 3 classes for the test .* all are of one class"),
        ([3], "leaves 1 of 9"),
        ([], "leaves none of 8 examples of 2 classes"),
    ],
)
def test_a_test_split_that_can_tell_nothing_is_refused(test, why):
    config = base.get_config()
    with pytest.raises(errors.InputError, match=f"^dataset.test_fraction=.*{why}.* Raise dataset"):
        datasets.check_test(config, dataset(test))
    datasets.check_test(config, dataset([0, 0, 1]))


@pytest.mark.parametrize("validation", [[0, 1, 2], [3, 3, 3], [1]])
def test_a_validation_split_that_can_tell_nothing_is_reported_and_gives_no_score(
    validation, tmp_path
):
    everything = dataset([0, 0, 1], validation)
    config = base.get_config()
    note = datasets.note_on_validation(config, everything)
    assert f"leaves {len(validation)} of" in note and "the last checkpoint is evaluated" in note
    assert Setup(config, tmp_path, everything).validate(None) == {}
    reason = evaluating.why_this_checkpoint(config, everything.only("validation"), "best")
    assert reason.startswith("the last, as")
    for fine in ([], [0, 0, 1, 1]):
        assert datasets.note_on_validation(config, dataset([0, 0, 1], fine)) == ""


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_never_holds_nan(tmp_path):
    content = {"a": math.nan, "b": [1.5, (math.inf, -math.inf)], "c": {"d": np.float64("nan")}}
    expected = {"a": None, "b": [1.5, [None, None]], "c": {"d": None}}
    files.write_json(tmp_path / "x.json", content)
    assert strict((tmp_path / "x.json").read_text()) == expected
    rows = row_files.RowFile(tmp_path / "telemetry.jsonl", last_step=0)
    rows.write({"step": 1, "norms": [0.5, math.nan]})
    rows.write({"step": 2, "norms": [0.5, 1.0]})
    rows.close()
    for line in (tmp_path / "telemetry.jsonl").read_text().splitlines():
        strict(line)
    np.testing.assert_array_equal(
        telemetry_file.read(tmp_path)["norms"], [[0.5, np.nan], [0.5, 1.0]]
    )


def test_a_number_that_was_not_told_is_nan_to_a_reader(tmp_path):
    found = evaluation.retrieval(np.eye(3), [0, 1, 2])
    run = runs.Run(arm="a", setting="", seed=0, config=None, workdir=tmp_path)
    run.folder.mkdir(parents=True)
    files.write_json(run.folder / "result.json", {"embedding": {"retrieval": found}})
    assert math.isnan(run.score("map_at_r"))
    assert score_table._number({"map_at_r": None}, "map_at_r") == "-"
    assert score_table._number({}, "nmi") == "-"


@pytest.mark.parametrize("name", ["pca", "tsne"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (3, 4), (4, 2), (7, 1)])
def test_maps_of_few_examples_and_of_one_value(name, shape):
    x = np.random.default_rng(0).normal(size=shape)
    found = projection.PROJECTIONS[name](x)
    assert found.shape == (shape[0], 2) and np.isfinite(found).all()


def test_maps_refuse_rows_that_are_not_finite():
    for project in (projection.pca, projection.tsne):
        with pytest.raises(errors.InputError, match="1 of 9 rows of embeddings have NaN"):
            project(np.vstack([np.eye(8), np.full(8, np.nan)]))
    assert arguments.embeddings([[1, 2]]).dtype == np.float32


def test_advice_on_a_collapse_fits_the_inputs_and_the_config():
    config = base.get_config()
    config.mining.miner = "semi_hard"
    equal = dataset([0, 0, 1])
    assert "inputs are nearly equal" in collapse.advice(config, equal)
    assert "semi_hard" not in collapse.advice(config, equal)
    equal.inputs[:] = 1 + 1e-4 * np.random.default_rng(0).normal(size=equal.inputs.shape)
    assert "inputs are nearly equal" in collapse.advice(config, equal)
    equal.inputs[:] = np.random.default_rng(0).normal(size=equal.inputs.shape)
    found = collapse.advice(config, equal)
    assert "semi_hard" not in found and "optimizer.learning_rate below" in found
    config.mining.miner = "batch_hard"
    assert "mining.miner=semi_hard" in collapse.advice(config, equal)
    config.loss.name = "info_nce"
    assert "miner" not in collapse.advice(config, equal)


def with_groups(sessions):
    split = np.repeat(["train", "validation", "test"], 4)
    labels, sessions = np.tile([0, 0, 1, 1], 3), np.tile(sessions, 3)
    return data.Dataset(
        np.eye(12, 2, dtype=np.float32), labels, split, ("0", "1"), sessions=sessions
    )


def test_classes_of_one_group_have_no_score_where_a_group_is_ignored(tmp_path):
    config = base.get_config()
    config.evaluate.ignore_group = True
    alone, mixed = with_groups([0, 0, 1, 1]), with_groups([0, 1, 0, 1])
    with pytest.raises(errors.InputError, match="no two are of one class and of two groups"):
        datasets.check_test(config, alone)
    datasets.check_test(config, mixed)
    assert "of two groups" in datasets.note_on_validation(config, alone)
    assert datasets.note_on_validation(config, mixed) == ""
    assert Setup(config, tmp_path, alone).validate(None) == {}


def test_where_test_rows_search_a_gallery_validation_rows_search_each_other():
    everything = with_groups([0, 1, 0, 1])
    asks = (everything.split == "test") & (np.arange(12) % 2 == 0)
    everything = dataclasses.replace(everything, is_query=asks)
    embeddings = np.array([[0.0], [1.0], [5.0], [6.0]])
    of = {
        split: embedding_metrics.retrieval(
            base.get_config(), everything.only(split), embeddings.astype(np.float32)
        )
        for split in ("validation", "test")
    }
    assert of["validation"]["queries"] == 4 and of["validation"]["map_at_r"] == 1
    assert of["test"]["queries"] == 2
