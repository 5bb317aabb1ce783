"""Refuses configs that make no sense, before anything is trained."""

import functools
import inspect
import math
import pathlib

import jax
import jax.numpy as jnp
import ml_collections

from configs import base
from experiments import objective, settings
from triplet_jax import (
    contrastive,
    distances,
    errors,
    images,
    label_noise,
    losses,
    mining,
    models,
    rules,
    sampling,
    schedules,
)

MOST_COUNTED = 2**31 - 1  # by an integer of 32 bits
# field: lowest, highest or None, and whether the lowest itself is allowed
RANGES = {
    "seed": (0, None, True),
    "dataset.image_size": (2, 4096, True),
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
    "evaluate.ways": (2, None, True),
    "evaluate.episodes": (2, None, True),
    "log.every": (1, None, True),
    "log.telemetry_every": (0, None, True),
}

NAMES = {
    "dataset.bad_images": images.BAD_IMAGES,
    "dataset.noise_kind": label_noise.KINDS,
    "dataset.placement": ("device", "stream"),
    "batch.order": ("easy", "hard", "random"),
    "batch.small_classes": sampling.SMALL_CLASSES,
    "model.name": models.BACKBONES,
    "model.norm": models.NORMS,
    "mining.miner": mining.MINERS,
    "loss.metric": distances.METRICS,
    "loss.name": ("triplet", *contrastive.LOSSES),
    "loss.proxies": ("", "references", "anchors"),
    "loss.penalty": losses.PENALTIES,
    "loss.average": losses.AVERAGES,
    "evaluate.checkpoint": ("best", "last"),
    "optimizer.name": ("adam", "adamw", "sgd"),
    "optimizer.decay": ("constant", "cosine"),
}


# Fields of a data set that has its images, or its features, as they are.
_OF_FILES = ("image_size", "channels", "invert", "bad_images")
UNUSED = {
    "digits": ("path", "split_by", *_OF_FILES),
    "arrays": _OF_FILES,
    "pairs": ("split_by", *_OF_FILES),
}

# Numbers outside of the knobs that a schedule may move, and schedules beside Wu's pacings.
MOVABLE = ("loss.margin", "loss.norm_weight", "loss.spread_weight", "memory.weight", "mining.mix")
MOVABLE += ("batch.pool", "batch.same_group")
# The rows of a batch that count; the batch keeps its shape, that of the config.
MOVABLE += ("batch.classes", "batch.per_class")
OTHER_KINDS = ("constant", "cosine", "piecewise", "self_paced")


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses values that no data set can make sense of.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    fields = settings.flat(config)
    for field, allowed in NAMES.items():
        errors.check_known(field, fields[field], allowed)
    if config.memory.miner:
        errors.check_known("memory.miner", config.memory.miner, mining.MINERS)
    if config.model.second:
        errors.check_known("model.second", config.model.second, models.BACKBONES)
    _check_memory(config)
    _check_views(config)
    _check_offline(config)
    _check_pairs(config)
    if config.mining.second:
        errors.check_known("mining.second", config.mining.second, mining.MINERS)
    for field, value in fields.items():
        if value is not None and field in RANGES:
            _check_range(field, value)
        elif value is not None and _is_knob_field(field) and not math.isfinite(value):
            raise errors.InputError(f"{field}={value} must be a finite number.")
    _check_idle(config)
    _check_schedules(config)
    _check_pool(config)
    _check_mix(config)
    if config.optimizer.weight_decay and config.optimizer.name != "adamw":
        raise errors.InputError(
            f"optimizer.weight_decay={config.optimizer.weight_decay} has no effect with"
            f" optimizer.name={config.optimizer.name!r}: set optimizer.name='adamw', or the decay"
            " to 0."
        )
    if config.dataset.channels not in (1, 3):
        raise errors.InputError(
            f"dataset.channels={config.dataset.channels} must be 1 (grey) or 3 (colour)."
        )
    if config.dataset.test_fraction + config.dataset.validation_fraction >= 1:
        raise errors.InputError(
            f"dataset.test_fraction={config.dataset.test_fraction} and dataset.validation_fraction="
            f"{config.dataset.validation_fraction} leave nothing to train on; together they must"
            " be below 1."
        )
    if config.optimizer.warmup_steps >= config.train.steps:
        raise errors.InputError(
            f"optimizer.warmup_steps={config.optimizer.warmup_steps} must be below"
            f" train.steps={config.train.steps}."
        )
    _check_loss(config)
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
    _check_towers(config)


