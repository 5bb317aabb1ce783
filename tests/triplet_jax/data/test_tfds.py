"""Data sets of tensorflow-datasets with the features of the real builders, and few examples."""

import json
import pickle
import warnings

import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import base
from experiments.config import check, datasets
from tests.support import prepared
from triplet_jax import data, errors
from triplet_jax.data import images, tfds_features

FORM = images.ImageForm(size=4, channels=3)
USUAL = {"split_by": "official", "held_out": data.HeldOut(0.2, 0.0, seed=0)}


def read(name, data_dir, **changes):
    return data.from_tfds(name, data_dir=str(data_dir), form=FORM, **(USUAL | changes))


def products(data_dir):
    """Stanford Online Products: 4 classes of 2 images, of 2 super-classes; 2 classes are tested."""

    def examples(labels):
        for label in np.repeat(labels, 2):
            yield {
                "image": prepared.picture(50 * int(label), form="JPEG"),
                "class_id": int(label),
                "super_class_id": int(label) % 2,
                "super_class_id/num": int(label) % 2,
            }

    return prepared.write(
        "stanford_online_products", data_dir, {"train": examples([0, 1]), "test": examples([2, 3])}
    )


def faces(data_dir):
    """CelebA: 2 images for each of 3 people in every split."""
    names = tfds.builder_cls("celeb_a")(data_dir=str(data_dir)).info.features

    def examples(people):
        for person in np.repeat(people, 2):
            yield {
                "image": prepared.picture(int(person), size=(178, 218), form="JPEG"),
                "landmarks": dict.fromkeys(names["landmarks"], 1),
                "attributes": dict.fromkeys(names["attributes"], bool(person % 2)),
                "identity": {"Identity_No": int(person)},
            }

    splits = {"train": [8, 5, 3], "validation": [21, 22, 23], "test": [12, 11, 10]}
    return prepared.write("celeb_a", data_dir, {s: examples(p) for s, p in splits.items()})


def test_stanford_online_products_is_read_by_the_class_that_is_named(tmp_path):
    products(tmp_path)
    with pytest.raises(errors.InputError) as refused:
        read("stanford_online_products", tmp_path)
    message = str(refused.value)
    assert "set label_feature=" in message
    assert "Possible: class_id, super_class_id, super_class_id/num." in message
    assert "prepare" not in message and "remove" not in message

    found = read("stanford_online_products", tmp_path, label_feature="class_id")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert list(found.split) == ["train"] * 4 + ["test"] * 4
    np.testing.assert_allclose(images.load(found.inputs)[:, 0, 0, 0], 50 * found.labels, atol=1)
    by_kind = read("stanford_online_products", tmp_path, label_feature="super_class_id")
    assert by_kind.class_names == ("bicycle", "cabinet")
    numbered = read("stanford_online_products", tmp_path, label_feature="super_class_id/num")
    assert (numbered.labels == by_kind.labels).all()
    with pytest.raises(errors.InputError, match="label_feature='label' is no feature.*class_id"):
        read("stanford_online_products", tmp_path, label_feature="label")
    with pytest.raises(errors.InputError, match="image_feature='class_id' is no feature.*image"):
        read("stanford_online_products", tmp_path, image_feature="class_id")


def test_celeb_a_is_read_by_a_nested_feature_and_all_of_its_splits(tmp_path):
    faces(tmp_path)
    with pytest.raises(errors.InputError, match="label_feature=NAME. Possible: attributes/5_o"):
        read("celeb_a", tmp_path)
    by_person = {"label_feature": "identity/Identity_No"}
    found = read("celeb_a", tmp_path, validation_split="validation", **by_person)
    assert found.class_names == ("3", "5", "8", "10", "11", "12", "21", "22", "23")
    people = {s: {int(found.class_names[c]) for c in found.only(s).labels} for s in data.SPLITS}
    expected = {"train": {3, 5, 8}, "validation": {21, 22, 23}, "test": {10, 11, 12}}
    assert people == expected
    shown = images.load(found.inputs)[:, 0, 0, 0].astype(int)
    np.testing.assert_allclose(shown, [int(found.class_names[c]) for c in found.labels], atol=2)
    without = read("celeb_a", tmp_path, **by_person)
    assert len(without) == 12 and "validation" not in without.split
    joined = read("celeb_a", tmp_path, train_split="train+validation", **by_person)
    assert [(joined.split == s).sum() for s in data.SPLITS] == [12, 0, 6]
    smiling = read("celeb_a", tmp_path, label_feature="attributes/Smiling")
    assert smiling.class_names == ("False", "True")


