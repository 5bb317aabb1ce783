"""Data sets from tables of images, and what of a table is refused."""

import csv
import os
import pathlib

import numpy as np
import PIL.Image
import pytest

from triplet_jax import data, errors
from triplet_jax.data import images

FORM = images.ImageForm(size=4, channels=1)
SOME = data.HeldOut(test=0.25, validation=0.2, seed=0)


@pytest.fixture
def listed(tmp_path):
    """A folder of 24 images, and the rows that list them: 4 classes, 3 drawers, 2 kinds."""
    rows = []
    for number in range(24):
        name = f"pictures/{number}.png"
        (tmp_path / "pictures").mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full((6, 6), 10 * number, np.uint8)).save(tmp_path / name)
        rows.append(
            {
                "path": name,
                "label": f"0{number % 4}",
                "group": f"drawer {number // 4 % 3}",
                "split": ["train", "Val", "gallery"][number // 8],
                "kind": "AB"[number % 4 // 2],
            }
        )
    return tmp_path, rows


def write(folder, rows, name="table.csv", **format):
    with (folder / name).open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), **format)
        table.writeheader()
        table.writerows(rows)
    return str(folder / name)


def write_parquet(folder, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "table.parquet")
    return str(folder / "table.parquet")


def read(path, *, split_by="image", **settings):
    given = {"form": FORM, "held_out": SOME, "bad_images": "refuse"} | settings
    return data.table(path, split_by=split_by, **given)


def test_a_table_gives_images_with_their_classes(listed):
    folder, rows = listed
    found = read(write(folder, rows))
    assert found.class_names == ("00", "01", "02", "03"), "text, not numbers"
    assert found.labels.tolist() == [int(row["label"]) for row in rows]
    assert found.names.tolist() == [row["path"] for row in rows]
    assert [int(found.inputs[i][0, 0, 0]) for i in range(24)] == [10 * i for i in range(24)]
    assert {s: int((found.split == s).sum()) for s in data.SPLITS} == {
        "train": 12,
        "validation": 4,
        "test": 8,
    }
    assert found.groups is None


@pytest.mark.parametrize("kind", [".tsv", ".parquet", "utf-8-sig"])
def test_other_files_give_the_same(listed, kind):
    folder, rows = listed
    path = write(folder, rows)
    expected = read(path)
    if kind == ".tsv":
        path = write(folder, rows, "table.tsv", delimiter="\t")
    elif kind == ".parquet":
        path = write_parquet(folder, rows)
    else:  # as spreadsheets write it
        text = pathlib.Path(path).read_text()
        pathlib.Path(path).write_text(text, encoding=kind)
    assert data.fingerprints(read(path)) == data.fingerprints(expected)


def test_labels_of_a_parquet_file_may_be_numbers(listed):
    folder, rows = listed
    path = write_parquet(folder, [row | {"label": int(row["label"])} for row in rows])
    assert read(path).class_names == ("0", "1", "2", "3")


def test_columns_have_the_names_that_one_gives(listed):
    folder, rows = listed
    named = [{f"the {name}": cell for name, cell in row.items()} for row in rows]
    names = {name: f"the {name}" for name in ("path", "label", "split", "group")}
    columns = data.Columns(**names, category="the kind")
    found = read(write(folder, named), split_by="official", columns=columns)
    assert found.split.tolist() == ["train"] * 8 + ["validation"] * 8 + ["test"] * 8
    assert found.groups.tolist() == [0, 0, 1, 1]
    with pytest.raises(errors.InputError, match=r"lacks the columns \['path', 'label'\]; it has"):
        read(write(folder, named))


def test_no_group_is_on_both_sides(listed):
    folder, rows = listed
    found = read(write(folder, rows), split_by="group", held_out=data.HeldOut(0.3, 0.0, seed=1))
    drawers = np.array([row["group"] for row in rows])
    held = set(drawers[found.split == "test"])
    assert len(held) == 1 and not held & set(drawers[found.split == "train"])


def test_queries_search_a_gallery_where_the_splits_say_so(listed):
    folder, rows = listed
    parts = np.array(["train", "Query", "gallery"])[np.arange(24) % 3]
    rows = [row | {"split": part} for row, part in zip(rows, parts, strict=True)]
    found = read(write(folder, rows), split_by="official")
    test = found.only("test")
    assert test.is_query.tolist() == (parts == "Query")[found.split == "test"].tolist()
    assert test.sessions.tolist() == [rows[i]["group"] for i in np.flatnonzero(parts != "train")]
    assert read(write(folder, rows)).is_query is None
    alone = [row | {"split": row["split"].replace("Query", "test")} for row in rows]
    assert read(write(folder, alone), split_by="official").is_query is None
    alone[0]["split"] = "query"
    with pytest.raises(errors.InputError, match=r"there are queries, a gallery and \['test'\]"):
        read(write(folder, alone), split_by="official")


