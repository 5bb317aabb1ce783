"""Which files a folder holds, and their classes: links, loops, nesting, and names of odd bytes."""

import os
import pathlib
import tempfile

import ml_collections
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import embed
from experiments.run import embedders
from triplet_jax import data, errors
from triplet_jax.data import file_names
from triplet_jax.data.folder_layout import Layout, layout_of
from triplet_jax.data.folder_listing import find
from triplet_jax.data.images import ImageForm, load

FORM = ImageForm(size=4, channels=1)
SPLIT = {"split_by": "image", "held_out": data.HeldOut(0.25, 0.25, seed=0)}


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("L", (4, 4), value).save(path, "PNG")


def pictures(root, *names):
    for name in names:
        picture(root / name)


def found(root, **layout):
    """The names of the files, from the top, with their classes."""
    listing = find(root, Layout(**layout))
    return {str(f.path.relative_to(root)): f.label for f in listing.files}


def reasons(root):
    listing = find(root, Layout())
    return {str(one.path.relative_to(root)): (one.why, one.is_lost) for one in listing.passed_over}


def fold(root, **changes):
    return data.folder(str(root), form=FORM, **({"bad_images": "refuse"} | SPLIT | changes))


# -- links


def test_linked_classes_and_linked_files_are_read_by_every_program(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    pictures(outside, "cats/0.png", "cats/1.png", "elsewhere/2.png")
    pictures(root, "dog/0.png")
    (root / "cat").symlink_to(outside / "cats")
    (root / "dog" / "1.png").symlink_to(outside / "elsewhere" / "2.png")
    (root / "dog" / "more").symlink_to("../../outside/elsewhere")
    expected = {"cat/0.png": "cat", "cat/1.png": "cat", "dog/0.png": "dog", "dog/1.png": "dog"}
    assert found(root) == expected
    assert fold(root).class_names == ("cat", "dog")
    assert len(fold(root)) == 4
    assert reasons(root)["dog/more/2.png"][1] is False


def test_loops_end(tmp_path):
    pictures(tmp_path, "cat/0.png", "dog/0.png")
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "self").symlink_to(".")
    (tmp_path / "cat" / "to_dog").symlink_to("../dog/back")
    (tmp_path / "dog" / "back").symlink_to("../cat/to_dog")
    (tmp_path / "dog" / "whole_disk").symlink_to("/")
    assert set(found(tmp_path)) == {"cat/0.png", "dog/0.png"}
    told = reasons(tmp_path)
    for name in ("cat/up", "cat/self", "dog/whole_disk"):
        assert told[name] == ("is a link to a folder that it lies in", False)
    assert told["cat/to_dog"][1] and "symbolic links" in told["cat/to_dog"][0]


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    pictures(tmp_path, "cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png")
    (tmp_path / "dog" / "gone.png").symlink_to("no_such_file.png")
    with pytest.raises(errors.InputError, match="gone.png is a link to no_such_file.png: which"):
        fold(tmp_path)
    skipping = fold(tmp_path, bad_images="skip")
    assert len(skipping) == 4
    assert "gone.png is a link to no_such_file.png" in skipping.notes[0]