def test_the_keys_of_a_builder_are_told_apart_by_their_kind(tmp_path):
    """Those of lfw are ("label", "image"), and its label is a text."""
    people = ["Zoe", "Ann", "Zoe", "Ren\u00e9"]
    examples = [
        {"label": p, "image": prepared.picture(9 * i, (250, 250))} for i, p in enumerate(people)
    ]
    prepared.write("lfw", tmp_path, {"train": examples})
    assert tfds.builder_cls("lfw")(data_dir=str(tmp_path)).info.supervised_keys[0] == "label"
    found = read("lfw", tmp_path, split_by="class")
    assert found.class_names == ("Ann", "Ren\u00e9", "Zoe")
    assert found.labels.tolist() == [2, 0, 2, 1]
    np.testing.assert_array_equal(images.load(found.inputs)[:, 0, 0, 0], [0, 9, 18, 27])
    with pytest.raises(errors.InputError, match="test_split.*has no split 'test', but train"):
        read("lfw", tmp_path)


def test_images_of_all_classes_are_drawn_for_a_split_by_image(tmp_path):
    prepared.omniglot(tmp_path, classes=2, images=8)
    held_out = data.HeldOut(0.25, 0.25, seed=0)
    found = read("omniglot", tmp_path, split_by="image", held_out=held_out)
    assert [(found.split == s).sum() for s in data.SPLITS] == [8, 4, 4]
    assert all(set(found.only(split).labels) == {0, 1} for split in data.SPLITS)


def test_a_builder_whose_code_cannot_be_loaded_is_refused(tmp_path, monkeypatch):
    def without(name):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds, "builder_cls", without)
    with pytest.raises(errors.InputError, match="name='omniglot'.*tensorflow"):
        read("omniglot", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_split": "extra"}, "train_split='extra'.*no split 'extra', but train, test"),
        ({"test_split": "train"}, "test_split='train': 'train' is used for train too"),
        ({"train_split": "train+train"}, "Name each split once"),
        ({"validation_split": "dev", "split_by": "class"}, "no split 'dev'"),
        ({"test_split": ""}, "test_split='' must name one"),
    ],
)
def test_splits_that_are_not_there_are_refused(changes, message, tmp_path):
    prepared.omniglot(tmp_path)
    with pytest.raises(errors.InputError, match=message):
        read("omniglot", tmp_path, **changes)


def test_examples_without_a_label_are_refused(tmp_path):
    examples = [{"image": np.zeros((28, 28, 1), np.uint8), "label": label} for label in (3, -1)]
    encoded = [e | {"image": prepared.picture(0, (28, 28))} for e in examples]
    prepared.write("kmnist", tmp_path, {"train": encoded[:1], "test": encoded[1:]})
    with pytest.raises(errors.InputError, match="1 of 2 examples have the label -1"):
        read("kmnist", tmp_path)


def test_the_images_of_a_table_can_be_sent_to_processes(tmp_path):
    products(tmp_path)
    found = read("stanford_online_products", tmp_path, label_feature="class_id").inputs
    sent = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(images.load(sent), images.load(found))


def test_the_fields_of_a_config_choose_the_features_and_splits(tmp_path):
    products(tmp_path)
    config = base.get_config()
    config.dataset.name = "stanford_online_products"
    config.dataset.data_dir = str(tmp_path)
    config.dataset.split_by = "official"
    config.dataset.label_feature = "class_id"
    config.dataset.train_split, config.dataset.test_split = "test", "train"
    check.check(config)
    found = datasets.dataset(config)
    assert set(found.only("test").labels) == {0, 1}
    config.dataset.name, config.dataset.split_by = "digits", "image"
    with pytest.raises(errors.InputError, match="dataset.label_feature='class_id' has no effect"):
        check.check(config)


