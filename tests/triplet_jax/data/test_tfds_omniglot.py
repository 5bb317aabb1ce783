"""Omniglot as tensorflow-datasets prepares it, real and small."""

import contextlib
import hashlib
import json
import shutil

import numpy as np
import pytest

from tests.support import prepared
from tests.support.image_folders import FORM
from triplet_jax import data, errors
from triplet_jax.data import images

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


@pytest.mark.slow
def test_omniglot_by_class_takes_the_second_half_for_the_test(omniglot_dir):
    form = images.ImageForm(size=28, channels=1)
    found = data.from_tfds(
        "omniglot", data_dir=omniglot_dir, form=form, **(OMNIGLOT | {"split_by": "class"})
    )
    assert set(found.only("test").labels) == set(range(811, 1623))


# SHA-256 of the sorted lines "ALPHABET/characterNN" of each list, as the package torchmeta 1.8.0
# ships them for its Omniglot.
LISTS = {
    "train": "c350ea5778649d32e0ac6ec889c2307081c3925cf690fc8933ebdf3d800b69b2",
    "validation": "d3f56052fbd17195c86774f0ac0189eb7e3e9a0656d5ff71b234479d512fecb2",
    "test": "bbbdc01c73fd2d347b6d10079314fb3df275938be403cbe915c1c09a38b1ba37",
}


@pytest.mark.slow
def test_omniglot_by_the_lists_of_vinyals(omniglot_dir):
    form = images.ImageForm(size=28, channels=1)
    wanted = OMNIGLOT | {"split_by": "vinyals"}
    found = data.from_tfds("omniglot", data_dir=omniglot_dir, form=form, **wanted)
    assert len(found) == 4 * 32460
    for split, digest in LISTS.items():
        part = found.only(split)
        names = {found.class_names[label] for label in part.labels}
        plain = {name.partition(" turned ")[0] for name in names}
        assert len(names) == 4 * len(plain)
        assert len(part) == 20 * len(names)
        pairs = (name.rpartition("_") for name in plain)
        lines = sorted(f"{alphabet}/character{int(n) + 1:02}" for alphabet, _, n in pairs)
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest
    first, turned = found.inputs[0], found.inputs[32460]
    np.testing.assert_array_equal(turned, np.rot90(first))


def test_the_lists_of_vinyals_divide_every_quarter_turn(tmp_path, monkeypatch):
    folder = prepared.omniglot(tmp_path, classes=4, images=2)
    names = ["Greek_0", "Greek_1", "Hebrew_0", "ULOG_0", *(f"x_{i}" for i in range(1619))]
    (folder / "label.labels.txt").write_text("\n".join(names) + "\n")
    characters = {"train": 2, "validation": 1, "test": 1}
    monkeypatch.setattr("triplet_jax.data.omniglot_lists.CHARACTERS", characters)
    wanted = OMNIGLOT | {"split_by": "vinyals"}
    found = data.from_tfds("omniglot", data_dir=str(tmp_path), form=FORM, **wanted)
    assert len(found) == 4 * 8 and len(found.class_names) == 4 * 4
    for split, alphabet, number in (("train", "Greek", 16), ("validation", "Hebrew", 8)):
        part = found.only(split)
        assert len(part) == number
        assert all(found.class_names[label].startswith(alphabet) for label in part.labels)


def test_a_part_of_omniglot_has_no_lists(tmp_path):
    prepared.omniglot(tmp_path)
    with pytest.raises(errors.InputError, match="1,623 characters.*for test. Set name='omniglot'"):
        wanted = OMNIGLOT | {"split_by": "vinyals"}
        data.from_tfds("omniglot", data_dir=str(tmp_path), form=FORM, **wanted)


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
