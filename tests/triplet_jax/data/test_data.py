import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import prepared
from triplet_jax import data, errors
from triplet_jax.data import images, splits

FORM = images.ImageForm(size=8, channels=3)
SPLIT = {"split_by": "image", "held_out": data.HeldOut(0.25, 0.25, seed=0)}


def save_image(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


@pytest.fixture
def class_folders(tmp_path):
    for c, name in enumerate(("cat", "dog", "emu")):
        for i in range(4):
            save_image(tmp_path / name / f"{i}.{'png' if i % 2 else 'jpg'}", 80 * c)
    return tmp_path


def fold(path, bad_images="refuse", **changes):
    return data.folder(str(path), form=FORM, bad_images=bad_images, **(SPLIT | changes))


# -- splits


@pytest.mark.parametrize("by", ["image", "class", "group"])
def test_hold_out_takes_whole_units(by):
    labels = np.repeat(np.arange(10), 20)
    groups = np.arange(10) // 2
    held = data.hold_out(labels, 0.4, by=by, seed=0, groups=groups)
    assert held.sum() == 80
    if by == "image":
        assert (np.bincount(labels[held]) == 8).all()
    else:
        assert len(set(labels[held])) == 4
        assert not set(labels[held]) & set(labels[~held])
    if by == "group":
        assert len(set(groups[labels[held]])) == 2


def test_hold_out_by_image_leaves_one_of_every_class():
    labels = np.array([0, 1, 1, 2, 2, 2])
    held = data.hold_out(labels, 0.9, by="image", seed=0)
    assert np.bincount(labels[held], minlength=3).tolist() == [0, 1, 2]


def test_hold_out_depends_on_the_seed_alone():
    labels = np.repeat(np.arange(10), 20)
    first, again, other = (data.hold_out(labels, 0.5, by="image", seed=s) for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_no_group_stands_on_both_sides_of_a_split(pairs, test_fraction, validation_fraction):
    labels, groups = np.array(pairs).T
    names = np.array([f"session {g}" for g in groups])
    held_out = data.HeldOut(test_fraction, validation_fraction, seed=3)
    split = splits.of_groups(labels, names, held_out)
    for g in range(9):
        assert len(set(split[groups == g])) <= 1
    assert set(labels[split == "train"]) == set(labels), "training has every class"
    if not test_fraction:
        assert "test" not in split


@pytest.mark.parametrize("shared", [False, True])
def test_groups_are_held_out_of_every_class(shared):
    labels = np.repeat(np.arange(10), 50)
    sessions = np.tile(np.repeat(np.arange(10), 5), 10)
    groups = sessions if shared else sessions + 10 * labels
    held_out = data.HeldOut(0.2, 0.1, seed=0)
    split = splits.of_groups(labels, groups, held_out)
    for c in range(10):
        counts = [(split[labels == c] == name).sum() for name in data.SPLITS]
        assert counts == [35, 5, 10]
    again, other = (
        splits.of_groups(labels, groups, held_out._replace(seed=seed)) for seed in (0, 1)
    )
    assert (again == split).all() and (other != split).any()


# -- digits


def test_digits_are_the_real_ones():
    digits = data.digits(data.HeldOut(0.3, 0.1, seed=0))
    assert digits.inputs.shape == (1797, 8, 8, 1)
    assert digits.inputs.dtype == np.uint8
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 255)
    assert digits.class_names == tuple("0123456789")
    sizes = {split: len(digits.only(split)) for split in data.SPLITS}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] == pytest.approx(0.3 * 1797, abs=6)
    assert sizes["validation"] == pytest.approx(0.1 * 1797, abs=6)
    for split in data.SPLITS:
        assert len(set(digits.only(split).labels)) == 10


# -- images


def test_an_image_is_scaled_and_its_middle_cut_out():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 200
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "png")
    found = images.ImageForm(size=10, channels=1).read(file.getvalue())
    assert found.shape == (10, 10, 1)
    assert (found[:, 1:-1] == 200).all()
    inverted = images.ImageForm(size=10, channels=1, invert=True).read(file.getvalue())
    assert (inverted == 255 - found).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_can_be_read(mode, tmp_path):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        PIL.Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(path)
    else:
        PIL.Image.new(mode, (9, 9)).save(path)
    assert FORM.read(str(path)).shape == (8, 8, 3)


def test_images_are_selected_and_turned_without_being_read(class_folders):
    everything = fold(class_folders).inputs
    some = everything[np.array([5, 0])]
    assert len(some) == 2
    np.testing.assert_array_equal(some[0], everything[5])
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    PIL.Image.fromarray(pixels).save(class_folders / "corner.png")
    corner = images.Images([str(class_folders / "corner.png")], FORM)
    turned = corner.turned(np.array([3]))
    np.testing.assert_array_equal(images.load(turned), np.rot90(pixels, 3)[None])


