"""From config fields to objects: the only place that knows both."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import optax

from triplet_jax import (
    augment,
    collectives,
    data,
    distances,
    errors,
    images,
    losses,
    mining,
    models,
    sampling,
    sweep,
    train_step,
)
from triplet_jax import telemetry as measurements

# field: lowest, highest, and whether the lowest itself is allowed
RANGES = {
    "seed": (0, 2**31 - 1, True),
    "dataset.image_size": (2, 4096, True),
    "dataset.test_fraction": (0, 0.9, True),
    "dataset.validation_fraction": (0, 0.9, True),
    "dataset.split_seed": (0, 2**31 - 1, True),
    "dataset.workers": (0, 1024, True),
    "batch.classes": (2, None, True),
    "batch.per_class": (2, None, True),
    "augment.crop": (0, None, True),
    "augment.shift": (0, None, True),
    "augment.rotate": (0, 180, True),
    "augment.scale": (0, 2, True),
    "augment.shear": (0, 60, True),
    "augment.noise": (0, None, True),
    "model.width": (1, None, True),
    "model.dim": (1, None, True),
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
    "loss.knobs.temperature": (0, None, False),
    "loss.margin": (0, None, True),
    "loss.p": (1, None, True),
    "optimizer.learning_rate": (0, None, False),
    "optimizer.warmup_steps": (0, None, True),
    "optimizer.weight_decay": (0, None, True),
    "optimizer.momentum": (0, 1, True),
    "optimizer.clip_norm": (0, None, True),
    "optimizer.average_decay": (0, 0.999999, True),
    "train.steps": (1, 2**31 - 1, True),
    "evaluate.every": (1, None, True),
    "evaluate.ways": (2, None, True),
    "evaluate.episodes": (2, None, True),
    "log.every": (1, None, True),
    "log.telemetry_every": (0, None, True),
}

NAMES = {
    "dataset.bad_images": images.BAD_IMAGES,
    "dataset.placement": ("device", "stream"),
    "batch.small_classes": sampling.SMALL_CLASSES,
    "model.name": models.BACKBONES,
    "model.norm": models.NORMS,
    "mining.miner": mining.MINERS,
    "loss.metric": distances.METRICS,
    "loss.penalty": losses.PENALTIES,
    "loss.average": losses.AVERAGES,
    "optimizer.name": ("adam", "adamw", "sgd"),
    "optimizer.decay": ("constant", "cosine"),
}


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses values that no data set can make sense of.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    fields = flat(config)
    for field, allowed in NAMES.items():
        errors.check_known(field, fields[field], allowed)
    for field, (lowest, highest, closed) in RANGES.items():
        value = fields[field]
        if value is None:
            continue
        low = value >= lowest if closed else value > lowest
        if not (low and math.isfinite(value) and (highest is None or value <= highest)):
            above = f"at least {lowest}" if closed else f"more than {lowest}"
            below = "" if highest is None else f" and at most {highest}"
            raise errors.InputError(f"{field}={value} must be a finite number, {above}{below}.")
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


def flat(config: ml_collections.ConfigDict) -> dict:
    """The fields by their dotted names."""
    return flax.traverse_util.flatten_dict(config.to_dict(), sep=".")


def dataset(config: ml_collections.ConfigDict) -> data.Dataset:
    """All examples, every one with its split; decoded already if they are to fit on the device."""
    everything = _open_dataset(config.dataset)
    if config.dataset.placement == "device":
        return dataclasses.replace(everything, inputs=images.load(everything.inputs))
    return everything


def _open_dataset(c):
    split = {
        "test_fraction": c.test_fraction,
        "validation_fraction": c.validation_fraction,
        "seed": c.split_seed,
    }
    if c.name == "digits":
        return data.digits(**split)
    if c.name == "arrays":
        return data.arrays(c.path, split_by=c.split_by, **split)
    form = images.ImageForm(size=c.image_size, channels=c.channels, invert=c.invert)
    if c.name == "folder":
        return data.folder(c.path, form=form, split_by=c.split_by, bad_images=c.bad_images, **split)
    return data.from_tfds(c.name, data_dir=c.data_dir, form=form, split_by=c.split_by, **split)


def training_split(config: ml_collections.ConfigDict, everything: data.Dataset) -> data.Dataset:
    """The examples that batches are drawn from."""
    train = everything.only("train")
    if config.dataset.turns_as_classes:
        if len(train.input_shape) != 3 or train.input_shape[0] != train.input_shape[1]:
            raise errors.InputError(
                "dataset.turns_as_classes=True needs square images, not inputs of shape"
                f" {train.input_shape}; set it to False."
            )
        train = data.quarter_turns_as_classes(train)
    return sampling.fit_classes(
        train,
        classes=config.batch.classes,
        per_class=config.batch.per_class,
        small_classes=config.batch.small_classes,
    )


def encoder(config: ml_collections.ConfigDict, input_shape: tuple[int, ...]) -> models.Encoder:
    """The model, with batch statistics over all devices."""
    c = config.model
    if c.name != "mlp" and len(input_shape) != 3:
        raise errors.InputError(
            f"model.name={c.name!r} needs images, but an input has shape {input_shape}. Set"
            " model.name='mlp'."
        )
    return models.encoder(
        c.name,
        dim=c.dim,
        normalize=c.normalize,
        norm=c.norm,
        axis_name=collectives.DEVICES,
        width=c.width,
    )


def augmentation(
    config: ml_collections.ConfigDict, input_shape: tuple[int, ...]
) -> Callable | None:
    """The random changes to an image; None where there are none."""
    c = config.augment
    if not any(c.values()):
        return None
    if len(input_shape) != 3:
        raise errors.InputError(
            f"augment changes images, but an input has shape {input_shape}; set its fields to 0."
        )
    if c.turn and input_shape[0] != input_shape[1]:
        raise errors.InputError(f"augment.turn=True needs square images, not {input_shape}.")
    return augment.chain(
        crop_pixels=c.crop,
        flip_sides=c.flip,
        turn=c.turn,
        shift=c.shift,
        rotate=c.rotate,
        scale=c.scale,
        shear=c.shear,
        noise_std=c.noise,
    )


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """A linear rise, then a half cosine to 0 at the last step, or a constant."""
    c, steps = config.optimizer, config.train.steps
    rest = steps - c.warmup_steps
    after = (
        optax.cosine_decay_schedule(c.learning_rate, rest)
        if c.decay == "cosine"
        else optax.constant_schedule(c.learning_rate)
    )
    if not c.warmup_steps:
        return after
    rise = optax.linear_schedule(0.0, c.learning_rate, c.warmup_steps)
    return optax.join_schedules([rise, after], [c.warmup_steps])


def optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """The optimizer, after clipping."""
    c, rate = config.optimizer, learning_rate(config)
    if c.name == "adam":
        update = optax.adam(rate)
    elif c.name == "adamw":
        # Weights decay, the learned numbers of a loss do not.
        update = optax.adamw(rate, weight_decay=c.weight_decay, mask=(True, False))
    else:
        update = optax.sgd(rate, momentum=c.momentum)
    if c.clip_norm:
        return optax.chain(optax.clip_by_global_norm(c.clip_norm), update)
    return update


def initial_state(
    config: ml_collections.ConfigDict, encoder: models.Encoder, input_shape: tuple[int, ...]
) -> train_step.TrainState:
    """The state before the first step, of the config's seed."""
    init_key, _ = keys(config)
    return train_step.init_state(
        encoder,
        optimizer(config),
        jnp.zeros((1, *input_shape)),
        key=init_key,
        averaged=config.optimizer.average_decay > 0,
        learned=learned(config),
    )


