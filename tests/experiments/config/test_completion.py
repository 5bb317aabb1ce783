"""What a config leaves open is filled in once, and the numbers that are used are saved."""

import functools
import json

import ml_collections
import pytest

from configs import base, folder
from experiments.config import (
    augmentations,
    check,
    completion,
    datasets,
    fields,
    saved_configs,
    settings,
)
from experiments.config.fields import augment
from tests.support.configs import config
from triplet_jax import errors, models
from triplet_jax.models import published

OPEN = {"augment." + name for name, f in augment.SECTION.fields.items() if f.default is None}


def photos(**differences):
    made = base.with_differences(folder.get_config(), {"dataset.path": "x", "augment.flip": None})
    named = {name.replace("__", "."): value for name, value in differences.items()}
    return completion.completed(base.with_differences(made, named))


@pytest.mark.parametrize("policy", augment.POLICIES)
def test_a_policy_sets_what_is_not_set(policy):
    made = photos(augment__policy=policy)
    values = settings.flat(made)
    for name in OPEN:
        usual = augment.POLICIES[policy].get(name.partition(".")[2])
        assert values[name] == (usual or 0)
        assert type(values[name]) is fields.FIELDS[name].type
    check.check_anywhere(made)


def test_what_is_set_counts_more_than_the_policy():
    made = photos(augment__policy="photos", augment__contrast=0.0, augment__hue=0.1)
    assert (made.augment.contrast, made.augment.hue) == (0.0, 0.1)
    assert made.augment.resized_crop == augment.POLICIES["photos"]["resized_crop"]
    assert made.augment.flip


def test_a_policy_sets_only_fields_that_may_be_open():
    for policy in augment.POLICIES.values():
        assert {f"augment.{name}" for name in policy} <= OPEN


def test_completing_again_changes_nothing():
    made = photos(augment__policy="photos")
    assert completion.completed(made) is made
    frozen = ml_collections.FrozenConfigDict(config())
    assert isinstance(completion.completed(frozen), ml_collections.FrozenConfigDict)
    assert frozen.augment.hue is None, "the config itself stays"


def test_a_config_of_before_means_what_it_meant(tmp_path):
    """It has none of the fields, and no policy."""
    content = json.loads(folder.get_config().to_json())
    newer = OPEN - {"augment.flip"} | {"augment.policy", "augment.aspect"}
    for name in (*newer, "dataset.resample", "dataset.crop_ratio"):
        section, _, field = name.partition(".")
        del content[section][field]
    content["augment"]["flip"] = True
    opened = saved_configs.from_content(content)
    assert opened.augment.flip
    assert not any(opened.augment[name] for name in ("policy", "resized_crop", "hue", "erase"))
    form = datasets.image_form(opened.dataset)
    assert (form.resample, form.crop_ratio) == ("bilinear", 1.0)
    assert opened == completion.completed(opened)


def test_an_unknown_policy_is_refused():
    with pytest.raises(errors.InputError, match="augment.policy='photo' is not known.*'photos'"):
        check.check_anywhere(photos(augment__policy="photo"))


def test_an_aspect_without_a_crop_is_refused():
    with pytest.raises(errors.InputError, match="augment.aspect=2.0 has no effect with augment.re"):
        check.check_anywhere(photos(augment__aspect=2.0))
    check.check_anywhere(photos(augment__aspect=2.0, augment__policy="photos"))


# -- reading -----------------------------------------------------------------------------


@pytest.fixture
def weighted(monkeypatch):
    """Makes conv4 a backbone whose weights expect something of a picture."""
    expects = published.Preprocessing((), (), resample="lanczos", crop_ratio=0.75)
    made = functools.partial(models.BACKBONES["resnet18"], expects=expects)
    monkeypatch.setitem(models.BACKBONES, "conv4", made)


def with_weights(made, field="weights"):
    made.model[field] = "some"
    return made


@pytest.mark.parametrize("field", ["weights", "init_from"])
def test_pictures_are_read_as_the_weights_expect(weighted, field):
    made = base.with_differences(folder.get_config(), {"dataset.path": "x"})
    form = datasets.image_form(completion.completed(with_weights(made, field)).dataset)
    assert (form.resample, form.crop_ratio) == ("lanczos", 0.75)


def test_what_is_set_counts_more_than_what_the_weights_expect(weighted):
    differences = {"dataset.path": "x", "dataset.resample": "bicubic", "dataset.crop_ratio": 1.0}
    made = with_weights(base.with_differences(folder.get_config(), differences))
    form = datasets.image_form(completion.completed(made).dataset)
    assert (form.resample, form.crop_ratio) == ("bicubic", 1.0)


def test_without_weights_a_backbone_expects_nothing(weighted):
    assert photos().dataset.resample == "bilinear"
    assert photos().dataset.crop_ratio == 1.0


def test_data_that_are_no_files_leave_the_fields_open(weighted):
    made = completion.completed(with_weights(config()))
    assert (made.dataset.resample, made.dataset.crop_ratio) == ("auto", 0.0)
    check.check_anywhere(completion.completed(config()))


# -- from fields to functions ------------------------------------------------------------


def test_photographs_need_images_of_known_channels():
    made = completion.completed(config(augment__saturation=0.4, augment__grey=0.1))
    with pytest.raises(errors.InputError, match="augment.saturation=0.4 and augment.grey=0.1 need"):
        augmentations.augmentation(made, (8, 8, 2))
    with pytest.raises(errors.InputError, match="augment changes images"):
        augmentations.augmentation(made, (8,))
    turned = completion.completed(config(augment__turn=True))
    with pytest.raises(errors.InputError, match=r"augment.turn=True needs square .*\(8, 9, 3\)"):
        augmentations.augmentation(turned, (8, 9, 3))
    assert augmentations.augmentation(made, (8, 8, 3)) is not None
    assert augmentations.crops_at_random(photos(augment__policy="photos"))
    assert not augmentations.crops_at_random(made)


def test_views_by_a_policy_are_views(tmp_path):
    differences = {
        "dataset__images_as_classes": True,
        "batch__small_classes": "redraw",
        "augment__shift": 0.0,
        "augment__rotate": 0.0,
        "augment__scale": 0.0,
    }
    with pytest.raises(errors.InputError, match="augment changes nothing"):
        check.check_anywhere(config(**differences))
    check.check_anywhere(completion.completed(config(**differences, augment__policy="photos")))
