"""The marks of a data set, and its quarter turns."""

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest

from tests.support.image_folders import fold
from triplet_jax import data, errors
from triplet_jax.data import images


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


def test_mirrored_images_are_new_classes_and_may_be_turned(class_folders):
    lazy = fold(class_folders)
    eager = dataclasses.replace(lazy, inputs=images.load(lazy.inputs))
    mirrored, same = map(data.mirrored_as_classes, (eager, lazy))
    assert len(mirrored) == 24
    assert mirrored.class_names[3:5] == ("cat mirrored", "dog mirrored")
    np.testing.assert_array_equal(mirrored.labels[12:], eager.labels + 3)
    np.testing.assert_array_equal(mirrored.inputs[12], np.fliplr(eager.inputs[0]))
    np.testing.assert_array_equal(images.load(same.inputs), mirrored.inputs)
    turned, of_same = map(data.quarter_turns_as_classes, (mirrored, same))
    assert turned.class_names[-1].endswith(" mirrored turned 270")
    np.testing.assert_array_equal(images.load(of_same.inputs), turned.inputs)
    assert of_same.inputs.digest(0) != of_same.inputs.digest(12)


@pytest.mark.parametrize(
    ("make", "times"), [(data.mirrored_as_classes, 2), (data.quarter_turns_as_classes, 4)]
)
def test_copies_keep_what_is_known_of_their_images(make, times):
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1)
    of_examples = {
        "split": np.array(["train", "test", "test"]),
        "difficulty": np.array([0.1, 0.2, 0.3], np.float32),
        "names": np.array(["a.png", "b.png", "c.png"]),
        "sessions": np.array(["monday", "monday", "friday"]),
        "is_query": np.array([False, True, False]),
        "query_groups": np.array([0, 1, 2]),
        "reference_groups": np.array([2, 1, 0]),
    }
    labels = np.array([0, 1, 1], np.int32)
    found = data.Dataset(
        pixels,
        labels,
        class_names=("x", "y"),
        groups=np.array([5, 6]),
        reference=np.ones((3, 2), np.float32),
        notes=("a note",),
        **of_examples,
    )
    copies = make(found)
    for name, values in of_examples.items():
        np.testing.assert_array_equal(getattr(copies, name), np.tile(values, times))
    assert copies.groups.tolist() == [5, 6] * times
    assert copies.notes == ("a note",)
    assert copies.reference is None
    np.testing.assert_array_equal(copies.inputs[:3], pixels)
    assert found.inputs is pixels and pixels[1, 0, 0, 0] == 16, "the images stay as they are"


def test_images_are_mirrored_as_they_stand(class_folders):
    lazy = fold(class_folders).inputs
    which = np.arange(len(lazy)) % 2 == 0
    found = images.load(lazy.turned(np.arange(len(lazy)) % 4).mirrored(which).mirrored(which[::-1]))
    for i, (image, whole) in enumerate(zip(found, images.load(lazy), strict=True)):
        expected = np.rot90(whole, i % 4)
        for mirrors in (which[i], which[::-1][i]):
            expected = np.fliplr(expected) if mirrors else expected
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (data.mirrored_as_classes, (3,), "must be images"),
        (data.quarter_turns_as_classes, (3,), "must be square images"),
        (data.quarter_turns_as_classes, (4, 6, 1), "shape .4, 6, 1., and must be square"),
    ],
)
def test_inputs_that_cannot_be_turned_are_refused(make, shape, message):
    found = data.Dataset(
        np.zeros((2, *shape), np.float32),
        np.array([0, 1], np.int32),
        np.array(["train", "train"]),
        ("x", "y"),
    )
    with pytest.raises(errors.InputError, match=message):
        make(found)


def test_images_as_classes_are_one_class_each(class_folders):
    found = fold(class_folders)
    made = data.images_as_classes(found)
    assert made.labels.tolist() == list(range(len(found)))
    assert len(made.class_names) == len(found)
    assert made.inputs is found.inputs
    np.testing.assert_array_equal(made.split, found.split)