def test_pairs_of_columns_say_what_a_query_leaves_out(listed):
    folder, rows = listed
    rows = [row | {"filmed": f"drawer {i % 5}"} for i, row in enumerate(rows)]
    pairs = (("group", "filmed"), ("kind", "kind"))
    found = read(write(folder, rows), columns=data.Columns(ignore=pairs))
    agree = [
        [asks["group"] == other["filmed"] and asks["kind"] == other["kind"] for other in rows]
        for asks in rows
    ]
    np.testing.assert_array_equal(
        found.query_groups[:, None] == found.reference_groups[None], np.array(agree)
    )
    assert np.any(agree) and not np.all(agree)
    with pytest.raises(errors.InputError, match=r"lacks the columns \['shop'\]"):
        read(write(folder, rows), columns=data.Columns(ignore=(("shop", "filmed"),)))


def test_validation_is_held_out_where_no_row_is_for_it(listed):
    folder, rows = listed
    rows = [row | {"split": "test" if row["split"] == "gallery" else "train"} for row in rows]
    found = read(write(folder, rows), split_by="official")
    assert (found.split == "test").sum() == 8 and 2 <= (found.split == "validation").sum() <= 4


def test_paths_are_relative_to_the_root(listed, tmp_path_factory):
    folder, rows = listed
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere, rows)
    with pytest.raises(errors.InputError, match="24 of 24 files are not there.* or the root"):
        read(path)
    found = read(path, root=str(folder))
    assert data.fingerprints(found) == data.fingerprints(read(write(folder, rows)))
    absolute = [row | {"path": str(folder / row["path"])} for row in rows]
    assert len(read(write(elsewhere, absolute))) == 24


EDGES = ("x1", "y1", "x2", "y2")


