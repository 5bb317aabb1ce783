"""From the fields of a config to the data set of a run and its splits."""

import dataclasses
import math

import ml_collections
import numpy as np

from experiments.config import (
    augmentations,
    caches,
    column_pairs,
    components,
    import_paths,
    naming,
    settings,
)
from triplet_jax import data, errors
from triplet_jax.curricula import difficulty
from triplet_jax.data import images, label_noise, sampling

# Bytes of the pixels up to which all images are decoded once, and not by every use.
DECODED_AT_ONCE = 2**27
_COLUMNS = ("path", "image", "label", "split", "group", "category")
# Data sets that `dataset.split_by` splits in several ways.
_SPLIT_AT_RANDOM = ("folder", "arrays", "table", "webdataset", "huggingface")


def dataset(config: ml_collections.ConfigDict, *, decoded: bool = True) -> data.Dataset:
    """All examples, each with its split; images are decoded if they are few and the device holds
    the data.

    Otherwise images are decoded where they are used: many images, so that what is on the device is
    not in memory a second time; and images of which evaluation reads a part, since training may
    read the whole.

    Args:
      config: of the run.
      decoded: whether images may be decoded now.
    """
    everything = open_dataset(config.dataset)
    inputs = everything.inputs
    in_parts = isinstance(inputs, images.Images) and inputs.form.crop_ratio < 1
    if decoded and _are_few(inputs) and config.dataset.placement == "device" and not in_parts:
        return dataclasses.replace(everything, inputs=images.load(everything.inputs))
    return everything


def _are_few(inputs):
    return math.prod(inputs.shape) <= DECODED_AT_ONCE


def check_test(config: ml_collections.ConfigDict, everything: data.Dataset) -> None:
    """Refuses a data set whose test split gives no score.

    Raises:
      InputError: with the numbers of examples and classes, and what to change.
    """
    test = everything.only("test")
    if config.evaluate.ignore_group and test.sessions is None:
        raise errors.InputError(
            "evaluate.ignore_group=True, but the data have no groups of examples: give a table with"
            " dataset.group_column, a folder with sessions below its classes, or set it to False."
        )
    if test.is_query is not None:
        _check_queries(test)
    if can_score(config, test):
        return
    raise errors.InputError(
        f"{_left('test', config, everything, test)} Raise dataset.test_fraction,"
        f" have more examples of a class{_or_split_otherwise(config)}."
    )


def _check_queries(test):
    queries, gallery = (test.labels[asks] for asks in (test.is_query, ~test.is_query))
    if not np.isin(queries, gallery).any():
        raise errors.InputError(
            f"none of the {len(queries)} queries has its class among the {len(gallery)} images of"
            " the gallery, so that nothing can be found. Name the classes of both alike."
        )


def check_patience(config: ml_collections.ConfigDict, everything: data.Dataset) -> None:
    """Refuses early stopping by a validation split that gives no score.

    Raises:
      InputError: with the numbers of examples and classes, and what to change.
    """
    validation = everything.only("validation")
    if not config.train.patience or can_score(config, validation):
        return
    raise errors.InputError(
        f"train.patience={config.train.patience} needs validation scores, but"
        f" {_left('validation', config, everything, validation)} Raise"
        f" dataset.validation_fraction{_or_split_otherwise(config)}, or set train.patience=0."
    )


def can_score(config: ml_collections.ConfigDict, examples: data.Dataset) -> bool:
    """Whether retrieval among examples has a score.

    It needs two classes, and two examples of one of them; with `evaluate.ignore_group`, of two
    groups.
    """
    _, codes = np.unique(examples.labels, return_inverse=True)
    if config.evaluate.ignore_group and examples.sessions is not None:
        _, groups = np.unique(examples.sessions, return_inverse=True)
        codes = np.unique(np.stack([codes, groups], axis=1), axis=0)[:, 0]
    counts = np.bincount(codes)
    return len(counts) > 1 and counts.max() > 1


def note_on_validation(config: ml_collections.ConfigDict, everything: data.Dataset) -> str:
    """A warning where the validation split gives no score; else empty."""
    validation = everything.only("validation")
    if not len(validation) or can_score(config, validation):
        return ""
    return (
        f"warning: {_left('validation', config, everything, validation)} So there is no validation"
        " score, and the last checkpoint is evaluated. To choose the best one, raise"
        f" dataset.validation_fraction, have more examples of a class"
        f"{_or_split_otherwise(config)}."
    )


