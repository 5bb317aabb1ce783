"""Scores of embeddings in files, beside each other."""

import json

import numpy as np
import pytest

from experiments.run import file_scores
from triplet_jax import errors, evaluation


def written(folder, name, noise, **arrays):
    """Embeddings of 30 classes seen by three cameras; returns the path, and what was written."""
    random = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(30), 6), np.tile(np.arange(3), 60)
    x = random.normal(size=(30, 8))[labels] + noise * random.normal(size=(180, 8))
    arrays = {"embeddings": x.astype(np.float32), "labels": labels, "groups": groups} | arrays
    np.savez(folder / f"{name}.npz", **arrays)
    return str(folder / f"{name}.npz"), arrays


def test_files_are_scored_beside_the_first(tmp_path, capsys):
    (poor, x), (good, y) = (written(tmp_path, name, 2 - name) for name in (0, 1))
    found = file_scores.evaluate_files([poor, good], "test", tmp_path / "scores.json")
    for path, arrays in ((poor, x), (good, y)):
        expected = evaluation.retrieval(
            arrays["embeddings"],
            arrays["labels"],
            ignore=(arrays["groups"], arrays["groups"]),
            whole_ranking=True,
        )
        assert found["files"][path]["retrieval"] == expected
        over_classes = evaluation.retrieval(
            arrays["embeddings"],
            arrays["labels"],
            ignore=(arrays["groups"], arrays["groups"]),
            whole_ranking=True,
            average="classes",
        )
        assert found["files"][path]["retrieval_over_classes"] == pytest.approx(over_classes)
        assert found["files"][path]["clustering"]["nmi"] > 0
    scores = [found["files"][path]["retrieval"]["map"] for path in (poor, good)]
    less = found["less_the_first"][good]["map"]
    assert less["mean"] == pytest.approx(scores[1] - scores[0], abs=1e-6)
    assert 0 < less["low"] < less["mean"] < less["high"] and less["count"] == 30
    assert json.loads((tmp_path / "scores.json").read_text())["less_the_first"][good]["map"] == less
    said = capsys.readouterr().out
    assert f"mAP of {good} less that of {poor}: {less['mean']:+.3f}" in said
    assert "180 pairs of a query and a reference of its label and group were left out" in said


def test_queries_that_find_themselves_are_reported(tmp_path, capsys):
    path, arrays = written(tmp_path, "plain", 2.0)
    twice = {name: np.concatenate([x[:40], x]) for name, x in arrays.items()}
    roles = {"is_query": np.arange(220) < 40}
    inside, _ = written(tmp_path, "inside", 2.0, **twice, **roles)
    scores = file_scores.evaluate_files([inside], "test", None)["files"][inside]
    assert scores["retrieval"]["precision_at_1"] < 0.5
    assert "found themselves" not in capsys.readouterr().out
    del twice["groups"]
    np.savez(inside, **twice, **roles)
    scores = file_scores.evaluate_files([inside], "test", None)["files"][inside]
    assert scores["retrieval"]["precision_at_1"] == 1 and "clustering" not in scores
    assert "40 of 40 queries found themselves" in capsys.readouterr().out


def test_queries_without_a_match_leave_no_score_and_are_counted(tmp_path, capsys):
    apart = {"embeddings": np.eye(6, dtype=np.float32), "labels": np.arange(6)}
    asks = np.arange(6) < 2
    path, _ = written(tmp_path, "apart", 1.0, **apart, groups=np.zeros(6, int), is_query=asks)
    scores = file_scores.evaluate_files([path], "test", None)["files"][path]
    assert np.isnan(scores["retrieval"]["map"])
    assert np.isnan(scores["retrieval_over_classes"]["map"])
    assert scores["retrieval_over_classes"]["queries_without_positives"] == 2
    assert "2 queries have no match and do not count" in capsys.readouterr().out


def test_columns_of_a_table_say_what_queries_leave_out(tmp_path, capsys):
    path, arrays = written(tmp_path, "plain", 2.0)
    other = np.arange(180) % 2
    rows = [f"{c},{o}" for c, o in zip(arrays["groups"], other, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["camera,other", *rows]))
    found = file_scores.evaluate_files(
        [path], "test", None, table=str(tmp_path / "rows.csv"), ignore=["camera=other", "other"]
    )
    queries = 2 * arrays["groups"] + other
    expected = evaluation.retrieval(
        arrays["embeddings"],
        arrays["labels"],
        ignore=(queries, 3 * other),
        whole_ranking=True,
    )
    assert found["files"][path]["retrieval"] == expected and expected["references_ignored"] > 0
    assert found["protocol"]["left_out"].endswith("agree with it in camera=other, other")
    with pytest.raises(errors.InputError, match="names columns of a table: give --table"):
        file_scores.evaluate_files([path], "test", None, ignore=["camera"])


def test_a_file_that_is_named_twice_or_is_not_there_is_refused(tmp_path):
    path, _ = written(tmp_path, "plain", 1.0)
    with pytest.raises(errors.InputError, match="names a file twice"):
        file_scores.evaluate_files([path, path], "test", None)
    with pytest.raises(errors.InputError, match="--embeddings='nothing.npz' is not a file"):
        file_scores.evaluate_files(["nothing.npz"], "test", None)
