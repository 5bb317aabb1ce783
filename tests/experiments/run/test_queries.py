"""The images that --query names: files, folders and tables."""

import pandas as pd
import pytest

from experiments.run import queries
from tests.experiments.run.test_galleries import paint
from triplet_jax import errors

MAX_PIXELS = 10**6


@pytest.fixture
def light(tmp_path):
    """A class folder with two images, in a folder of one class."""
    for name in ("a.png", "b.png"):
        paint(tmp_path / "images" / "light" / name, 200)
    return tmp_path / "images" / "light"


def found(*given, **options):
    return queries.find(list(map(str, given)), "refuse", MAX_PIXELS, **options)


def test_queries_are_files_and_all_images_of_folders_each_once(light, tmp_path):
    one = light / "a.png"
    assert found(one, light, one).paths == [one, light / "b.png"]
    with pytest.raises(errors.InputError, match="none.png is no file"):
        found(one, tmp_path / "none.png")


def test_class_folders_tell_classes(light, tmp_path):
    paint(tmp_path / "images" / "loose.png", 0)
    asked = found(light / "b.png", tmp_path / "images")
    assert {path.name: label for path, label in zip(*asked, strict=True)} == {
        "a.png": "light",
        "b.png": "light",
        "loose.png": "",
    }
    assert set(found(tmp_path, class_level=2).labels) == {"images/light", "images"}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_lists_queries_and_their_classes(light, tmp_path, suffix):
    table = tmp_path / f"asked{suffix}"
    rows = pd.DataFrame({"path": ["images/light/b.png", "images/light/a.png"], "label": "07"})

    def write(rows):
        rows.to_csv(table, index=False) if suffix == ".csv" else rows.to_parquet(table)

    write(rows)
    assert found(table) == ([light / "b.png", light / "a.png"], ["07", "07"])
    write(rows[["path"]])
    assert found(table).labels == ["", ""]
    (light / "a.png").unlink()
    with pytest.raises(errors.InputError, match="1 of 2 files are not there: .*a.png"):
        found(table)
    write(rows[["label"]])
    with pytest.raises(errors.InputError, match=r"--query='.*lacks the columns \['path'\]"):
        found(table)