def _left(name, config, everything, split):
    c = config.dataset
    by = f" with dataset.split_by={c.split_by!r}" if c.name in _SPLIT_AT_RANDOM else ""
    sizes = f"{len(everything)} examples of {len(np.unique(everything.labels))} classes"
    said = f"dataset.{name}_fraction={c[f'{name}_fraction']}{by} leaves"
    if not len(split):
        return f"{said} none of {sizes} for the {name} split."
    why = "all are of one class"
    if len(np.unique(split.labels)) > 1:
        why = "no two are of one class"
        if config.evaluate.ignore_group:
            why += " and of two groups"
    return (
        f"{said} {len(split)} of {sizes} for the {name} split, of which {why}, so that no score can"
        " tell a good embedding from a bad one."
    )


def _or_split_otherwise(config):
    if config.dataset.name not in _SPLIT_AT_RANDOM:
        return ""
    return ", or set dataset.split_by to another way of splitting"


@naming.as_fields("dataset", seed="dataset.split_seed", image="dataset.image_column")
def open_dataset(c: ml_collections.ConfigDict) -> data.Dataset:
    """All examples by the section `dataset` of a config; images in files are not decoded yet."""
    held_out = data.HeldOut(c.test_fraction, c.validation_fraction, seed=c.split_seed)
    if c.name == "digits":
        return data.digits(held_out)
    if c.name == "arrays":
        return data.arrays(c.path, split_by=c.split_by, held_out=held_out)
    if c.name == "pairs":
        return data.pairs(c.path, held_out=held_out)
    if import_paths.is_path(c.name):
        return components.dataset(c)
    form = image_form(c)
    if c.name == "folder":
        return data.folder(
            c.path,
            form=form,
            split_by=c.split_by,
            held_out=held_out,
            bad_images=c.bad_images,
            class_level=c.class_level,
        )
    if c.name in data.BENCHMARKS:
        return data.benchmark(c.name, c.path, form=form, held_out=held_out, bad_images=c.bad_images)
    if c.name in ("table", "webdataset", "huggingface"):
        return _with_columns(c, form, held_out)
    return data.from_tfds(
        c.name,
        data_dir=c.data_dir,
        form=form,
        split_by=c.split_by,
        held_out=held_out,
        image_feature=c.image_feature,
        label_feature=c.label_feature,
        **_named_splits(c),
    )


def _named_splits(c):
    return {name: c[name] for name in ("train_split", "validation_split", "test_split")}


def _with_columns(c, form, held_out):
    """A data set whose columns have names."""
    given = {
        "form": form,
        "split_by": c.split_by,
        "held_out": held_out,
        "bad_images": c.bad_images,
        "columns": data.Columns(
            **{name: c[f"{name}_column"] for name in _COLUMNS},
            box=tuple(c.box_columns),
            ignore=column_pairs.parse("dataset.ignore_columns", c.ignore_columns),
        ),
    }
    if c.name == "table":
        return data.table(c.path, root=c.root, **given)
    given["index_dir"] = c.index_dir or str(caches.folder("indexes"))
    if c.name == "webdataset":
        return data.from_webdataset(c.path, **given)
    return data.from_huggingface(c.path, **_named_splits(c), **given)


def image_form(c: ml_collections.ConfigDict) -> images.ImageForm:
    """The size and the channels that images in files are brought to, by the section `dataset`."""
    return images.ImageForm(
        size=c.image_size,
        channels=c.channels,
        invert=c.invert,
        fit=c.fit,
        background=c.background,
        max_pixels=c.max_pixels,
        # `completion` replaces both where weights expect something.
        resample="bilinear" if c.resample == "auto" else c.resample,
        crop_ratio=c.crop_ratio or 1.0,
    )


def validation_split(config: ml_collections.ConfigDict, everything: data.Dataset) -> data.Dataset:
    """The validation split, decoded if images are few and the device holds the data."""
    split = everything.only("validation")
    if config.dataset.placement == "device" and _are_few(everything.inputs):
        return dataclasses.replace(split, inputs=images.load(split.inputs))
    return split