# -- messages


def refusal(name, data_dir, **changes):
    with pytest.raises(errors.InputError) as refused:
        read(name, data_dir, **changes)
    return str(refused.value)


def test_nothing_is_to_be_removed_that_is_not_damaged(tmp_path, monkeypatch):
    folder = prepared.omniglot(tmp_path)
    file = folder / "dataset_info.json"
    whole = file.read_text()
    told = [
        refusal("omniglot/evil", tmp_path),
        refusal("omniglot:99.0.0", tmp_path),
        refusal("coco", tmp_path),  # whose code imports TensorFlow
        refusal("omniglot", tmp_path / "elsewhere"),
    ]
    file.write_text(json.dumps(json.loads(whole) | {"fileFormat": "tfrecord"}))
    told.append(refusal("omniglot", tmp_path))
    assert "as tfrecord" in told[-1] and "data_dir='FOLDER'" in told[-1]
    folder.rename(folder.with_name("2.9.0"))
    told.append(refusal("omniglot", tmp_path))
    assert "which has 2.9.0 but not 3.0.0" in told[-1]
    folder.with_name("2.9.0").rename(folder)
    file.write_text(whole)

    def no_right(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", no_right)
    told.append(refusal("omniglot", tmp_path))
    assert "Permission denied" in told[-1]
    assert [message for message in told if "remove them" in message] == []
    monkeypatch.undo()
    file.write_text(whole[:40])
    assert "remove them and prepare it again" in refusal("omniglot", tmp_path)


# -- every builder


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
    """Of every builder with an image whose code can be loaded, what `choose` makes of it."""
    place = tmp_path_factory.mktemp("none")
    found = {}
    for name in tfds.list_builders(with_community_datasets=False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                info = tfds.builder_cls(name)(data_dir=str(place)).info
        except Exception:  # its code needs TensorFlow or a file that no package brings
            continue
        every = tfds_features.leaves(info.features)
        if any(isinstance(feature, tfds.features.Image) for feature in every.values()):
            found[name] = info, every, chosen(name, info)
    return found


def chosen(name, info):
    try:
        return tuple(map(tfds_features.text, tfds_features.choose(name, info, "", "")))
    except errors.InputError as error:
        return str(error)


def test_every_builder_is_read_or_refused_with_its_features(builders):
    assert len(builders) > 100
    for name, (info, every, choice) in builders.items():
        names = {tfds_features.text(path): feature for path, feature in every.items()}
        if isinstance(choice, tuple):
            image, label = (names[part] for part in choice)
            assert isinstance(image, tfds.features.Image) and label.shape == (), name
        else:
            assert (
                "_feature=NAME. Possible: " in choice or "has no feature that can be the" in choice
            )
            assert any(part in choice for part in names), name
        keys = info.supervised_keys
        if keys and isinstance(names.get(keys[1]), tfds.features.ClassLabel):
            assert choice[1] == keys[1], name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("caltech_birds2011", ("image", "label")),
        ("cars196", ("image", "label")),
        ("omniglot", ("image", "label")),
        ("dtd", ("image", "label")),  # which names no keys
        ("lfw", ("image", "label")),
        ("places365_small", ("image", "label")),  # of three keys
        ("pet_finder", ("image", "label")),  # whose keys have no image
        ("smallnorb", ("image", "label_category")),  # one of two images
        ("celeb_a", "label"),
        ("cityscapes", "image"),  # the classes are pixels
        ("div2k", "image"),
        ("dsprites", "label"),
        ("imagenet2012_real", "label"),  # a set of labels
        ("stanford_online_products", "label"),
        ("symmetric_solids", "label"),  # a rotation
    ],
)
def test_what_is_chosen_of_builders(name, expected, builders):
    choice = builders[name][2]
    if isinstance(expected, tuple):
        assert choice == expected
    else:
        assert f"is the {expected}: set" in choice or f"can be the {expected}:" in choice
