"""Files of embeddings: which rows search which, and what is refused."""

import sys

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


def test_a_row_has_another_group_as_a_reference(written):
    x, labels = clusters(classes=5, per_class=8)
    asks, cameras, others = np.arange(40) % 4 == 0, np.arange(40) % 3, np.arange(40) % 2
    read = embedding_files.read(
        written(is_query=asks, groups=cameras, reference_groups=others),
    )
    expected = evaluation.retrieval(
        x[asks],
        labels[asks],
        references=x[~asks],
        reference_labels=labels[~asks],
        ignore=(cameras[asks], others[~asks]),
    )
    assert evaluation.retrieval(**read.search()) == expected
    with pytest.raises(errors.InputError, match="has reference_groups without groups"):
        embedding_files.read(written(reference_groups=others))


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
        ({"embeddings": np.zeros((40, 0))}, r"shape \(40, 0\): there is nothing to evaluate"),
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


# -- Parquet, and tables of what is known of rows


def write_parquet(file, /, **columns):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table(columns), file)
    return str(file)


def lists(x, size=None):
    pyarrow = pytest.importorskip("pyarrow")
    if size == "large":
        return pyarrow.array(list(x), pyarrow.large_list(pyarrow.float32()))
    kind = pyarrow.list_(pyarrow.float32(), *([] if size is None else [size]))
    return pyarrow.array(list(x), kind)


def equal(first, other):
    embedding_files.check_comparable(first, other, ("first", "other"))
    np.testing.assert_array_equal(first.embeddings, other.embeddings)


@pytest.mark.parametrize("size", [5, None, "large"])
def test_a_parquet_file_says_what_an_npz_does(tmp_path, written, size):
    x, labels = clusters(classes=5, per_class=8)
    asks, groups = np.arange(40) % 4 == 0, np.arange(40) % 3
    items = np.array([f"item {i}" for i in range(40)])
    path = write_parquet(
        tmp_path / "file.parquet",
        embedding=lists(x, size),
        label=labels,
        group=groups,
        item=items,
        is_query=asks,
    )
    expected = embedding_files.read(
        written(groups=groups, items=items, is_query=asks, is_gallery=~asks)
    )
    equal(embedding_files.read(path), expected)
    # As `Gallery.write_parquet` calls them.
    path = write_parquet(
        tmp_path / "file.parquet",
        path=items,
        label=labels.astype(str),
        mark=items,
        vector=lists(x, 5),
    )
    found = embedding_files.read(path)
    assert found.groups is None and found.labels.tolist() == labels.astype(str).tolist()
    np.testing.assert_array_equal(found.embeddings, x)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"label": [1, 2]}, "lacks the column 'embedding' .* it has .*label"),
        ({"embedding": [[1.0], [1.0, 2.0]], "label": [1, 2]}, "lists of 1 to 2 numbers"),
        ({"embedding": [1.0, 2.0], "label": [1, 2]}, "'embedding' is of type double"),
        ({"embedding": [[1.0], None], "label": [1, 2]}, "1 of 2 rows have no 'embedding'"),
        ({"embedding": [[1.0], [2.0]], "label": [1, None]}, "1 of 2 rows have no 'label'"),
        ({"embedding": [[1.0], [2.0]], "label": [[1], [1, 2]]}, "'label' .* have several lengths"),
        ({"embedding": [[1.0], [2.0]]}, r"lacks \['labels'\]"),
        ({"embedding": [[1.0], [2.0]], "label": [1, 2], "is_query": [1, 0]}, "must hold booleans"),
    ],
)
def test_other_parquet_files_are_refused(tmp_path, columns, message):
    path = write_parquet(tmp_path / "file.parquet", **columns)
    with pytest.raises(errors.InputError, match=message):
        embedding_files.read(path)


def test_a_parquet_file_that_is_none_or_needs_pyarrow_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file.parquet").write_bytes(b"PAR1")
    with pytest.raises(errors.InputError, match="is not a file"):
        embedding_files.read(str(tmp_path / "none.parquet"))
    with pytest.raises(errors.InputError, match="cannot be read as a Parquet file"):
        embedding_files.read(str(tmp_path / "file.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        errors.InputError, match=r"needs pyarrow: pip install 'triplet_jax\[search\]'"
    ):
        embedding_files.read(str(tmp_path / "file.parquet"))


@pytest.fixture
def bare(tmp_path):
    """An .npz of embeddings with names, and a table of them in another order; both as functions."""
    x, labels = clusters(classes=5, per_class=8)
    names = np.array([f"{i}.jpg" for i in range(40)])

    def npz(**arrays):
        np.savez(tmp_path / "bare.npz", embeddings=x, **arrays)
        return str(tmp_path / "bare.npz")

    def csv(order=range(40), header="name,label,group,is_query", name="{0}.jpg"):
        rows = [
            f"{name.format(i)},{labels[i % 40]},{i % 3},{'yes' if i % 4 else 'No'}" for i in order
        ]
        (tmp_path / "table.csv").write_text("\n".join([header, *rows]))
        return str(tmp_path / "table.csv")

    return npz, csv, names


def test_a_table_says_what_a_file_does_not(bare, written):
    npz, csv, names = bare
    _, labels = clusters(classes=5, per_class=8)
    expected = embedding_files.read(
        written(
            labels=labels.astype(str),
            groups=(np.arange(40) % 3).astype(str),
            is_query=np.arange(40) % 4 > 0,
        )
    )
    mixed = np.random.default_rng(0).permutation(40)
    equal(embedding_files.read(npz(names=names), table=csv(mixed)), expected)
    equal(
        embedding_files.read(npz(paths=names), table=csv(mixed, "path,label,group,is_query")),
        expected,
    )
    # Without names in the file, row by row; and what the table says counts more.
    equal(embedding_files.read(npz(), table=csv()), expected)
    equal(embedding_files.read(npz(labels=np.zeros(40)), table=csv()), expected)
    # A table may know more images.
    equal(embedding_files.read(npz(names=names), table=csv([*mixed, 40])), expected)


@pytest.mark.parametrize(
    "arrays, table, message",
    [
        ({}, {"order": range(39)}, "table='.*' has 39 rows, and path='.*' 40: row i of both"),
        ({"names": "own"}, {"order": range(39)}, "lacks 1 of 40 rows of path='.*'39.jpg"),
        ({"names": "own"}, {"order": [*range(40), 7]}, "names 1 rows more than once: .*7.jpg"),
        ({}, {"header": "a,b,c,d"}, "has none of the columns label, group, "),
        ({}, {"header": "name,label,is_query,c"}, "'is_query' holds .* write true or false"),
        ({}, {"header": "name,item,group,is_query"}, r"lacks \['labels'\]"),
        ({}, {"name": ""}, "have an empty 'name'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(bare, arrays, table, message):
    npz, csv, names = bare
    arrays = dict.fromkeys(arrays, names)
    with pytest.raises(errors.InputError, match=message):
        embedding_files.read(npz(**arrays), table=csv(**table))
    with pytest.raises(errors.InputError, match="^table='none.csv' is not a file"):
        embedding_files.read(npz(**arrays), table="none.csv")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"names": np.array("a.jpg")}, r"names have the shape \(\), .* one name for each row"),
        ({"paths": np.array(["a.jpg"])}, r"paths have the shape \(1,\), .* one name for each row"),
        ({"embeddings": np.array(1.0)}, r"embeddings have the shape \(\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_beside_a_table(bare, written, arrays, message):
    _, csv, _ = bare
    with pytest.raises(errors.InputError, match=message):
        embedding_files.read(written(**arrays), table=csv())
