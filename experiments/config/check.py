"""Refuses configs that make no sense: of a launch, and of a run that was saved.

Here are the checks of single fields. Those between fields are in `check_batches`, `check_losses`
and `check_schedules`.
"""

import math

import ml_collections

from configs import base
from experiments.config import (
    check_batches,
    check_losses,
    check_schedules,
    components,
    import_paths,
    objective,
    settings,
)
from triplet_jax import errors, losses, models
from triplet_jax.data import images, label_noise, sampling

MOST_COUNTED = 2**31 - 1  # by an integer of 32 bits
# field: lowest, highest or None, and whether the lowest itself is allowed
RANGES = {
    "seed": (0, None, True),
    "dataset.class_level": (1, 16, True),
    "dataset.image_size": (2, 4096, True),
    "dataset.background": (0, 255, True),
    "dataset.max_pixels": (1, None, True),
    "dataset.test_fraction": (0, 0.9, True),
    "dataset.validation_fraction": (0, 0.9, True),
    "dataset.split_seed": (0, None, True),
    "dataset.label_noise": (0, 0.99, True),
    "dataset.noise_seed": (0, None, True),
    "dataset.workers": (0, 1024, True),
    "batch.classes": (2, None, True),
    "batch.per_class": (2, None, True),
    "batch.pool": (0, 1, True),
    "batch.same_group": (0, 1, True),
    "offline.every": (0, None, True),
    "offline.neighbours": (1, None, True),
    "offline.near": (1, None, True),
    "augment.crop": (0, None, True),
    "augment.shift": (0, None, True),
    "augment.rotate": (0, 180, True),
    "augment.scale": (0, 2, True),
    "augment.shear": (0, 60, True),
    "augment.noise": (0, None, True),
    "model.width": (1, 2**16, True),
    "model.dim": (1, 2**16, True),
    "model.dropout": (0, 0.95, True),
    "model.projection": (0, 2**16, True),
    "model.projection_dim": (1, 2**16, True),
    "model.towers": (1, 2, True),
    "memory.size": (0, 2**24, True),
    "memory.start": (0, None, True),
    "memory.weight": (0, None, True),
    "mining.mix": (0, 1, True),
    "mining.tile_size": (0, None, True),
    "mining.knobs.beta": (0, None, True),
    "mining.knobs.cutoff": (0, 1.9, False),
    "mining.knobs.degrees": (0, 90, True),
    "mining.knobs.farthest": (0, None, False),
    "mining.knobs.first": (1, None, True),
    "mining.knobs.fraction": (0, 1, True),
    "mining.knobs.hardness": (0, 1, True),
    "mining.knobs.last": (1, None, True),
    "mining.knobs.n": (1, None, True),
    "mining.knobs.width": (0, None, False),
    **{f"loss.knobs.{name}": (0, None, False) for name in (*objective.POSITIVE, "alpha", "beta")},
    "loss.knobs.margin": (0, None, True),
    "loss.knobs.positive_margin": (0, None, True),
    # Of a lower power the slope at the margin is infinite.
    "loss.knobs.power": (1, None, True),
    "loss.margin": (0, None, True),
    "loss.norm_weight": (0, None, True),
    "loss.spread_weight": (0, None, True),
    "loss.num_classes": (0, 2**24, True),
    "loss.p": (1, None, True),
    "optimizer.learning_rate": (0, None, False),
    "optimizer.proxies_rate": (0, None, False),
    "optimizer.warmup_steps": (0, None, True),
    "optimizer.weight_decay": (0, None, True),
    "optimizer.momentum": (0, 1, True),
    "optimizer.clip_norm": (0, None, True),
    "optimizer.average_decay": (0, 0.999999, True),
    "train.micro_batches": (1, None, True),
    "train.steps": (1, None, True),
    "evaluate.every": (1, None, True),
    "evaluate.batch": (0, 2**20, True),
    "evaluate.ways": (2, None, True),
    "evaluate.episodes": (2, 10**6, True),
    "log.every": (1, None, True),
    "log.telemetry_every": (0, None, True),
}

