"""Scores of a run by the protocol of its data: who searches whom, and what does not count."""

import dataclasses

import numpy as np
import pytest

from experiments.config import datasets
from experiments.run import embedding_metrics
from tests.support.configs import config
from triplet_jax import data, errors, evaluation

ASKS = np.arange(60) % 3 == 0


@pytest.fixture
def walkers():
    """12 people before 4 cameras, whose embeddings tell cameras apart rather than people."""
    random = np.random.default_rng(0)
    labels, cameras = np.repeat(np.arange(12), 5), random.integers(0, 4, 60)
    x = random.normal(size=(12, 6))[labels] + 3 * random.normal(size=(4, 6))[cameras]
    examples = data.Dataset(
        x.astype(np.float32),
        labels.astype(np.int32),
        np.full(60, "test"),
        tuple(map(str, range(12))),
        sessions=np.array([f"camera {c}" for c in cameras]),
        is_query=ASKS,
    )
    return examples, examples.inputs + 0.1 * random.normal(size=x.shape).astype(np.float32)


def test_queries_search_the_gallery_without_their_own_camera(walkers):
    examples, x = walkers
    labels, cameras = examples.labels, examples.sessions
    gallery = {"references": x[~ASKS], "reference_labels": labels[~ASKS], "whole_ranking": True}
    found = embedding_metrics.retrieval(config(), examples, x)
    assert found == evaluation.retrieval(x[ASKS], labels[ASKS], **gallery)
    fair = embedding_metrics.retrieval(config(evaluate__ignore_group=True), examples, x)
    ignore = (cameras[ASKS], cameras[~ASKS])
    assert fair == evaluation.retrieval(x[ASKS], labels[ASKS], **gallery, ignore=ignore)
    assert fair["map"] < found["map"] and fair["references_ignored"] > 0


def test_queries_leave_out_what_two_columns_of_a_table_say(walkers):
    examples, x = walkers
    of_queries, of_references = np.arange(60) % 4, np.arange(60) % 5
    told = dataclasses.replace(examples, query_groups=of_queries, reference_groups=of_references)
    found = embedding_metrics.retrieval(config(), told, x)
    assert found == evaluation.retrieval(
        x[ASKS],
        examples.labels[ASKS],
        references=x[~ASKS],
        reference_labels=examples.labels[~ASKS],
        ignore=(of_queries[ASKS], of_references[~ASKS]),
        whole_ranking=True,
    )
    assert found["references_ignored"] > 0
    part = np.arange(0, 60, 2)
    assert embedding_metrics.groups_to_ignore(config(), told.take(part))["groups"].tolist() == (
        of_queries[part].tolist()
    )


def test_a_run_without_a_gallery_scores_as_before(walkers):
    examples, x = walkers
    plain = dataclasses.replace(examples, is_query=None)
    found = embedding_metrics.retrieval(config(), plain, x)
    assert found == evaluation.retrieval(x, plain.labels)


def test_raw_inputs_are_scored_by_the_same_protocol(walkers):
    examples, x = walkers
    found = embedding_metrics.judge(config(evaluate__episodes=5), examples, x)
    for scores in found.values():
        assert scores["retrieval"]["queries"] == ASKS.sum()


def test_a_protocol_that_the_data_do_not_have_is_refused(walkers):
    examples, _ = walkers
    fair = config(evaluate__ignore_group=True)
    datasets.check_test(fair, examples)
    with pytest.raises(errors.InputError, match="the data have no groups of examples"):
        datasets.check_test(fair, dataclasses.replace(examples, sessions=None))
    apart = np.where(ASKS, examples.labels, examples.labels + 12).astype(np.int32)
    with pytest.raises(
        errors.InputError, match="none of the 20 queries has its class among the 40"
    ):
        datasets.check_test(fair, dataclasses.replace(examples, labels=apart))