def _check_idle(config):
    """Refuses fields that nothing reads, and what begins after the last step."""
    c = config
    # By what, whether it is so, and the fields that then have no effect.
    idle = {
        f"dataset.name={c.dataset.name!r}": (
            c.dataset.name in UNUSED,
            [f"dataset.{field}" for field in UNUSED.get(c.dataset.name, ())],
        ),
        "memory.size=0": (
            not c.memory.size,
            ("memory.start", "memory.weight", "memory.miner"),
        ),
        f"loss.name={c.loss.name!r}, which has no triplets": (
            c.loss.name != "triplet",
            ("loss.penalty", "loss.average", "mining.second", "memory.miner"),
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


def _check_offline(config):
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


def _check_views(config):
    """Refuses images as classes where two views of one would be the same, or are refused."""
    if not config.dataset.images_as_classes:
        return
    if not any(config.augment.values()):
        raise errors.InputError(
            "dataset.images_as_classes=True compares random views of an image, but augment changes"
            " nothing: set augment.crop, augment.rotate or another of its fields."
        )
    if config.batch.small_classes != "redraw":
        raise errors.InputError(
            f"batch.small_classes={config.batch.small_classes!r}, but dataset.images_as_classes="
            "True makes classes of one image: set it to 'redraw'."
        )
    for field in ("pool", "same_group"):
        moved = any(c.field == f"batch.{field}" for c in config.schedules.values())
        if moved or config.batch[field] != base.get_config().batch[field]:
            raise errors.InputError(
                f"batch.{field} has no effect with dataset.images_as_classes=True: leave it out."
            )


def _check_pairs(config):
    """Refuses what would tear pairs apart or change their order."""
    if config.dataset.name != "pairs":
        return
    needed = {
        "model.towers": 2,
        "dataset.images_as_classes": False,
        "dataset.turns_as_classes": False,
        "dataset.label_noise": 0.0,
        "batch.order": "easy",
        "batch.scores": "",
    }
    _check_needed(config, needed, "dataset.name='pairs'")


def _check_needed(config, needed, by):
    """Refuses fields that have another value than what is set needs."""
    fields = settings.flat(config)
    for field, value in needed.items():
        if fields[field] != value:
            raise errors.InputError(
                f"{field}={fields[field]!r} does not go with {by}: set it to {value!r}."
            )


def _check_towers(config):
    """Refuses batches whose rows cannot be shared by two encoders, and what is not between them."""
    c = config.model
    if c.towers == 1:
        if c.second:
            raise errors.InputError(
                f"model.second={c.second!r} has no effect with model.towers=1: set that to 2, or"
                " leave it out."
            )
        return
    needed = {"batch.per_class": 2, "memory.size": 0, "loss.proxies": ""}
    needed |= {"offline.every": 0, "offline.table": ""}  # which would change the order of pairs
    _check_needed(config, needed, "model.towers=2, which compares the rows of two encoders")
    for schedule in config.schedules.values():
        if schedule.field in ("batch.classes", "batch.per_class"):
            raise errors.InputError(
                f"A schedule of {schedule.field} does not go with model.towers=2: leave it out."
            )
    parts = jax.device_count() * config.train.micro_batches
    rows = config.batch.classes * config.batch.per_class // parts
    if rows % 2:
        raise errors.InputError(
            f"batch.classes={config.batch.classes} gives {rows} rows to each of {parts} parts of a"
            " batch, but two encoders need an even number, for whole pairs: make batch.classes a"
            f" multiple of {parts}."
        )


def _check_memory(config):
    batch = config.batch.classes * config.batch.per_class
    c = config.memory
    if c.of_average and not (c.size and config.optimizer.average_decay):
        raise errors.InputError(
            f"memory.of_average=True with memory.size={c.size} and optimizer.average_decay="
            f"{config.optimizer.average_decay}: it needs both, such as 4096 and 0.999."
        )
    moves = "memory.weight" in [s.field for s in config.schedules.values()]
    weighs = c.weight != 1 or moves
    if moves and not c.size:
        raise errors.InputError(
            "A schedule of memory.weight has no effect with memory.size=0: set that, or leave the"
            " schedule out."
        )
    if c.of_average and (weighs or c.miner or config.mining.second):
        raise errors.InputError(
            "memory.weight, memory.miner and mining.second have no effect with memory.of_average="
            "True, whose loss is one: leave them out."
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


def _check_range(field, value, name=None):
    lowest, highest, closed = RANGES[field]
    if highest is None and isinstance(value, int):
        highest = MOST_COUNTED
    low = value >= lowest if closed else value > lowest
    if not (low and (highest is None or value <= highest) and math.isfinite(value)):
        above = f"at least {lowest}" if closed else f"more than {lowest}"
        below = "" if highest is None else f" and at most {highest}"
        raise errors.InputError(f"{name or field}={value} must be a finite number, {above}{below}.")


def _check_schedules(config):
    """Refuses schedules of fields that are none, or do not move, or leave their range."""
    defaults = base.get_config()
    fields = settings.flat(config)
    seen: dict[str, str] = {}
    for name, c in sorted(config.schedules.items()):
        own = f"schedules.{name}"
        unknown = set(c) ^ set(base.schedule(""))
        if unknown:
            raise errors.InputError(
                f"{own} lacks or does not know {', '.join(sorted(unknown))}; make it with"
                " configs.base.schedule(field, ...)."
            )
        errors.check_known(f"{own}.field", c.field, fields)
        owner, _, leaf = c.field.rpartition(".")
        movable = c.field in MOVABLE or _is_knob_field(c.field)
        if not movable or defaults[owner].get_type(leaf) not in (int, float):
            raise errors.InputError(
                f"{own}.field={c.field!r} cannot move while training. What can:"
                f" {', '.join(MOVABLE)}, and the numbers of mining.knobs and loss.knobs."
            )
        if c.field in seen:
            raise errors.InputError(
                f"{own}.field={c.field!r} is moved by schedules.{seen[c.field]} too; keep one."
            )
        seen[c.field] = name
        errors.check_known(f"{own}.kind", c.kind, (*schedules.PACINGS, *OTHER_KINDS))
        errors.check_known(f"{own}.order", c.order, schedules.ORDERS)
        for end in ("start", "end"):
            if c.field in RANGES:
                _check_range(c.field, c[end], f"{own}.{end}")
            elif not math.isfinite(c[end]):
                raise errors.InputError(f"{own}.{end}={c[end]} must be a finite number.")
        if (
            c.field in ("batch.classes", "batch.per_class")
            and max(c.start, c.end) > fields[c.field]
        ):
            raise errors.InputError(
                f"{own} moves {c.field} up to {max(c.start, c.end)}, more than"
                f" {c.field}={fields[c.field]}, which is the batch's shape: raise that."
            )
        _check_pace(config, own, c)


def _check_pace(config, own, c):
    within = {
        "a": (c.a, 0 < c.a < math.inf, "above 0 and finite"),
        "b": (c.b, 0 <= c.b <= 1, "from 0 to 1"),
        "target": (c.target, 0 <= c.target <= 1, "from 0 to 1"),
        "rate": (c.rate, 0 < c.rate <= 1, "above 0 and at most 1"),
        "decay": (c.decay, 0 <= c.decay < 1, "at least 0 and below 1"),
        "boundaries": (
            c.boundaries,
            all(0 <= x <= 1 for x in c.boundaries),
            "shares of training, 0 to 1",
        ),
        "levels": (c.levels, all(0 <= v <= 1 for v in c.levels), "shares of the way, 0 to 1"),
    }
    for field, (value, allowed, words) in within.items():
        if not allowed:
            raise errors.InputError(f"{own}.{field}={value} must be {words}.")
    if c.kind == "piecewise":
        schedules.piecewise(boundaries=c.boundaries, values=c.levels)
    if c.kind == "self_paced" and c.order == "random":
        raise errors.InputError(
            f"{own}.order='random' cannot shuffle what is not known in advance: choose another"
            " order, or another kind than 'self_paced'."
        )
    streamed = config.dataset.placement == "stream" and c.field.startswith("batch.")
    if c.kind == "self_paced" and streamed:
        raise errors.InputError(
            f"{own}.kind='self_paced' moves {c.field} by what the step finds out, but a stream is"
            " loaded ahead: set dataset.placement='device', or choose a pacing."
        )


def _check_pool(config):
    moved = {c.field: (c.start, c.end) for c in config.schedules.values()}
    smaller = min(moved.get("batch.pool", (1,))) < 1 or config.batch.pool < 1
    if smaller and config.batch.order != "random" and not config.batch.scores:
        raise errors.InputError(
            f"batch.pool is below 1 and batch.order={config.batch.order!r}, but batch.scores is"
            " empty: make a file with python -m experiments.score, or set batch.order='random'."
        )
    if config.batch.scores and not pathlib.Path(config.batch.scores).is_file():
        raise errors.InputError(
            f"batch.scores={config.batch.scores!r} is not a file: make it with python -m"
            " experiments.score."
        )


def _check_mix(config):
    moves = any(c.field == "mining.mix" for c in config.schedules.values())
    if (moves or config.mining.mix) and not config.mining.second:
        how = "is scheduled" if moves else f"is {config.mining.mix}"
        raise errors.InputError(
            f"mining.mix {how}, but mining.second is empty: name the other miner."
        )


def _check_knobs(field, knobs, owner, function, given) -> None:
    """Refuses knobs that the miner or the penalty of the field `owner` does not have."""
    takes = {p.name for p in inspect.signature(function).parameters.values() if _is_knob(p)}
    takes -= set(given)
    for knob in knobs:
        if knob not in takes:
            has = f"its knobs are {', '.join(sorted(takes))}" if takes else "it has none"
            raise errors.InputError(f"{field}: {owner} has no knob {knob!r}; {has}.")


def _is_knob_field(field):
    return field.startswith(("mining.knobs.", "loss.knobs."))


def _leaves(fields, owner):
    return [field.removeprefix(f"{owner}.") for field in fields if field.startswith(f"{owner}.")]


def _is_knob(parameter):
    return parameter.kind is parameter.KEYWORD_ONLY


def _check_loss_name(config: ml_collections.ConfigDict) -> None:
    """Refuses fields that the loss does not use, and proxies without their number."""
    c = config.loss
    if c.proxies and c.name == "triplet":
        raise errors.InputError(
            f"loss.proxies={c.proxies!r} goes with no triplet loss: set loss.name to one of"
            f" {', '.join(contrastive.LOSSES)}."
        )
    if (c.name == "proxy_anchor") != (c.proxies == "anchors"):
        raise errors.InputError(
            f"loss.name={c.name!r} with loss.proxies={c.proxies!r}: 'anchors' goes with"
            " 'proxy_anchor', and nothing else does."
        )
    if c.proxies and c.num_classes < 2:
        raise errors.InputError(
            f"loss.num_classes={c.num_classes}, but loss.proxies={c.proxies!r} needs a proxy for"
            " each training class: set it to their number."
        )
    if c.name == "triplet":
        return
    for schedule in config.schedules.values():
        if schedule.kind == "self_paced" or schedule.field in ("loss.margin", "mining.mix"):
            raise errors.InputError(
                f"A schedule of {schedule.field} of kind {schedule.kind!r} needs triplets, and"
                f" loss.name={c.name!r} has none: set loss.name='triplet'."
            )


def _check_regularisers(config: ml_collections.ConfigDict) -> None:
    if "norm" in objective.regularised_by(config) and config.model.normalize:
        raise errors.InputError(
            f"loss.norm_weight={config.loss.norm_weight} would add a constant, since with"
            " model.normalize=True every embedding has length 1: set model.normalize=False, or"
            " loss.norm_weight=0."
        )


def _check_nested(config: ml_collections.ConfigDict) -> None:
    dims, dim = config.loss.nested_dims, config.model.dim
    if not dims:
        return
    if config.model.projection:
        raise errors.InputError(
            f"loss.nested_dims={dims} would be of what the projection head gives, which evaluation"
            f" leaves out: set model.projection={config.model.projection} to 0, or"
            " loss.nested_dims=()."
        )
    whole = all(type(d) is int and 2 <= d <= dim for d in dims)
    if not whole or sorted(set(dims)) != list(dims) or dims[-1] != dim:
        kept = sorted({d for d in dims if type(d) is int and 2 <= d < dim} | {dim})
        raise errors.InputError(
            f"loss.nested_dims={dims} must be whole numbers that rise from at least 2 to"
            f" model.dim={dim}, which is the last: set it to {tuple(kept)}, or to () for none."
        )


def _check_loss(config: ml_collections.ConfigDict) -> None:
    c, m = config.loss, config.mining
    owner = f"mining.miner={m.miner!r}"
    function = mining.MINERS[m.miner]
    moved = [c.field for c in config.schedules.values()]
    set_and_moved = [*settings.knobs(m.knobs), *_leaves(moved, "mining.knobs")]
    _check_knobs("mining.knobs", set_and_moved, owner, function, rules.GIVEN_TO_MINERS)
    _check_loss_name(config)
    _check_regularisers(config)
    _check_nested(config)
    owner, function = objective.of_loss(config)
    set_and_moved = [*settings.knobs(c.knobs), *_leaves(moved, "loss.knobs")]
    for field, knobs in (("loss.knobs", set_and_moved), ("loss.learned", c.learned)):
        _check_knobs(field, knobs, owner, function, rules.GIVEN_TO_PENALTIES)
    for knob in c.learned:
        if f"loss.knobs.{knob}" in moved:
            raise errors.InputError(
                f"loss.learned={c.learned} learns {knob}, which a schedule moves: take it out of"
                " loss.learned, or leave the schedule out."
            )
    batch = jax.ShapeDtypeStruct((2, objective.dim(config)), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    # What only the library knows, such as the metric that a miner needs.
    run = functools.partial(objective.loss(config), axis_name=None, **objective.learned(config))
    jax.eval_shape(run, batch, labels, key=jax.random.key(0))