NAMES = {
    "dataset.bad_images": images.BAD_IMAGES,
    "dataset.fit": images.FITS,
    "dataset.noise_kind": label_noise.KINDS,
    "dataset.placement": ("device", "stream"),
    "batch.order": ("easy", "hard", "random"),
    "batch.small_classes": sampling.SMALL_CLASSES,
    "model.norm": models.NORMS,
    "loss.proxies": ("", "references", "anchors"),
    "loss.average": losses.AVERAGES,
    "evaluate.checkpoint": ("best", "last"),
    "optimizer.name": ("adam", "adamw", "sgd"),
    "optimizer.decay": ("constant", "cosine"),
}

# Fields of a data set that has its images, or its features, as they are.
_OF_FILES = ("image_size", "channels", "invert", "bad_images", "class_level")
_OF_FILES += ("fit", "background", "max_pixels")
# What a table of tensorflow-datasets, which has no folders, leaves unread.
OF_FOLDERS = ("class_level",)
UNUSED = {
    "digits": ("path", "split_by", *_OF_FILES, *settings.OF_TABLES),
    "arrays": (*_OF_FILES, *settings.OF_TABLES),
    "pairs": ("split_by", *_OF_FILES, *settings.OF_TABLES),
    "folder": settings.OF_TABLES,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that makes no sense, or not on this machine.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    check_anywhere(config)
    check_batches.check_machine(config)


def check_anywhere(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that makes no sense on any machine, such as one that somebody edited.

    A run of eight devices passes on a machine of one, and so does one whose input files are gone.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    _check_types(config)
    fields = settings.flat(config)
    for field, allowed in NAMES.items():
        errors.check_known(field, fields[field], allowed)
    components.check(config)
    for field, value in fields.items():
        if value is not None and field in RANGES:
            check_range(field, value)
        elif value is not None and check_schedules.is_knob(field) and not math.isfinite(value):
            raise errors.InputError(f"{field}={value} must be a finite number.")
    check_schedules.check(config)
    _check_ends(config)
    _check_data(config)
    check_batches.check(config)
    _check_idle(config)
    check_losses.check_mix(config)
    _check_optimizer(config)
    check_losses.check(config)


def _check_types(config):
    """Refuses what a file can hold in place of a value: null, a number for a text, a bare section.

    `ml_collections` takes None for any field, and True for a number.
    """
    _check_section("", config, base.like(config))
    for name, record in config.schedules.items():
        if not isinstance(record, _SECTIONS):
            raise errors.InputError(
                f"schedules.{name}={record!r} must be a section of fields; make it with"
                " configs.base.schedule(field, ...)."
            )
        _check_section(f"schedules.{name}.", record, base.schedule(""))


_SECTIONS = (ml_collections.ConfigDict, ml_collections.FrozenConfigDict)
_KINDS = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    tuple: ((tuple,), "a list"),
}


def _check_section(prefix, section, usual):
    # What no knob or schedule has is refused where they are looked at.
    if not prefix.endswith(".knobs.") and not prefix.startswith("schedules."):
        known = [f"{prefix}{name}" for name in usual]
        for name in section:
            errors.check_known("config field", f"{prefix}{name}", known)
    for name in usual:
        if name not in section:  # of a schedule, where that is reported
            continue
        value, field, kind = section[name], f"{prefix}{name}", usual.get_type(name)
        if isinstance(usual[name], ml_collections.ConfigDict):
            if not isinstance(value, _SECTIONS):
                raise errors.InputError(f"{field}={value!r} must be a section of fields.")
            _check_section(f"{field}.", value, usual[name])
            continue
        kinds, words = _KINDS[kind]
        may_be_none = usual[name] is None and value is None
        right = isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)
        if not (right or may_be_none):
            raise errors.InputError(f"{field}={value!r} must be {words}.")
        if kind is tuple and not all(isinstance(x, str | int | float) for x in value):
            raise errors.InputError(f"{field}={value!r} must be a list of texts or numbers.")


