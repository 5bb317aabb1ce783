"""A gallery stays small and whole: what it finds, what it grows to, and what damage does to it."""

import errno
import re
import subprocess

import numpy as np
import pytest

from triplet_jax import errors, evaluation
from triplet_jax.evaluation import gallery


def filled(folder, n=200, dim=8):
    random = np.random.default_rng(0)
    found = gallery.Gallery(folder, dim=dim)
    x = random.normal(size=(n, dim)).astype(np.float32)
    paths = [f"it's/{i}.png" for i in range(n)]
    found.put(paths, ["a"] * n, ["1"] * n, x)
    return found, paths, x


def test_a_gallery_finds_the_nearest_exactly(tmp_path):
    found, paths, x = filled(tmp_path)
    queries = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    distance, position = evaluation.nearest(queries, x, neighbours=7)
    for rows, d, p in zip(found.nearest(queries, 7), distance, position, strict=True):
        assert list(rows.path) == [paths[i] for i in p]
        np.testing.assert_allclose(rows.distance, d, rtol=1e-4)
    assert len(found.nearest(queries, 1000)[0]) == 200


def test_a_gallery_replaces_removes_and_opens_again(tmp_path):
    found, paths, x = filled(tmp_path)
    found.put(paths[:2] + ["new"], ["b"] * 3, ["2"] * 3, -x[:3])
    assert len(found) == 201
    found.remove([*paths[100:], "nobody's"])
    again = gallery.Gallery(tmp_path, dim=8)
    assert len(again) == 101
    assert again.marks == dict.fromkeys(paths[2:100], "1") | dict.fromkeys([*paths[:2], "new"], "2")
    first = again.nearest(-x[:1], 1)[0].iloc[0]
    assert (first.path, first.label, first.distance) == (paths[0], "b", 0)
    with pytest.raises(errors.InputError, match="8 values"):
        gallery.Gallery(tmp_path, dim=9)


def test_changes_are_what_is_new_or_other_and_what_is_gone():
    put, gone = gallery.changes({"a": "1", "b": "1", "c": "1"}, {"b": "1", "c": "2", "d": "1"})
    assert (put, gone) == (["c", "d"], ["a"])


def test_approximate_search_states_its_recall(tmp_path):
    random = np.random.default_rng(0)
    n = gallery.LEAST_APPROXIMATE
    centres = random.normal(size=(100, 8))
    x = centres[np.arange(n) % 100] + 0.1 * random.normal(size=(n, 8))
    found = gallery.Gallery(tmp_path, dim=8)
    found.put([str(i) for i in range(n)], [""] * n, [""] * n, x)
    found.build_index()
    recall = found.recall(10, queries=20)
    assert 0.9 < recall <= 1


# -- growth ------------------------------------------------------------------------------


def files_of(folder):
    files = [file for file in folder.rglob("*") if file.is_file()]
    return len(files), sum(file.stat().st_size for file in files)


def test_many_changes_leave_a_gallery_as_small_as_a_fresh_one(tmp_path):
    fresh, paths, x = filled(tmp_path / "fresh", n=400, dim=32)
    fresh.compact()
    files, size = files_of(tmp_path / "fresh")
    found, *_ = filled(tmp_path / "changed", n=400, dim=32)
    for change in range(20):  # every row is replaced, 20 times
        found.put(paths, ["a"] * 400, [str(change)] * 400, x)
        assert files_of(tmp_path / "changed")[1] < 4 * size
    for single in range(40):  # and one at a time added, and removed
        found.put([f"more {single}"], ["a"], ["1"], x[:1])
        assert files_of(tmp_path / "changed")[0] < 60
    found.remove([f"more {single}" for single in range(40)])
    found.compact()
    assert files_of(tmp_path / "changed")[0] <= files + 1  # a list of removed rows
    assert files_of(tmp_path / "changed")[1] < 1.25 * size
    again = gallery.Gallery(tmp_path / "changed", dim=32)
    assert again.marks == dict.fromkeys(paths, "19")
    for rows, right in zip(again.nearest(x[:5], 3), fresh.nearest(x[:5], 3), strict=True):
        assert list(rows.path) == list(right.path)


def cells_of(found):
    """How many cells the index has, as the plan of a query shows."""
    query = np.zeros(8, np.float32)
    plan = found._table.search(query).nprobes(1).limit(1).analyze_plan()
    return int(re.search(r"partitions_ranked=(\d+)", plan)[1])


def test_an_index_keeps_its_cells_when_images_are_added(tmp_path):
    n = gallery.LEAST_APPROXIMATE
    found, _, x = filled(tmp_path, n=n)
    found.build_index()
    assert cells_of(found) == 100 and found.is_compact
    before = sorted(file.name for file in tmp_path.rglob("*"))
    again = gallery.Gallery(tmp_path, dim=8)
    again.build_index()  # which is there
    assert sorted(file.name for file in tmp_path.rglob("*")) == before
    again.put(["new"], ["a"], ["1"], x[:1] + 100)
    again.compact()
    again.build_index()
    assert cells_of(again) == 100
    (nearest,) = again.nearest(x[:1] + 100, 1, approximate=True)
    assert nearest.path[0] == "new"


