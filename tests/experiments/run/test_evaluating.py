"""What `result.json` of a run says: its scores, and the protocol that gave them."""

import dataclasses
import json
import types

import numpy as np
import pytest

from experiments.run import embedding_metrics, evaluating
from tests.support.configs import config
from triplet_jax import data


@pytest.fixture
def everything():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    split = np.repeat(["train", "validation", "test"], [16, 8, 16])
    return data.Dataset(x, np.arange(40) % 4, split, tuple("abcd"))


def test_the_protocol_says_who_searches_whom(everything):
    def search(everything, **fields):
        return evaluating.protocol(config(**fields), everything, 7)["retrieval"]

    assert search(everything).startswith("every test example is a query, all others are references")
    asks = np.arange(40) % 5 == 0  # three of them of the test split
    with_queries = dataclasses.replace(everything, is_query=asks)
    assert search(with_queries) == "3 test queries search 13 references; Euclidean"
    left_out = search(with_queries, dataset__ignore_columns=("camera", "day=night"))
    assert left_out.endswith("own class that agree with it in camera, day=night; Euclidean")
    of_group = search(everything, evaluate__ignore_group=True)
    assert of_group.endswith(", without those of the query's own class and group; Euclidean")


def test_the_protocol_says_why_a_checkpoint_was_taken(everything):
    def why(everything, **fields):
        return evaluating.protocol(config(**fields), everything, 7)["checkpoint"]

    assert why(everything) == "step 7, the best MAP@R on 8 validation examples of 4 classes"
    assert why(everything, evaluate__checkpoint="last") == "step 7, the last"
    none = everything.take(np.flatnonzero(everything.split != "validation"))
    assert why(none) == "step 7, the last, as there is no validation split"


def test_the_protocol_says_where_the_best_was_found_by_other_scores(everything):
    def change(step, field):
        return {"step": step, "field": field, "before": False, "after": True}

    changed = [change(0, "evaluate.ignore_group"), change(3, "evaluate.ways")]
    found = evaluating.protocol(config(), everything, 7, changed)["checkpoint"]
    assert found.endswith("examples of 4 classes")
    changed.append(change(5, "evaluate.ignore_group"))
    found = evaluating.protocol(config(), everything, 7, changed)["checkpoint"]
    assert found.endswith("; the scores up to step 5 are by another evaluate.ignore_group")
    last = config(evaluate__checkpoint="last")
    assert evaluating.protocol(last, everything, 7, changed)["checkpoint"] == "step 7, the last"


def test_the_first_values_of_a_nested_embedding_are_in_the_result(
    everything, tmp_path, monkeypatch, capsys
):
    """Of scores that others test."""
    scores = dict.fromkeys(("map_at_r", "r_precision", "precision_at_1", "recall_at_8"), 0.75)
    counted = ("references_ignored", "queries_without_positives", "queries_among_references")
    judged = {"embedding": {"retrieval": scores | dict.fromkeys(counted, 0)}}
    monkeypatch.setattr(embedding_metrics, "judge", lambda config, test, x: judged)
    asked = []

    def nested(config, test, x):
        asked.append((len(test), x.tolist()))
        return {"2": {"map_at_r": 0.25}}

    monkeypatch.setattr(embedding_metrics, "nested", nested)
    x = everything.inputs
    run = types.SimpleNamespace(
        config=config(loss__nested_dims=(2, 4), model__dim=4),
        workdir=tmp_path,
        judged=lambda: (7, "state"),
        embed_with=lambda state, inputs: x,
        checkpoints=types.SimpleNamespace(steps=[5, 7, 9]),
    )
    result = evaluating.evaluate(run, everything, extra={"note": 1})
    assert asked == [(16, x[24:].tolist())]
    assert result["nested"] == {"2": {"map_at_r": 0.25}}
    assert (result["checkpoint_step"], result["trained_steps"], result["note"]) == (7, 9, 1)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    with np.load(tmp_path / "embeddings.npz") as saved:
        np.testing.assert_array_equal(saved["embeddings"], x)
    assert "MAP@R, 2 values" in capsys.readouterr().out