# -- folder


def test_a_folder_has_a_class_for_each_folder(class_folders):
    found = fold(class_folders)
    assert found.class_names == ("cat", "dog", "emu")
    np.testing.assert_array_equal(np.bincount(found.labels), [4, 4, 4])
    assert images.load(found.inputs).shape == (12, 8, 8, 3)
    assert [len(found.only(split)) for split in data.SPLITS] == [6, 3, 3]
    means = images.load(found.inputs).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 80 * found.labels, atol=2)


def test_files_that_are_no_images_are_listed_and_refused(class_folders):
    (class_folders / "cat" / "notes.txt").write_text("hello")
    (class_folders / "dog" / "broken.png").write_bytes(b"\x89PNG not really")
    whole = (class_folders / "emu" / "0.jpg").read_bytes()
    (class_folders / "emu" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.InputError) as refused:
        fold(class_folders)
    message = str(refused.value)
    assert "3 of 15 files cannot be read" in message
    assert all(name in message for name in ("notes.txt", "broken.png", "cut.jpg"))
    assert "bad_images='skip'" in message
    assert len(fold(class_folders, bad_images="skip")) == 12


def test_an_image_of_another_kind_is_given_to_no_program(tmp_path, monkeypatch):
    """Pillow has PostScript drawn by Ghostscript, whatever the file is named."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = tmp_path / "images" / "cat" / "x.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    for read in (lambda: fold(tmp_path / "images"), lambda: FORM.read(str(file))):
        with pytest.raises(errors.InputError, match="none of JPEG, PNG"):
            read()
    assert not (tmp_path / "was_run").exists()


def test_hidden_files_are_passed_over(class_folders):
    (class_folders / "cat" / ".DS_Store").write_text("")
    (class_folders / ".git").mkdir()
    copies = class_folders / "cat" / ".ipynb_checkpoints"
    copies.mkdir()
    shutil.copy(class_folders / "cat" / "0.jpg", copies / "0-checkpoint.jpg")
    assert len(fold(class_folders)) == 12


@pytest.mark.parametrize("where", ["", "missing", "empty"])
def test_folders_without_images_are_refused(where, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError, match="path="):
        fold(tmp_path / where if where else "")


# -- marks


def test_marks_are_those_of_the_data_and_not_of_their_place(class_folders, tmp_path_factory):
    before = fold(class_folders)
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.copytree(class_folders, moved)
    assert data.fingerprint(fold(moved)) == data.fingerprint(before)
    assert data.fingerprints(fold(moved)) == data.fingerprints(before)


def test_the_mark_of_a_split_changes_with_that_split_alone(class_folders):
    found = fold(class_folders)
    marks = data.fingerprints(found)
    assert sorted(marks) == sorted(data.SPLITS) and len(set(marks.values())) == 3
    test = np.flatnonzero(found.split == "test")

    def changed(**fields):
        now = data.fingerprints(dataclasses.replace(found, **fields))
        return [split for split in data.SPLITS if now[split] != marks[split]]

    relabelled = found.labels.copy()
    relabelled[test[0]] = (relabelled[test[0]] + 1) % 3
    assert changed(labels=relabelled) == ["test"]
    renamed = found.names.copy()
    renamed[test[0]] = "x.png"
    assert changed(names=renamed) == ["test"]
    pixels = images.load(found.inputs).copy()
    pixels[test[1]] ^= 1
    assert changed(inputs=pixels) == ["test"]
    # A class that comes first in the alphabet gives the others new numbers.
    more = ("ant", *found.class_names)
    assert changed(class_names=more, labels=found.labels + 1) == []
    without_one = np.delete(np.arange(len(found)), test[0])
    now = data.fingerprints(found.take(without_one))
    assert [split for split in data.SPLITS if now[split] != marks[split]] == ["test"]


def test_the_mark_of_the_training_examples_is_that_of_runs_made_before(tmp_path):
    """Its value is written into every run, and a run goes on only where it is the same."""
    x = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    split = np.array(["train", "test", "train", "train", "validation", "train"])
    labels = np.array([0, 0, 1, 1, 0, 1], np.int32)
    found = data.Dataset(x, labels, split, ("a", "b"))
    expected = hashlib.sha256(b"(2, 2, 1) ('a', 'b')")
    expected.update(np.array([0, 2, 3, 5], "<i8").tobytes())
    expected.update(np.array([0, 1, 1, 1], "<i8").tobytes())
    expected.update(x[[0, 2, 3, 5]].tobytes())
    assert data.fingerprint(found) == expected.hexdigest()


# -- arrays


def save_arrays(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def test_arrays_hold_features_or_images(tmp_path):
    y = np.repeat([10, 30], 8)
    features = data.arrays(save_arrays(tmp_path, x=np.ones((16, 5)), y=y), **SPLIT)
    assert features.inputs.dtype == np.float32
    assert features.class_names == ("10", "30")
    assert set(features.labels) == {0, 1}
    pixels = np.zeros((16, 6, 6, 1), np.uint8)
    assert data.arrays(save_arrays(tmp_path, x=pixels, y=y), **SPLIT).input_shape == (6, 6, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.ones((4, 2)), "y": np.zeros(4, int)}, r"lacks \['x'\]"),
        ({"x": np.ones((4, 2)), "y": np.zeros(4)}, "y has shape .4,. and dtype float64"),
        ({"x": np.ones((4, 2)), "y": np.zeros(3, int)}, "one for each of the 4 rows"),
        ({"x": np.ones((4, 2)), "y": np.zeros((4, 1), int)}, r"y .*.4, 1. .* x has shape .4, 2."),
        ({"x": np.ones((4, 2)), "y": np.array(["a"] * 3)}, r"y has shape .3,. and dtype <U1"),
        ({"x": np.ones((4, 2, 2)), "y": np.zeros(4, int)}, "x has shape .4, 2, 2."),
        ({"x": np.ones((4, 2, 2, 2), np.uint8), "y": np.zeros(4, int)}, "x has shape"),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.zeros(2, int)}, "first is row 1"),
        ({"x": np.array([[1e39], [1.0]]), "y": np.zeros(2, int)}, "first is row 0"),
        ({"x": np.array([{}, {}]), "y": np.zeros(2, int)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message, tmp_path):
    with pytest.raises(errors.InputError, match=message):
        data.arrays(save_arrays(tmp_path, **arrays), **SPLIT)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["emu", "cat"] * 8), ("cat", "emu")),
        (np.array([b"caf\xc3\xa9", b"tea"] * 8), ("caf\u00e9", "tea")),
        (np.array([True, False] * 8), ("False", "True")),
        (np.array([2**31 - 1, -5] * 8, ">i8"), ("-5", "2147483647")),
    ],
)
def test_labels_of_arrays_are_compared_and_nothing_else(y, names, tmp_path):
    found = data.arrays(save_arrays(tmp_path, x=np.ones((16, 5)), y=y), **SPLIT)
    assert found.class_names == names
    first = np.unique(y, return_inverse=True)[1]
    np.testing.assert_array_equal(found.labels, first)
    assert sorted(found.split) == ["test"] * 4 + ["train"] * 8 + ["validation"] * 4


def test_arrays_are_split_by_their_groups(tmp_path):
    y, group = np.repeat([0, 1], 12), np.tile(np.repeat(["a", "b", "c", "d"], 3), 2)
    by_group = SPLIT | {"split_by": "group"}
    path = save_arrays(tmp_path, x=np.arange(24.0)[:, None], y=y, group=group)
    found = data.arrays(path, **by_group)
    assert [len(set(group[found.split == split])) for split in data.SPLITS] == [2, 1, 1]
    lacking = save_arrays(tmp_path, x=np.ones((24, 1)), y=y)
    with pytest.raises(errors.InputError, match=r"lacks \['group'\]"):
        data.arrays(lacking, **by_group)
    short = save_arrays(tmp_path, x=np.ones((24, 1)), y=y, group=group[:5])
    with pytest.raises(errors.InputError, match=r"group has shape .5,."):
        data.arrays(short, **by_group)
    single = save_arrays(tmp_path, x=np.ones((24, 1)), y=y, group=y)
    with pytest.raises(errors.InputError, match="can hold out none of the 2 groups"):
        data.arrays(single, **by_group)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", pickle.dumps(Bomb())])
def test_files_that_are_no_npz_are_refused_and_not_run(content, tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match="cannot be read as an .npz"):
        data.arrays(str(path), **SPLIT)


# -- quarter turns


def test_quarter_turns_are_new_classes(class_folders):
    lazy = fold(class_folders)
    eager = dataclasses.replace(lazy, inputs=images.load(lazy.inputs))
    turned, same = map(data.quarter_turns_as_classes, (eager, lazy))
    assert len(turned) == 48
    assert len(turned.class_names) == 12
    assert turned.class_names[4] == "dog turned 90"
    np.testing.assert_array_equal(turned.labels[12:24], eager.labels + 3)
    np.testing.assert_array_equal(turned.inputs[12], np.rot90(eager.inputs[0]))
    np.testing.assert_array_equal(images.load(same.inputs), turned.inputs)


# -- tensorflow-datasets


OMNIGLOT = {"split_by": "official", "held_out": data.HeldOut(0.0, 0.1, seed=0)}


def test_omniglot_has_unseen_classes_and_whole_alphabets(omniglot_dir):
    form = images.ImageForm(size=28, channels=1, invert=True)
    found = data.from_tfds("omniglot", data_dir=omniglot_dir, form=form, **OMNIGLOT)
    train, validation, test = (found.only(split) for split in data.SPLITS)
    assert len(found) == 32460
    assert (len(test), len(set(test.labels))) == (13180, 659)
    assert len(set(train.labels)) + len(set(validation.labels)) == 964
    assert not set(train.labels) & set(validation.labels)
    alphabets = [set(found.groups[part.labels]) for part in (train, validation, test)]
    assert [len(a) for a in alphabets] == [27, 3, 20]
    assert not alphabets[0] & alphabets[1]
    pixels = images.load(test.inputs[np.arange(50)])
    assert pixels.shape == (50, 28, 28, 1)
    # Light ink on dark, and little of it.
    assert 0.02 < pixels.mean() / 255 < 0.2


def test_omniglot_by_class_takes_the_second_half_for_the_test(omniglot_dir):
    form = images.ImageForm(size=28, channels=1)
    found = data.from_tfds(
        "omniglot", data_dir=omniglot_dir, form=form, **(OMNIGLOT | {"split_by": "class"})
    )
    assert set(found.only("test").labels) == set(range(811, 1623))


def test_data_that_were_not_prepared_come_with_the_command(tmp_path):
    with pytest.raises(errors.InputError, match="download_and_prepare") as refused:
        data.from_tfds("omniglot", data_dir=str(tmp_path), form=FORM, **OMNIGLOT)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("how", ["half", "short", "flipped", "empty", "gone"])
@pytest.mark.parametrize("name", ["omniglot-test.array_record-00000-of-00001", "dataset_info.json"])
def test_damaged_files_of_a_prepared_data_set_are_refused(name, how, tmp_path):
    file = prepared.omniglot(tmp_path) / name
    whole = file.read_bytes()
    half = len(whole) // 2
    if how == "gone":
        file.unlink()
    else:
        flipped = whole[:half] + bytes([whole[half] ^ 4]) + whole[half + 1 :]
        damaged = {"half": whole[:half], "short": whole[:-9], "flipped": flipped, "empty": b""}
        file.write_bytes(damaged[how])
    with pytest.raises(errors.InputError, match="download_and_prepare"):
        data.from_tfds("omniglot", data_dir=str(tmp_path), form=FORM, **OMNIGLOT)


def test_too_few_names_of_classes_are_refused(tmp_path):
    (prepared.omniglot(tmp_path) / "label.labels.txt").write_text("one\ntwo")
    with pytest.raises(errors.InputError, match="download_and_prepare"):
        data.from_tfds("omniglot", data_dir=str(tmp_path), form=FORM, **OMNIGLOT)


def test_a_small_omniglot_is_read_as_the_whole_one_is(tmp_path):
    prepared.omniglot(tmp_path)
    found = data.from_tfds("omniglot", data_dir=str(tmp_path), form=FORM, **OMNIGLOT)
    assert found.class_names[:2] == ("label 0", "label 1")
    np.testing.assert_array_equal(images.load(found.inputs)[:, 0, 0, 0], 40 * found.labels)
    np.testing.assert_array_equal(found.split == "test", found.labels >= 3)


def test_a_module_that_a_data_set_names_is_not_imported(tmp_path, monkeypatch):
    folder = prepared.omniglot(tmp_path)
    features = {"pythonClassName": "harmful.Feature", "featuresDict": {"features": {}}}
    (folder / "features.json").write_text(json.dumps(features))
    shutil.copytree(tmp_path / "omniglot", tmp_path / "shared")
    (tmp_path / "harmful.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shared", "omniglot:3.0.0", "omniglot:*.*.*"):
        with contextlib.suppress(errors.InputError):
            data.from_tfds(name, data_dir=str(tmp_path), form=FORM, **OMNIGLOT)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "name",
    ["", "a b", "../x", "omniglot[", "omniglot/evil", "omniglot:99.0.0", "huggingface:evil/x"],
)
def test_names_of_no_data_set_are_refused(name, tmp_path):
    with pytest.raises(errors.InputError, match="^name="):
        data.from_tfds(name, data_dir=str(tmp_path), form=FORM, **OMNIGLOT)


def test_unknown_data_sets_suggest_the_nearest(tmp_path):
    with pytest.raises(errors.InputError, match="Did you mean 'omniglot'"):
        data.from_tfds("omniglott", data_dir=str(tmp_path), form=FORM, **OMNIGLOT)