def boxed(folder, *boxes, name="scene.jpg"):
    """A table of parts of one picture, whose left half is black and whose right half is white."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 48:] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be shown upright, it is turned to the right
    picture = PIL.Image.fromarray(np.rot90(pixels))
    picture.save(folder / name, exif=exif, quality=95)
    rows = [
        {"path": name, "label": str(number % 2)} | dict(zip(EDGES, box, strict=True))
        for number, box in enumerate(boxes)
    ]
    return write(folder, rows)


@pytest.mark.parametrize("name", ["scene.jpg", "scene.tif"])
def test_a_box_is_the_part_of_the_upright_picture_that_is_read(tmp_path, name):
    left, right = (0, 0, 40, 64), (56, 0, 96, 64)
    path = boxed(tmp_path, left, right, (8, 0, 88, 64), name=name)
    found = read(path, columns=data.Columns(box=EDGES))
    assert [name.partition("#")[2] for name in found.names] == [
        "0,0,40,64",
        "56,0,96,64",
        "8,0,88,64",
    ]
    dark, bright, both = images.load(found.inputs)
    assert dark.max() < 8
    assert bright.min() > 247
    assert both[:, 0].max() < 8
    assert both[:, -1].min() > 247
    digests = {found.inputs.digest(position) for position in range(3)}
    assert len(digests) == 3
    np.testing.assert_array_equal(found.inputs[np.array([1])][0], bright)
    np.testing.assert_array_equal(found.inputs.whole()[1], bright)
    np.testing.assert_array_equal(found.inputs.turned(np.array([1, 1, 1]))[2], np.rot90(both))


@pytest.mark.parametrize(
    ("boxes", "edges", "message"),
    [
        ([(0, 0, 97, 64)], EDGES, r"the box \(0, 0, 97, 64\) .* which is 96 x 64"),
        ([(40, 0, 40, 64)], EDGES, "within the image"),
        ([("a", 0, 40, 64)], EDGES, "row 1 has the box .* whole numbers"),
        ([(-1, 0, 40, 64)], EDGES, "whole numbers"),
        ([(0, 0, 40, 64)], EDGES[:3], "must name four columns"),
        ([(0, 0, 40, 64)], (*EDGES[:3], "y3"), r"lacks the columns \['y3'\]"),
        ([(0, 0, 9, 9), (0, 0, 9, 9)], EDGES, "more than once"),
    ],
)
def test_a_box_that_makes_no_sense_is_refused(tmp_path, boxes, edges, message):
    path = boxed(tmp_path, *boxes)
    with pytest.raises(errors.InputError, match=message):
        read(path, columns=data.Columns(box=edges))


def test_files_that_are_lost_or_no_images_are_refused_or_left_out(listed):
    folder, rows = listed
    (folder / rows[3]["path"]).unlink()
    with pytest.raises(errors.InputError, match="1 of 24 files are not there.*3.png"):
        read(write(folder, rows))
    (folder / rows[5]["path"]).write_text("no image")
    found = read(write(folder, rows), bad_images="skip")
    assert found.names.tolist() == [row["path"] for i, row in enumerate(rows) if i not in (3, 5)]
    assert found.notes[-1].endswith("table.csv: 2 images: 'pictures/3.png', 'pictures/5.png'")
    (folder / rows[3]["path"]).write_text("no image")
    with pytest.raises(errors.InputError, match="2 of 24 files cannot be read as images"):
        read(write(folder, rows))


def test_a_file_whose_name_is_too_long_is_not_there(listed):
    folder, rows = listed
    rows[3]["path"] = "a caption in the column of paths " * 10
    path = write(folder, rows)
    with pytest.raises(errors.InputError, match="1 of 24 files are not there.*a caption"):
        read(path)
    assert len(read(path, bad_images="skip")) == 23


@pytest.mark.parametrize(
    "change, split_by, message",
    [
        ({3: {"label": ""}}, "image", "1 of 24 rows have an empty 'label', first row 4"),
        ({3: {"path": "pictures/9.png"}}, "image", "lists 1 files more than once, such as"),
        ({3: {"path": "./pictures/x/../9.png"}}, "image", "such as '.*/x/../9.png', 'pictures/9.p"),
        (
            {3: {"split": "dev"}},
            "official",
            "there are examples of the splits 'dev'; splits are called train",
        ),
        ({3: {"kind": "A"}}, "image", "1 classes have more than one category, such as '03'"),
        ({}, "group or so", "split_by='group or so' is not known"),
        ({i: {"split": "train"} for i in range(24)}, "official", "nothing for the split 'test'"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(listed, change, split_by, message):
    folder, rows = listed
    path = write(folder, [row | change.get(i, {}) for i, row in enumerate(rows)])
    with pytest.raises(errors.InputError, match=message):
        read(path, split_by=split_by, columns=data.Columns(category="kind"))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("table.xlsx", b"", r"must be a \.csv, \.tsv or \.parquet file"),
        ("table.csv", b"path,label\n\xe9.png,a\n", "cannot be read as a table in UTF-8"),
        ("table.csv", b"path,label\na.png\n", "row 1 has another number of cells than the 2"),
        ("table.csv", b"path,label\na.png,b,c\n", "row 1 has another number of cells"),
        ("table.csv", b"path,label\n", "has no rows"),
        ("table.csv", b"path,label,label\na.png,b,c\n", r"the columns \['label'\] more than once"),
        ("table.csv", b"", r"lacks the columns \['path', 'label'\]; it has \[\]"),
        ("table.parquet", b"PAR1", "cannot be read as a Parquet file"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(errors.InputError, match=message):
        read(str(tmp_path / name))


@pytest.mark.parametrize("split_by", ["image", "class", "group"])
def test_a_table_without_a_readable_image_is_refused(listed, split_by):
    folder, rows = listed
    for row in rows:
        (folder / row["path"]).write_text("no image")
    with pytest.raises(errors.InputError, match=r"table\.csv' holds no image that can be read"):
        read(write(folder, rows), split_by=split_by, bad_images="skip")


def test_a_table_that_may_not_be_read_is_named(listed, monkeypatch):
    path = write(*listed)

    def refusing(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refusing)
    with pytest.raises(errors.InputError, match=r"table\.csv' cannot be read: Permission denied"):
        read(path)


def test_a_column_of_parquet_that_is_there_twice_is_refused(tmp_path):
    parquet, pyarrow = map(pytest.importorskip, ("pyarrow.parquet", "pyarrow"))
    twice = pyarrow.table([["a.png"], ["b"], ["c"]], names=["path", "label", "label"])
    parquet.write_table(twice, tmp_path / "table.parquet")
    with pytest.raises(errors.InputError, match=r"has the columns \['label'\] more than once"):
        read(str(tmp_path / "table.parquet"))


def test_nan_is_an_empty_cell(listed):
    folder, rows = listed
    numbers = [row | {"label": float("nan") if i == 3 else 1.0} for i, row in enumerate(rows)]
    with pytest.raises(errors.InputError, match="1 of 24 rows have an empty 'label', first row 4"):
        read(write_parquet(folder, numbers))


def test_real_photographs_with_their_table():
    folder = pathlib.Path(os.environ.get("SHARED_DATA", "nowhere"), "grocery")
    if not folder.is_dir():
        pytest.skip("SHARED_DATA names no folder with the grocery photographs")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    some = [row for row in rows if row["label"] in ("Anjou", "Conference", "Leek")]
    found = read(
        str(folder / "labels.csv"),
        split_by="official",
        columns=data.Columns(category="category"),
        form=images.ImageForm(size=8, channels=3),
        bad_images="refuse",
    )
    assert len(found) == len(rows) == 3676 and len(found.class_names) == 50
    position = {name: i for i, name in enumerate(found.names)}
    for row in some:
        i = position[row["path"]]
        assert found.class_names[found.labels[i]] == row["label"]
        assert found.split[i] == row["split"]
    anjou, conference, leek = (
        found.groups[found.class_names.index(c)] for c in ("Anjou", "Conference", "Leek")
    )
    assert anjou == conference != leek
