"""Refuses batches, memories and pairs whose parts do not go together."""

import pathlib

import jax
import ml_collections

from experiments.config import augmentations, settings
from triplet_jax import errors


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what makes no sense on any machine.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    _check_memory(config)
    _check_views(config)
    _check_offline(config)
    _check_choice(config)
    _check_pairs(config)
    _check_pool(config)
    _check_towers(config)


def check_machine(config: ml_collections.ConfigDict) -> None:
    """Refuses batches that the devices cannot share, and files that are not there.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    if config.batch.scores and not pathlib.Path(config.batch.scores).is_file():
        raise errors.InputError(
            f"batch.scores={config.batch.scores!r} is not a file: make it with python -m"
            " experiments.score."
        )
    devices = jax.device_count()
    batch = config.batch.classes * config.batch.per_class
    if batch % devices:
        raise errors.InputError(
            f"batch.classes={config.batch.classes} times batch.per_class={config.batch.per_class}"
            f" is {batch}, which {devices} devices cannot share evenly: make it a multiple of"
            f" {devices}."
        )
    if batch // devices % config.train.micro_batches:
        raise errors.InputError(
            f"train.micro_batches={config.train.micro_batches} does not divide the"
            f" {batch // devices} examples that each device has of a batch: choose a divisor of it."
        )
    parts = devices * config.train.micro_batches
    rows = batch // parts
    if config.model.towers == 2 and rows % 2:
        raise errors.InputError(
            f"batch.classes={config.batch.classes} gives {rows} rows to each of {parts} parts of a"
            " batch, but two encoders need an even number, for whole pairs: make batch.classes a"
            f" multiple of {parts}."
        )


def _check_offline(config):
    """Refuses to draw more near examples than are kept, or examples that a pool leaves out."""
    c = config.offline
    if not (c.every or c.table):
        return
    if c.near > c.neighbours:
        raise errors.InputError(
            f"offline.near={c.near} are drawn from offline.neighbours={c.neighbours}: make it at"
            " most that."
        )
    moved = any(s.field == "batch.pool" for s in config.schedules.values())
    if moved or config.batch.pool < 1:
        raise errors.InputError(
            "batch.pool leaves examples out that offline mining would put into a batch: set it to"
            " 1 without a schedule, or offline.every=0 and offline.table=''."
        )


def _check_choice(config):
    """Refuses to choose a batch out of too few classes, or where there is no comparison."""
    c = config.batch
    if not c.choose_from:
        return
    if c.choose_from <= c.classes:
        raise errors.InputError(
            f"batch.choose_from={c.choose_from} leaves nothing to choose with batch.classes="
            f"{c.classes}: make it larger, such as {4 * c.classes}, or 0 for no choice."
        )
    if not c.scores:
        raise errors.InputError(
            f"batch.choose_from={c.choose_from} compares the run with another that has learnt, but"
            " batch.scores is empty: make a file with python -m experiments.score."
        )
    needed = {
        "model.towers": 1,  # a class is compared by one encoder, not by one for each row of a pair
        "dataset.placement": "device",
        "dataset.mirrored_as_classes": False,
        "dataset.turns_as_classes": False,
        "offline.every": 0,
        "offline.table": "",
    }
    _check_needed(config, needed, "batch.choose_from")
    _check_shape_stays(config, "batch.choose_from")


def _check_shape_stays(config, by):
    """Refuses schedules of the numbers of classes and images, which a field does not go with."""
    for schedule in config.schedules.values():
        if schedule.field in ("batch.classes", "batch.per_class"):
            raise errors.InputError(
                f"A schedule of {schedule.field} does not go with {by}: leave it out."
            )


def _check_views(config):
    """Refuses images as classes if their views cannot differ, or small classes are refused."""
    if not config.dataset.images_as_classes:
        return
    if not augmentations.changes_something(config):
        raise errors.InputError(
            "dataset.images_as_classes=True compares random views of an image, but augment changes"
            " nothing: set augment.crop, augment.rotate or another of its fields."
        )
    if config.batch.small_classes != "redraw":
        raise errors.InputError(
            f"batch.small_classes={config.batch.small_classes!r}, but dataset.images_as_classes="
            "True makes classes of one image: set it to 'redraw'."
        )


def _check_pairs(config):
    """Refuses what would tear pairs apart or change their order."""
    if config.dataset.name != "pairs":
        return
    needed = {
        "model.towers": 2,
        "dataset.images_as_classes": False,
        "dataset.mirrored_as_classes": False,
        "dataset.turns_as_classes": False,
        "dataset.label_noise": 0.0,
        "batch.order": "easy",
        "batch.scores": "",
    }
    _check_needed(config, needed, "dataset.name='pairs'")


def _check_needed(config, needed, by):
    """Refuses fields whose value is not the one that a setting, named in `by`, needs."""
    fields = settings.flat(config)
    for field, value in needed.items():
        if fields[field] != value:
            raise errors.InputError(
                f"{field}={fields[field]!r} does not go with {by}: set it to {value!r}."
            )


def _check_towers(config):
    """Refuses what does not compare the rows of one encoder with those of the other."""
    if config.model.towers == 1:
        return
    needed = {"batch.per_class": 2, "memory.size": 0, "loss.proxies": ""}
    needed |= {"offline.every": 0, "offline.table": ""}  # which would change the order of pairs
    _check_needed(config, needed, "model.towers=2, which compares the rows of two encoders")
    _check_shape_stays(config, "model.towers=2")


def _check_memory(config):
    """Refuses a memory that holds less than a batch, or lacks the average that it is made by."""
    batch = config.batch.classes * config.batch.per_class
    c = config.memory
    if c.of_average and not (c.size and config.optimizer.average_decay):
        raise errors.InputError(
            f"memory.of_average=True with memory.size={c.size} and optimizer.average_decay="
            f"{config.optimizer.average_decay}: it needs both, such as 4096 and 0.999."
        )
    if 0 < config.memory.size < batch:
        raise errors.InputError(
            f"memory.size={config.memory.size} is smaller than a batch of {batch}: make it at least"
            " that, or 0 for none."
        )
    if config.memory.size and config.loss.proxies:
        raise errors.InputError(
            f"memory.size={config.memory.size} goes with no proxies: set it to 0, or loss.proxies"
            " to ''."
        )


def _check_pool(config):
    """Refuses a pool of easy or hard examples without scores, which say what is easy."""
    needs_scores = settings.lowest(config, "batch.pool") < 1 and config.batch.order != "random"
    if needs_scores and not config.batch.scores:
        raise errors.InputError(
            f"batch.pool is below 1 and batch.order={config.batch.order!r}, but batch.scores is"
            " empty: make a file with python -m experiments.score, or set batch.order='random'."
        )