def _check_ends(config):
    """Refuses schedules that lead a field out of its range."""
    for name, c in sorted(config.schedules.items()):
        for end in ("start", "end"):
            if c.field in RANGES:
                check_range(c.field, c[end], f"schedules.{name}.{end}")


def _check_data(config):
    c = config.dataset
    if c.channels not in (1, 3):
        raise errors.InputError(f"dataset.channels={c.channels} must be 1 (grey) or 3 (colour).")
    if c.test_fraction + c.validation_fraction >= 1:
        raise errors.InputError(
            f"dataset.test_fraction={c.test_fraction} and dataset.validation_fraction="
            f"{c.validation_fraction} leave nothing to train on; together they must be below 1."
        )


def _check_optimizer(config):
    c = config.optimizer
    if c.weight_decay and c.name != "adamw":
        raise errors.InputError(
            f"optimizer.weight_decay={c.weight_decay} has no effect with optimizer.name={c.name!r}:"
            " set optimizer.name='adamw', or the decay to 0."
        )
    if c.warmup_steps >= config.train.steps:
        raise errors.InputError(
            f"optimizer.warmup_steps={c.warmup_steps} must be below"
            f" train.steps={config.train.steps}."
        )


def _check_idle(config):
    """Refuses fields that nothing reads, and what begins after the last step."""
    c = config
    # By what, whether it is so, and the fields that then have no effect.
    unused = UNUSED.get(c.dataset.name, () if import_paths.is_path(c.dataset.name) else OF_FOLDERS)
    idle = {
        f"dataset.name={c.dataset.name!r}": (
            bool(unused),
            [f"dataset.{field}" for field in unused],
        ),
        f"dataset.name={c.dataset.name!r}, which has no features": (
            c.dataset.name not in ("arrays", "pairs"),
            ("dataset.standardise",),
        ),
        "memory.size=0": (
            not c.memory.size,
            ("memory.start", "memory.weight", "memory.miner"),
        ),
        f"loss.name={c.loss.name!r}, which has no triplets": (
            c.loss.name != "triplet",
            ("loss.penalty", "loss.average", "mining.second", "mining.metric", "memory.miner"),
        ),
        "model.projection=0": (not c.model.projection, ("model.projection_dim",)),
        "loss.proxies=''": (not c.loss.proxies, ("optimizer.proxies_rate",)),
        "optimizer.name other than 'sgd'": (c.optimizer.name != "sgd", ("optimizer.momentum",)),
        "offline.every=0 and offline.table=''": (
            not (c.offline.every or c.offline.table),
            ("offline.near", "offline.neighbours"),
        ),
        "dataset.images_as_classes=True, which uses no labels": (
            c.dataset.images_as_classes,
            ("dataset.label_noise",),
        ),
    }
    fields, usual = settings.flat(config), settings.flat(base.get_config())
    for by, (is_idle, names) in idle.items():
        for name in names if is_idle else ():
            if fields[name] != usual[name]:
                raise errors.InputError(
                    f"{name}={fields[name]!r} has no effect with {by}: leave it out."
                )
    for field in ("memory.start", "offline.every"):
        if fields[field] >= c.train.steps:
            raise errors.InputError(
                f"{field}={fields[field]} is not reached within train.steps={c.train.steps}: make"
                " it smaller, or train for longer."
            )


def check_range(field: str, value: float, name: str | None = None) -> None:
    """Refuses a number that is not within the range of its field; `name` is what it is called.

    Raises:
      InputError: naming the field, its value and the range.
    """
    lowest, highest, closed = RANGES[field]
    if highest is None and isinstance(value, int):
        highest = MOST_COUNTED
    low = value >= lowest if closed else value > lowest
    if not (low and (highest is None or value <= highest) and math.isfinite(value)):
        above = f"at least {lowest}" if closed else f"more than {lowest}"
        below = "" if highest is None else f" and at most {highest}"
        raise errors.InputError(f"{name or field}={value} must be a finite number, {above}{below}.")