def keys(config: ml_collections.ConfigDict) -> tuple[jax.Array, jax.Array]:
    """The key of the initial weights, and that of everything drawn while training."""
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    return init_key, run_key


def miner(config: ml_collections.ConfigDict) -> Callable:
    """The miner with its knobs."""
    return functools.partial(mining.MINERS[config.mining.miner], **_knobs(config.mining.knobs))


def telemetry(config: ml_collections.ConfigDict) -> Callable | None:
    """What the step measures about mining; None if that is off."""
    if not config.log.telemetry_every:
        return None
    measure = functools.partial(
        measurements.of_batch,
        miner=miner(config),
        margin=config.loss.margin,
        most_positives=config.batch.per_class - 1,
        metric=config.loss.metric,
        metric_params=_metric_params(config.loss),
        per_anchor=config.log.telemetry_per_anchor,
    )
    return measurements.every(config.log.telemetry_every, measure)


def loss(config: ml_collections.ConfigDict) -> Callable:
    """The loss as the step calls it: learned knobs of the penalty come by name."""
    c = config.loss
    penalty = functools.partial(losses.PENALTIES[c.penalty], **_knobs(c.knobs))

    def triplet_loss(embeddings, labels, *, key, axis_name, **learned):
        return losses.triplet_loss(
            embeddings,
            labels,
            miner=miner(config),
            tile_size=config.mining.tile_size or None,
            metric=c.metric,
            metric_params=_metric_params(c),
            penalty=functools.partial(penalty, **learned),
            margin=c.margin,
            average=c.average,
            key=key,
            axis_name=axis_name,
        )

    return triplet_loss


