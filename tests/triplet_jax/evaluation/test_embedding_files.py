"""Files of embeddings: which rows search which, and what is refused."""

import numpy as np
import pytest

from tests.support.clusters import clusters
from triplet_jax import errors, evaluation
from triplet_jax.evaluation import embedding_files


@pytest.fixture
def written(tmp_path):
    """Writes arrays into a file, and returns its path."""

    def write(**arrays):
        x, labels = clusters(classes=5, per_class=8)
        np.savez(tmp_path / "file.npz", **({"embeddings": x, "labels": labels} | arrays))
        return str(tmp_path / "file.npz")

    return write


def test_every_row_searches_all_others_unless_the_file_says_otherwise(written):
    x, labels = clusters(classes=5, per_class=8)
    read = embedding_files.read(written())
    assert not read.has_gallery and read.groups is None
    assert evaluation.retrieval(**read.search()) == evaluation.retrieval(x, labels)
    groups = np.arange(40) % 3
    read = embedding_files.read(written(groups=groups))
    expected = evaluation.retrieval(x, labels, ignore=(groups, groups))
    assert evaluation.retrieval(**read.search()) == expected


def test_queries_search_the_gallery_without_themselves(written):
    x, labels = clusters(classes=5, per_class=8)
    asks, there = np.arange(40) % 4 == 0, np.arange(40) % 3 > 0
    names = np.array([f"class {c}" for c in labels])
    read = embedding_files.read(written(labels=names, is_query=asks, is_gallery=there))
    found = evaluation.retrieval(**read.search())
    own = [list(np.flatnonzero(there)).index(row) if there[row] else -1 for row in range(40)]
    expected = evaluation.retrieval(
        x[asks],
        labels[asks],
        references=x[there],
        reference_labels=labels[there],
        own=np.array(own)[asks],
    )
    assert found == expected and found["queries_among_references"] == 0
    for role in ("is_query", "is_gallery"):
        read = embedding_files.read(written(**{role: asks}))
        assert (read.is_query != read.is_gallery).all() and (getattr(read, role) == asks).all()


def test_only_the_rows_of_one_split_are_read(written):
    x, labels = clusters(classes=5, per_class=8)
    split = np.where(np.arange(40) < 30, "test", "train")
    read = embedding_files.read(written(split=split, groups=np.arange(40)))
    np.testing.assert_array_equal(read.embeddings, x[:30])
    np.testing.assert_array_equal(read.labels, labels[:30])
    np.testing.assert_array_equal(read.groups, np.arange(30))
    assert len(embedding_files.read(written(split=split), split="train").labels) == 10
    with pytest.raises(errors.InputError, match=r"split='dev'; there are \['test', 'train'\]"):
        embedding_files.read(written(split=split), split="dev")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"labels": np.arange(39)}, r"labels have the shape \(39,\)"),
        ({"embeddings": np.zeros(40)}, r"embeddings have the shape \(40,\)"),
        ({"groups": np.zeros((40, 2))}, r"groups have the shape \(40, 2\)"),
        ({"is_query": np.arange(40)}, "is_query has dtype int64; it must hold booleans"),
        ({"is_query": np.zeros(40, bool)}, "is_query is False for every row"),
        ({"is_query": np.ones(40, bool)}, "is_gallery is False for every row"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(written, arrays, message):
    with pytest.raises(errors.InputError, match=message):
        embedding_files.read(written(**arrays))


def test_a_file_without_labels_is_refused(tmp_path):
    np.savez(tmp_path / "file.npz", embeddings=np.zeros((4, 2)))
    with pytest.raises(errors.InputError, match=r"lacks \['labels'\]"):
        embedding_files.read(str(tmp_path / "file.npz"))


def test_files_of_other_examples_are_not_compared(written):
    first = embedding_files.read(written())
    embedding_files.check_comparable(first, embedding_files.read(written()), ("a", "b"))
    for field, other in (
        ("labels", {"labels": np.arange(40)}),
        ("groups", {"groups": np.arange(40)}),
        ("is_query", {"is_query": np.arange(40) < 9}),
    ):
        with pytest.raises(errors.InputError, match=f"a and b differ in {field}"):
            embedding_files.check_comparable(
                first, embedding_files.read(written(**other)), ("a", "b")
            )
