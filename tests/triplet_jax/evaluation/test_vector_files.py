"""Embeddings in the files of vector stores, written and opened by their own libraries too."""

import csv
import importlib.util
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest

from tests.support.clusters import clusters
from triplet_jax import errors, evaluation
from triplet_jax.evaluation import embedding_files, vector_files

X, LABELS = clusters(classes=5, per_class=8)
X = X.astype(np.float32)
NAMES = np.array([f"{c}/{i}.jpg" for i, c in enumerate(LABELS)])
WORDS = np.array([f"class {c}" for c in LABELS])


class IndexHNSWFlat:
    """A stand-in for an index of faiss that is not flat."""

    def __init__(self, width, *_):
        self.rows, self.ntotal = np.zeros((0, width), np.float32), 0

    def add(self, rows):
        self.rows = np.concatenate([self.rows, rows])
        self.ntotal = len(self.rows)

    def reconstruct_n(self, first, count):
        return self.rows[first : first + count]


class IndexFlatIP(IndexHNSWFlat):
    """And for one that is."""


def read_index(path):
    try:
        return pickle.loads(pathlib.Path(path).read_bytes())
    except pickle.UnpicklingError as error:
        raise RuntimeError("read error") from error


@pytest.fixture
def faiss(monkeypatch):
    """The package, or a stand-in with files of its own where it is not installed."""
    if importlib.util.find_spec("faiss"):
        return pytest.importorskip("faiss")
    stand_in = types.SimpleNamespace(
        IndexHNSWFlat=IndexHNSWFlat,
        IndexFlat=IndexFlatIP,
        IndexFlatIP=IndexFlatIP,
        IndexFlatL2=IndexFlatIP,
        serialize_index=lambda index: np.frombuffer(pickle.dumps(index), np.uint8),
        write_index=lambda index, path: pathlib.Path(path).write_bytes(pickle.dumps(index)),
        read_index=read_index,
    )
    monkeypatch.setitem(sys.modules, "faiss", stand_in)
    return stand_in


def write(path):
    pytest.importorskip(vector_files._NEEDS[path.suffix][0])
    vector_files.write(path, X, names=NAMES, labels=WORDS)
    return str(path)


@pytest.mark.parametrize("suffix", vector_files.SUFFIXES)
def test_embeddings_come_back_with_their_labels(tmp_path, faiss, suffix):
    path = write(tmp_path / f"mine{suffix}")
    path = write(tmp_path / f"mine{suffix}")  # which replaces the first
    table = str(tmp_path / "mine.csv") if suffix == ".faiss" else ""
    found = embedding_files.read(path, table=table)
    assert np.array_equal(found.embeddings, X)
    assert found.labels.tolist() == WORDS.tolist()
    assert evaluation.retrieval(**found.search()) == evaluation.retrieval(X, LABELS)


def test_parquet_has_the_schema_of_the_page(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = parquet.read_schema(write(tmp_path / "mine.parquet"))
    assert {field.name: str(field.type) for field in schema} == {
        "embedding": f"fixed_size_list<element: float>[{X.shape[1]}]",
        "path": "string",
        "label": "string",
    }


def test_lancedb_searches_what_is_written(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    write(tmp_path / "mine.lance")
    found = lancedb.connect(tmp_path).open_table("mine").search(X[3]).limit(2).to_list()
    assert found[0]["path"] == NAMES[3]
    assert found[1]["label"] == WORDS[3]


def test_faiss_searches_what_is_written(tmp_path):
    faiss = pytest.importorskip("faiss")
    index = faiss.read_index(write(tmp_path / "mine.faiss"))
    _, nearest = index.search(X, 1)
    assert nearest[:, 0].tolist() == list(range(len(X)))


def test_an_index_has_its_names_and_labels_beside_it(tmp_path, faiss):
    write(tmp_path / "mine.faiss")
    with (tmp_path / "mine.csv").open(newline="") as file:
        assert [*csv.reader(file)] == [
            ["path", "label"],
            *map(list, zip(NAMES, WORDS, strict=True)),
        ]


def test_an_index_of_the_library_is_opened_if_it_is_flat(tmp_path, faiss):
    flat = faiss.IndexFlatIP(X.shape[1])
    flat.add(X)
    faiss.write_index(flat, str(tmp_path / "flat.faiss"))
    assert np.array_equal(vector_files.read_faiss(str(tmp_path / "flat.faiss")), X)
    graph = faiss.IndexHNSWFlat(X.shape[1], 8)
    graph.add(X)
    faiss.write_index(graph, str(tmp_path / "graph.faiss"))
    with pytest.raises(errors.InputError, match="holds an IndexHNSWFlat, .* IndexFlatL2"):
        vector_files.read_faiss(str(tmp_path / "graph.faiss"))


@pytest.mark.parametrize("suffix", [pytest.param(".lance", marks=pytest.mark.slow), ".faiss"])
def test_what_cannot_be_read_is_refused(tmp_path, faiss, suffix):
    pytest.importorskip(vector_files._NEEDS[suffix][0])
    path = tmp_path / f"x{suffix}"
    with pytest.raises(errors.InputError, match="is not there"):
        embedding_files.read(str(path))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(errors.InputError, match="cannot be read as"):
        embedding_files.read(str(path))


def test_an_index_without_a_table_has_no_labels(tmp_path, faiss):
    with pytest.raises(errors.InputError, match=r"lacks \['labels'\].* give a table"):
        embedding_files.read(write(tmp_path / "mine.faiss"))


@pytest.mark.parametrize("suffix", vector_files.SUFFIXES)
def test_the_message_without_the_package_names_the_extra(tmp_path, monkeypatch, suffix):
    package, extra = vector_files._NEEDS[suffix]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.InputError, match=rf"pip install 'triplet_jax\[{extra}\]'"):
        vector_files.check_installed(tmp_path / f"x{suffix}")