# -- damage ------------------------------------------------------------------------------

DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
    "changed": lambda file: file.write_bytes(file.read_bytes()[:-9] + b"123456789"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["data/*.lance", "_versions/*.manifest", "seal.json"])
def test_a_damaged_gallery_is_refused_and_can_be_made_anew(kind, damage, tmp_path):
    found, paths, x = filled(tmp_path)
    found.compact()
    (file,) = tmp_path.glob(f"images.lance/{kind}")
    DAMAGES[damage](file)
    if (kind, damage) == ("seal.json", "gone"):  # as in a gallery that was never sealed
        assert len(gallery.Gallery(tmp_path, dim=8)) == 200
        return
    with pytest.raises(gallery.UnusableError, match="damaged.*Remove that folder"):
        gallery.Gallery(tmp_path, dim=8)
    gallery.remove(tmp_path)
    assert len(gallery.Gallery(tmp_path, dim=8)) == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
@pytest.mark.parametrize("kind", ["data/*.lance", "_versions/*.manifest"])
def test_damage_is_found_without_a_seal_when_everything_is_read(kind, damage, tmp_path):
    filled(tmp_path)
    for file in tmp_path.glob(f"images.lance/{kind}"):
        DAMAGES[damage](file)
    with pytest.raises(gallery.UnusableError, match="damaged"):
        gallery.Gallery(tmp_path, dim=8).table()


def test_a_length_past_the_end_of_a_file_is_damage(tmp_path):
    """LanceDB panics there, which is an error of a kind of its own."""
    filled(tmp_path)
    manifest = min(tmp_path.glob("images.lance/_versions/*.manifest"))  # of the last version
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:3] + b"\x70" + whole[4:])
    with pytest.raises(gallery.UnusableError, match="panicked"):
        gallery.Gallery(tmp_path, dim=8).table()


def test_what_is_no_gallery_is_refused(tmp_path):
    import lancedb  # which takes seconds that every worker would spend

    lancedb.connect(str(tmp_path)).create_table("images", [{"name": "a", "size": 1}])
    with pytest.raises(gallery.UnusableError, match="a table of name, size"):
        gallery.Gallery(tmp_path, dim=8)
    gallery.remove(tmp_path)
    (tmp_path / "images.lance").write_text("not a folder")
    with pytest.raises(gallery.UnusableError):
        gallery.Gallery(tmp_path, dim=8)
    gallery.remove(tmp_path)
    assert len(gallery.Gallery(tmp_path, dim=8)) == 0


def test_a_path_that_is_there_twice_is_reported(tmp_path):
    """Two searches that built one gallery at once left every row twice."""
    found, *_ = filled(tmp_path)
    found._table.add(found._table.to_arrow())
    with pytest.raises(gallery.UnusableError, match="200 of 400 rows"):
        gallery.Gallery(tmp_path, dim=8).marks  # noqa: B018


def test_a_gallery_of_before_goes_on(tmp_path):
    """It has no seal, and the pieces of many changes."""
    import lancedb

    table = None
    for i in range(30):
        row = {"path": str(i), "label": "a", "mark": "1", "vector": [float(i)] * 8}
        rows = gallery.pd.DataFrame([row])
        if table is None:
            schema = gallery.Gallery(tmp_path / "schema", dim=8)._schema
            table = lancedb.connect(str(tmp_path / "old")).create_table("images", schema=schema)
        table.add(rows)
    found = gallery.Gallery(tmp_path / "old", dim=8)
    assert found.marks == {str(i): "1" for i in range(30)} and not found.is_compact
    found.compact()
    assert files_of(tmp_path / "old")[0] < 10
    assert (
        gallery.Gallery(tmp_path / "old", dim=8).nearest(np.full((1, 8), 7.1), 1)[0].path[0] == "7"
    )


def test_a_full_disk_is_reported_and_the_rows_that_were_there_stay(tmp_path):
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount the small disk that this test fills")
    try:
        found, *_ = filled(tmp_path / "gallery", n=500, dim=64)
        random = np.random.default_rng(0)
        with pytest.raises(OSError, match="No space left") as raised:
            for i in range(9):
                x = random.normal(size=(500, 64))
                found.put([f"{i} {j}" for j in range(500)], [""] * 500, [""] * 500, x)
        assert raised.value.errno == errno.ENOSPC
        assert raised.value.filename == str(tmp_path / "gallery")
        kept = gallery.Gallery(tmp_path / "gallery", dim=64)
        assert len(kept.table()) >= 500
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_approximate_search_of_few_images_is_refused(tmp_path):
    found, _, _ = filled(tmp_path, n=3)
    words = f"needs {gallery.LEAST_APPROXIMATE:,} images, and there are 3: .* Search exactly"
    with pytest.raises(errors.InputError, match=words):
        found.build_index()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_that_accepts_none_or_all_is_refused(rate):
    with pytest.raises(errors.InputError, match=f"false_accept_rate={rate} must be above 0 and b"):
        gallery.threshold(np.zeros((2, 1), np.float32), np.arange(2), false_accept_rate=rate)