def test_a_loop_through_a_linked_folder_ends(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    pictures(tmp_path, "outside/1.png", "root/cat/0.png")
    (root / "cat" / "more").symlink_to(outside)
    (outside / "back").symlink_to(root / "cat")
    assert set(found(root)) == {"cat/0.png", "cat/more/1.png"}
    assert reasons(root) == {"cat/more/back": ("is a link to a folder that it lies in", False)}


def test_pipes_and_links_to_them_are_named_and_never_opened(tmp_path):
    pictures(tmp_path, "cat/0.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "link.png").symlink_to("pipe.png")
    assert set(found(tmp_path)) == {"cat/0.png"}
    no_file = ("is no regular file", False)
    assert reasons(tmp_path) == {"cat/pipe.png": no_file, "cat/link.png": no_file}


def test_a_link_in_no_class_folder_is_a_loose_file(tmp_path):
    pictures(tmp_path / "outside", "1.png")
    pictures(tmp_path / "root", "cat/0.png")
    (tmp_path / "root" / "loose.png").symlink_to(tmp_path / "outside" / "1.png")
    assert found(tmp_path / "root") == {"cat/0.png": "cat", "loose.png": ""}


def test_a_file_of_several_names_comes_once(tmp_path):
    pictures(tmp_path, "cat/5.png")
    (tmp_path / "cat" / "1.png").symlink_to("5.png")
    (tmp_path / "cat" / "9.png").symlink_to("1.png")
    assert found(tmp_path) == {"cat/5.png": "cat"}, "its own place comes before links to it"
    assert not any(lost for _, lost in reasons(tmp_path).values())
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "1.png").symlink_to("../cat/5.png")
    with pytest.raises(errors.InputError, match="all/1.png is another name of .*cat/5.png, which"):
        fold(tmp_path)
    assert fold(tmp_path, bad_images="skip").class_names == ("cat",)


def test_one_folder_under_two_classes_is_refused(tmp_path):
    pictures(tmp_path, "cat/0.png")
    (tmp_path / "kitten").symlink_to("cat")
    with pytest.raises(errors.InputError, match="kitten is another name of .*cat, which"):
        fold(tmp_path)


def test_classes_of_links_to_loose_files_keep_their_files(tmp_path):
    pictures(tmp_path, "0.png", "1.png", "2.png")
    for name, file in (("cat", "0.png"), ("dog", "1.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).symlink_to(f"../{file}")
    assert found(tmp_path) == {"cat/0.png": "cat", "dog/1.png": "dog", "2.png": ""}
    dataset = fold(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert "2.png lies in no class folder" in dataset.notes[0]


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    pictures(tmp_path, "cat/0.png", "dog/0.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert reasons(tmp_path) == {"dog": ("cannot be listed: Permission denied", True)}


def test_a_whole_folder_that_may_not_be_listed_is_refused(tmp_path, monkeypatch):
    pictures(tmp_path, "cat/0.png", "dog/0.png")

    def refusing(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(errors.InputError, match="^path='.*' cannot be listed: Permission denied"):
        fold(tmp_path)


# -- classes


@pytest.mark.parametrize(
    ("layout", "name", "place"),
    [
        ({}, "1.png", ("", "", "")),
        ({}, "cat/1.png", ("", "cat", "")),
        ({}, "cat/monday/1.png", ("", "cat", "monday")),
        ({}, "cat/monday/left/1.png", ("", "cat", "monday")),
        ({"class_level": 2}, "cat/tabby/1.png", ("", "cat/tabby", "")),
        ({"class_level": 2}, "cat/tabby/monday/1.png", ("", "cat/tabby", "monday")),
        ({"class_level": 2}, "cat/1.png", ("", "cat", "")),
        ({"has_splits": True}, "train/cat/1.png", ("train", "cat", "")),
        ({"has_splits": True}, "train/cat/monday/1.png", ("train", "cat", "monday")),
        ({"has_splits": True}, "train/1.png", ("train", "", "")),
    ],
)
def test_the_place_of_a_file(layout, name, place):
    assert Layout(**layout).place(pathlib.PurePath(name)) == place


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "dog"], False),
        (["train", "val"], True),
        (["Training", "Testing"], True),
        (["query", "gallery"], True),
        (["train", "test", "extra"], True),
        (["train", "bus", "car"], False),  # a vehicle
        (["train"], True),
        ([], False),
    ],
)
def test_first_folders_are_splits_where_they_are_called_so(names, expected, tmp_path):
    for name in names:
        (tmp_path / name).mkdir()
    assert layout_of(tmp_path).has_splits is expected


def many(root, *folders, images=4):
    pictures(root, *(f"{folder}/{i}.png" for folder in folders for i in range(images)))


@pytest.mark.parametrize("by", ["image", "class", "group"])
def test_folders_of_splits_are_never_trained_on_as_classes(by, tmp_path):
    many(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    with pytest.raises(errors.InputError) as refused:
        fold(tmp_path, split_by=by)
    assert "'train', 'val'" in str(refused.value)
    assert "split_by='official'" in str(refused.value)


def test_official_splits_are_those_of_the_folders(tmp_path):
    many(tmp_path, "Train/cat", "Train/dog", "test/cat", "test/emu", "valid/cat")
    found = fold(tmp_path, split_by="official")
    assert found.class_names == ("cat", "dog", "emu")
    expected = {"Train": "train", "test": "test", "valid": "validation"}
    assert [expected[name.split("/")[0]] for name in found.names] == list(found.split)
    assert [found.class_names[i] for i in found.labels] == [n.split("/")[1] for n in found.names]
    run = tmp_path / ".run"
    run.mkdir()
    (run / "config.json").write_text('{"dataset": {"name": "folder", "split_by": "official"}}')
    listed = embedders.find(run, tmp_path)
    assert [file.label for file in listed.files] == [found.class_names[i] for i in found.labels]
    inside = embedders.find(run, tmp_path / "test")
    assert [file.label for file in inside.files] == ["cat"] * 4 + ["emu"] * 4


@pytest.mark.parametrize("new", [False, True])
def test_validation_is_held_out_of_official_training(new, tmp_path):
    classes = "abcdefgh"
    tested = "xyz" if new else classes
    many(tmp_path, *(f"train/{c}" for c in classes))
    many(tmp_path, *(f"{part}/{c}" for part in ("query", "gallery") for c in tested), images=2)
    found = fold(tmp_path, split_by="official")
    assert [(found.split == s).sum() for s in data.SPLITS] == [24, 8, 4 * len(tested)]
    held = set(found.labels[found.split == "validation"])
    assert len(held) == (2 if new else 8)
    assert bool(held & set(found.labels[found.split == "train"])) is not new


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog"], "takes the first folders for splits, which may be called train"),
        (["train/cat", "test/cat", "extra/cat"], "there are 'extra', 'test', 'train'"),
        (["train/cat"], "there is nothing for the split 'test', only for 'train'"),
        (["query/cat", "gallery/cat"], "there is nothing for the split 'train'"),
    ],
)
def test_official_splits_that_are_not_there_are_refused(names, message, tmp_path):
    many(tmp_path, *names)
    with pytest.raises(errors.InputError, match=message):
        fold(tmp_path, split_by="official")


def test_the_same_file_in_training_and_test_is_refused(tmp_path):
    many(tmp_path, "train/cat", "test/cat")
    (tmp_path / "test" / "cat" / "x.png").symlink_to("../../train/cat/0.png")
    with pytest.raises(errors.InputError, match="test/cat/x.png is another name of"):
        fold(tmp_path, split_by="official")


def test_sessions_stand_on_one_side_of_a_split(tmp_path):
    many(tmp_path, *(f"{c}/{s}" for c in ("cat", "dog") for s in ("mon", "tue", "wed", "thu")))
    found = fold(tmp_path, split_by="group")
    assert found.class_names == ("cat", "dog")
    sessions = np.array([name.split("/")[1] for name in found.names])
    assert [len(set(sessions[found.split == s])) for s in data.SPLITS] == [2, 1, 1]
    picture(tmp_path / "cat" / "x.png")
    with pytest.raises(errors.InputError, match="1 of 33 images lie in none, such as .*x.png"):
        fold(tmp_path, split_by="group")


def test_class_folders_that_hold_folders_alone_are_named(tmp_path):
    many(tmp_path, "pets/cat", "pets/dog", "wild/emu")
    found = fold(tmp_path)
    assert found.class_names == ("pets", "wild")
    assert "the folders 'pets', 'wild' are taken for classes" in found.notes[0]
    assert "no images, only the folders 'cat', 'dog', 'emu'" in found.notes[0]
    assert "class_level=2" in found.notes[0]
    assert found.groups is None
    deeper = fold(tmp_path, class_level=2)
    of_classes = [name.split("/")[0] for name in deeper.class_names]
    np.testing.assert_array_equal(np.array(sorted(set(of_classes)))[deeper.groups], of_classes)
    assert deeper.class_names == ("pets/cat", "pets/dog", "wild/emu")
    assert deeper.notes == ()
    with pytest.raises(errors.InputError, match="'pets' are taken for classes.*class_level=2"):
        (tmp_path / "wild").rename(tmp_path / ".wild")
        fold(tmp_path)


# -- names that are not UTF-8

ODD = b"caf\xe9"


def odd_pictures(root):
    name = os.fsdecode(ODD)
    pictures(root, f"{name}/{name}.png", f"{name}/1.png", "tea/0.png", "tea/1.png")
    return name


def test_names_that_are_not_utf8_are_listed_read_and_written(tmp_path, capsys):
    name = odd_pictures(tmp_path / "root")
    dataset = fold(tmp_path / "root")
    assert dataset.class_names == (r"caf\xe9", "tea")
    assert load(dataset.inputs).shape == (4, 4, 4, 1)
    listing = find(tmp_path / "root", Layout())
    embed.write(tmp_path / "out.npz", listing.files, np.zeros((4, 2)))
    with np.load(tmp_path / "out.npz") as saved:
        assert list(saved["labels"]) == [r"caf\xe9"] * 2 + ["tea"] * 2
        print(*saved["paths"])
        assert [file_names.from_text(p) for p in saved["paths"]] == list(map(str, listing.paths))
    capsys.readouterr().out.encode()
    (tmp_path / "root" / name / "x.png").write_text("no image")
    with pytest.raises(errors.InputError) as refused:
        fold(tmp_path / "root")
    assert r"caf\xe9/x.png" in str(refused.value).encode().decode()


@given(
    st.lists(st.sampled_from([b"a", b"\\", b"x", b"e9", b"\xe9", b"\xc3\xa9", b"/"])).map(b"".join)
)
def test_a_name_comes_back_from_its_text(name):
    path = os.fsdecode(name)
    text = file_names.to_text(path)
    assert file_names.from_text(text) == path
    assert text.encode().decode() == text
    if (
        b"\\" not in name
        and "\xe9".encode() in name
        and b"\xe9" not in name.replace(b"\xc3\xa9", b"")
    ):
        assert text == path


# -- any folder

NAMES = st.sampled_from([b"a", b"b", b".hidden", b"it's", "\u00e9".encode(), b"caf\xe9", b"x\\xe9"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: b"/".join(parts))


@settings(max_examples=60, deadline=None)
@given(
    files=st.sets(PATHS, max_size=6),
    links=st.lists(st.tuples(PATHS, PATHS, st.sampled_from([b"", b".png"])), max_size=6),
    level=st.integers(1, 2),
)
def test_every_program_lists_the_same(files, links, level):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder, "root")
        pictures(root, "y/0.png", "z/0.png")  # two classes there are in any case
        for name in sorted(files):
            make(root / os.fsdecode(name + b".png"), picture)
        for name, target, suffix in links:
            to = root / os.fsdecode(target + suffix)
            make(root / os.fsdecode(name + suffix), lambda path, to=to: path.symlink_to(to))
        compare_programs(root, level)


def make(path, write):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError:  # a name is taken, by a file or a link
        return


def compare_programs(root, level):
    run = root.parent / "run"
    run.mkdir()
    config = ml_collections.ConfigDict({"dataset": {"name": "folder", "class_level": level}})
    (run / "config.json").write_text(config.to_json())
    listed = embedders.find(run, root)
    real = [os.path.realpath(path) for path in listed.paths]
    assert len(set(real)) == len(real), "a file came twice"
    assert not any(part[0] == "." for p in listed.paths for part in p.relative_to(root).parts)
    # Every file of its own is there, whatever links there are beside it.
    own = {p for p in root.rglob("*") if p.is_file() and not p.is_symlink()}
    visible = {p for p in own if not any(s[0] == "." for s in p.relative_to(root).parts)}
    assert {os.path.realpath(p) for p in visible} <= set(real)
    classes = {file.path: file.label for file in listed.files if file.label}
    trained = fold(root, class_level=level, bad_images="skip")
    assert [trained.class_names[i] for i in trained.labels] == list(classes.values())
    assert trained.inputs._encoded == list(map(str, classes))
