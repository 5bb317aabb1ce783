"""Scores of a run by the protocol of its data: who searches whom, and what does not count."""

import dataclasses

import numpy as np
import pytest

from experiments.config import datasets
from experiments.run import embedding_metrics
from tests.support.configs import config
from tests.support.image_folders import save_image
from triplet_jax import data, errors, evaluation
from triplet_jax.data import images

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


def test_a_process_that_is_not_the_first_scores_retrieval_alone(walkers, monkeypatch):
    examples, x = walkers
    monkeypatch.setattr(embedding_metrics.processes, "is_first", lambda: False)
    assert list(embedding_metrics.scores(config(), examples, x)) == ["retrieval"]


def test_few_shot_tasks_are_drawn_within_groups_where_classes_have_some(monkeypatch):
    """In place of each score: the arguments of the function that gives it."""
    for name in ("retrieval", "verification", "clustering", "few_shot"):
        monkeypatch.setattr(evaluation, name, lambda *given, **settings: settings)
    x, labels, groups = np.zeros((60, 4)), np.arange(60) % 6, np.repeat([0, 1], 3)
    plain = data.Dataset(x, labels, np.full(60, "test"), tuple("abcdef"))
    few = config(evaluate__episodes=20, evaluate__ways=8)
    tasks = [name for name in embedding_metrics.scores(few, plain, x) if "shot" in name]
    assert tasks == ["few_shot_1", "few_shot_5"]
    grouped = dataclasses.replace(plain, groups=groups)
    found = embedding_metrics.scores(few, grouped, x)
    within = found["few_shot_1_within_group"]
    np.testing.assert_array_equal(within.pop("groups"), groups[labels])
    assert within == {"ways": 6, "shots": 1, "episodes": 20, "seed": 0}
    assert found["few_shot_5"]["groups"] is None


def test_images_in_files_are_scored_anew_where_one_has_changed(tmp_path, monkeypatch):
    for i in range(12):
        save_image(tmp_path / f"{i}.png", 20 * i)
    files = [str(tmp_path / f"{i}.png") for i in range(12)]
    inputs = images.Images(files, images.ImageForm(size=8, channels=3))
    test = data.Dataset(inputs, np.arange(12) // 3, np.full(12, "test"), tuple("abcd"))
    # In place of scores: the vectors of which they would be.
    monkeypatch.setattr(embedding_metrics, "scores", lambda config, examples, x: x)

    def raw():
        return embedding_metrics.judge(config(), test, np.ones((12, 3)))["raw_pixels"]

    before = raw()
    assert raw() is before
    save_image(tmp_path / "0.png", 255)
    assert not np.array_equal(raw(), before)