def training_split(
    config: ml_collections.ConfigDict, everything: data.Dataset
) -> tuple[data.Dataset, np.ndarray]:
    """The examples that batches are drawn from, and which labels are wrong on purpose.

    Their pictures are read whole where the augmentation crops them at random, which takes the place
    of `dataset.crop_ratio`.

    Returns:
      The examples with the labels that training is given; and a mask of the examples of the
      training split of `everything`, in their order there, whose label is wrong on purpose.
    """
    c = config.dataset
    train = everything.only("train")
    given = given_labels(config, train)
    wrong = given != train.labels
    train = dataclasses.replace(train, labels=given)
    if isinstance(train.inputs, images.Images) and augmentations.crops_at_random(config):
        train = dataclasses.replace(train, inputs=train.inputs.whole())
    if config.batch.scores:
        train = difficulty.attach(train, _scores(config.batch.scores, everything))
    if c.drop_noisy:
        train = train.take(np.flatnonzero(~wrong))
    if c.mirrored_as_classes:
        if len(train.input_shape) != 3:
            raise errors.InputError(
                "dataset.mirrored_as_classes=True needs images, not inputs of shape"
                f" {train.input_shape}; set it to False."
            )
        train = data.mirrored_as_classes(train)
    if c.turns_as_classes:
        if len(train.input_shape) != 3 or train.input_shape[0] != train.input_shape[1]:
            raise errors.InputError(
                "dataset.turns_as_classes=True needs square images, not inputs of shape"
                f" {train.input_shape}; set it to False."
            )
        train = data.quarter_turns_as_classes(train)
    if c.images_as_classes:
        train = data.images_as_classes(train)
    with naming.as_fields("batch"):
        train = sampling.fit_classes(
            train,
            classes=config.batch.classes,
            per_class=config.batch.per_class,
            small_classes=config.batch.small_classes,
        )
    _check_pool_size(config, train)
    if config.batch.choose_from:
        _check_choice(config, train)
    if config.loss.proxies:
        train = _numbered(config, train)
    return train, wrong


@naming.as_fields("batch", path="batch.scores")
@naming.with_advice("python -m experiments.score makes the file.")
def _scores(path, everything):
    return difficulty.read(path, everything)


def _numbered(config, train):
    """The training split with its classes numbered from 0, as the proxies are."""
    present, labels = np.unique(train.labels, return_inverse=True)
    if config.loss.num_classes != len(present):
        raise errors.InputError(
            f"loss.num_classes={config.loss.num_classes}, but training has {len(present)} classes,"
            f" and each has a proxy: set loss.num_classes={len(present)}."
        )
    return dataclasses.replace(
        train,
        labels=labels.astype(train.labels.dtype),
        class_names=tuple(train.class_names[c] for c in present),
        groups=None if train.groups is None else train.groups[present],
    )


def _check_pool_size(config, train):
    pool = settings.lowest(config, "batch.pool")
    smallest = np.unique(train.labels, return_counts=True)[1].min()
    holds = int(np.ceil(pool * smallest))
    if pool < 1 and holds < config.batch.per_class:
        least = min(1.0, config.batch.per_class / smallest)
        raise errors.InputError(
            f"batch.pool goes down to {pool:g}, which is {holds} of the {smallest} examples of the"
            f" smallest class, fewer than batch.per_class={config.batch.per_class}. Start it at"
            f" {least:.2f} or above."
        )


def _check_choice(config, train):
    """Refuses to choose out of more classes than there are, or by scores without embeddings."""
    c, classes = config.batch, len(np.unique(train.labels))
    if c.choose_from > classes:
        raise errors.InputError(
            f"batch.choose_from={c.choose_from} is more than the {classes} training classes. Set it"
            f" to at most {classes}."
        )
    if train.reference is None:
        raise errors.InputError(
            f"batch.scores={c.scores!r} is of an earlier version, and lacks the embeddings that"
            " batch.choose_from needs: make the file anew with python -m experiments.score."
        )


@naming.as_fields("dataset", kind="dataset.noise_kind", fraction="dataset.label_noise")
def given_labels(config: ml_collections.ConfigDict, train: data.Dataset) -> np.ndarray:
    """The labels that training is given: some are wrong if the config plants noise."""
    c = config.dataset
    return label_noise.plant(
        train.labels, c.label_noise, kind=c.noise_kind, seed=c.noise_seed, groups=train.groups
    )