def learned(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Where the learned knobs of the penalty start."""
    penalty = losses.PENALTIES[config.loss.penalty]
    defaults = {name: p.default for name, p in inspect.signature(penalty).parameters.items()}
    start = defaults | _knobs(config.loss.knobs)
    return {name: start[name] for name in config.loss.learned}


def collapsed_loss(config: ml_collections.ConfigDict) -> float:
    """The loss of an embedding that maps everything to one point."""
    penalty = losses.PENALTIES[config.loss.penalty]
    names = inspect.signature(penalty).parameters
    given = {name: jnp.float32(0) for name in sweep.GIVEN_TO_PENALTIES if name in names}
    knobs = _knobs(config.loss.knobs) | given
    return float(penalty(jnp.float32(0), jnp.float32(0), config.loss.margin, **knobs))


def _knobs(fields) -> dict:
    return {name: value for name, value in fields.items() if value is not None}


def _metric_params(c) -> dict:
    return {} if c.p is None else {"p": c.p}


def _check_knobs(field, knobs, owner, function, given) -> None:
    """Refuses knobs that the miner or the penalty of the field `owner` does not have."""
    takes = {p.name for p in inspect.signature(function).parameters.values() if _is_knob(p)}
    takes -= set(given)
    for knob in knobs:
        if knob not in takes:
            has = f"its knobs are {', '.join(sorted(takes))}" if takes else "it has none"
            raise errors.InputError(f"{field}: {owner} has no knob {knob!r}; {has}.")


def _is_knob(parameter):
    return parameter.kind is parameter.KEYWORD_ONLY


def _check_loss(config: ml_collections.ConfigDict) -> None:
    c, m = config.loss, config.mining
    owner = f"mining.miner={m.miner!r}"
    function = mining.MINERS[m.miner]
    _check_knobs("mining.knobs", _knobs(m.knobs), owner, function, sweep.GIVEN_TO_MINERS)
    owner = f"loss.penalty={c.penalty!r}"
    function = losses.PENALTIES[c.penalty]
    for field, knobs in (("loss.knobs", _knobs(c.knobs)), ("loss.learned", c.learned)):
        _check_knobs(field, knobs, owner, function, sweep.GIVEN_TO_PENALTIES)
    batch = jax.ShapeDtypeStruct((2, config.model.dim), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    # What only the library knows, such as the metric that a miner needs.
    run = functools.partial(loss(config), axis_name=None, **learned(config))
    jax.eval_shape(run, batch, labels, key=jax.random.key(0))
