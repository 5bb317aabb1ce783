"""From the fields of a config to the objects of a run: data, batches, model, optimizer, step."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import components, objective, settings
from triplet_jax import (
    augment,
    collectives,
    data,
    difficulty,
    errors,
    images,
    importing,
    label_noise,
    memory,
    models,
    sampling,
    standardise,
    train_step,
)


def dataset(config: ml_collections.ConfigDict) -> data.Dataset:
    """All examples, every one with its split; decoded already if they are to fit on the device."""
    everything = open_dataset(config.dataset)
    if config.dataset.placement == "device":
        return dataclasses.replace(everything, inputs=images.load(everything.inputs))
    return everything


def check_test(config: ml_collections.ConfigDict, everything: data.Dataset) -> None:
    """Refuses a data set whose test split can tell nothing.

    Raises:
      InputError: saying how many examples of how many classes there are, and what to change.
    """
    test = everything.only("test")
    if can_score(test):
        return
    raise errors.InputError(
        f"{_left('test', config, everything, test)} Raise dataset.test_fraction,"
        f" have more examples of a class{_or_split_otherwise(config)}."
    )


def can_score(split: data.Dataset) -> bool:
    """Whether retrieval among the examples of a split can come out well or badly: there are two
    classes, and two examples of one of them."""
    _, counts = np.unique(split.labels, return_counts=True)
    return len(counts) > 1 and counts.max() > 1


def note_on_validation(config: ml_collections.ConfigDict, everything: data.Dataset) -> str:
    """What a user must know of a validation split that can tell nothing; else empty."""
    validation = everything.only("validation")
    if not len(validation) or can_score(validation):
        return ""
    return (
        f"warning: {_left('validation', config, everything, validation)} So there is no validation"
        " score, and the last checkpoint is evaluated. To choose the best one, raise"
        f" dataset.validation_fraction, have more examples of a class"
        f"{_or_split_otherwise(config)}."
    )


def _left(name, config, everything, split):
    c = config.dataset
    by = f" with dataset.split_by={c.split_by!r}" if c.name in ("folder", "arrays") else ""
    sizes = f"{len(everything)} examples of {len(np.unique(everything.labels))} classes"
    said = f"dataset.{name}_fraction={c[f'{name}_fraction']}{by} leaves"
    if not len(split):
        return f"{said} none of {sizes} for the {name} split."
    why = "all are of one class"
    if len(np.unique(split.labels)) > 1:
        why = "no two are of one class"
    return (
        f"{said} {len(split)} of {sizes} for the {name} split, of which {why}, so that no score can"
        " tell a good embedding from a bad one."
    )


def _or_split_otherwise(config):
    if config.dataset.name not in ("folder", "arrays"):
        return ""
    return ", or set dataset.split_by to another way of splitting"


def open_dataset(c: ml_collections.ConfigDict) -> data.Dataset:
    """The same by the section `dataset`; images that files hold are not decoded yet."""
    split = {
        "test_fraction": c.test_fraction,
        "validation_fraction": c.validation_fraction,
        "seed": c.split_seed,
    }
    if c.name == "digits":
        return data.digits(**split)
    if c.name == "arrays":
        return data.arrays(c.path, split_by=c.split_by, **split)
    if c.name == "pairs":
        return data.pairs(c.path, **split)
    if importing.is_path(c.name):
        return components.dataset(c)
    form = image_form(c)
    if c.name == "folder":
        return data.folder(
            c.path,
            form=form,
            split_by=c.split_by,
            bad_images=c.bad_images,
            class_level=c.class_level,
            **split,
        )
    return data.from_tfds(
        c.name,
        data_dir=c.data_dir,
        form=form,
        split_by=c.split_by,
        **{field: c[field] for field in settings.OF_TABLES},
        **split,
    )


def image_form(c: ml_collections.ConfigDict) -> images.ImageForm:
    """What the images in files are brought to, by the fields of `config.dataset`."""
    return images.ImageForm(
        size=c.image_size,
        channels=c.channels,
        invert=c.invert,
        fit=c.fit,
        background=c.background,
        max_pixels=c.max_pixels,
    )


def training_split(
    config: ml_collections.ConfigDict, everything: data.Dataset
) -> tuple[data.Dataset, np.ndarray]:
    """The examples that batches are drawn from, with the labels that training is given.

    Also whether each example of the training split, as it stands in `everything`, is labelled
    wrongly on purpose.
    """
    c = config.dataset
    train = everything.only("train")
    given = given_labels(config, train)
    wrong = given != train.labels
    train = dataclasses.replace(train, labels=given)
    if config.batch.scores:
        train = difficulty.attach(train, difficulty.read(config.batch.scores, everything))
    if c.drop_noisy:
        train = train.take(np.flatnonzero(~wrong))
    if c.turns_as_classes:
        if len(train.input_shape) != 3 or train.input_shape[0] != train.input_shape[1]:
            raise errors.InputError(
                "dataset.turns_as_classes=True needs square images, not inputs of shape"
                f" {train.input_shape}; set it to False."
            )
        train = data.quarter_turns_as_classes(train)
    if c.images_as_classes:
        train = data.images_as_classes(train)
    train = sampling.fit_classes(
        train,
        classes=config.batch.classes,
        per_class=config.batch.per_class,
        small_classes=config.batch.small_classes,
    )
    _check_pool_size(config, train)
    if config.loss.proxies:
        train = _numbered(config, train)
    return train, wrong


def _numbered(config, train):
    """The training split with its classes numbered from 0, as the table of proxies has them."""
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
    schedule = settings.scheduled(config).get("batch.pool")
    pool = min(schedule.start, schedule.end) if schedule else config.batch.pool
    smallest = np.unique(train.labels, return_counts=True)[1].min()
    holds = int(np.ceil(pool * smallest))
    if pool < 1 and holds < config.batch.per_class:
        least = min(1.0, config.batch.per_class / smallest)
        raise errors.InputError(
            f"batch.pool goes down to {pool}, which is {holds} of the {smallest} examples of the"
            f" smallest class, fewer than batch.per_class={config.batch.per_class}. Start it at"
            f" {least:.2f} or above."
        )


def given_labels(config: ml_collections.ConfigDict, train: data.Dataset) -> np.ndarray:
    """The labels of the training split, some of them wrong if the config plants noise."""
    c = config.dataset
    return label_noise.plant(
        train.labels, c.label_noise, kind=c.noise_kind, seed=c.noise_seed, groups=train.groups
    )


def class_index(config: ml_collections.ConfigDict, examples: data.Dataset) -> sampling.ClassIndex:
    """Where the examples of each class are, in the order in which the pool takes them in."""
    rank = {
        "easy": examples.difficulty,
        "hard": None if examples.difficulty is None else -examples.difficulty,
        "random": np.random.default_rng(config.seed).random(len(examples)),
    }[config.batch.order]
    index = sampling.class_index(examples.labels, rank=rank, groups=examples.groups)
    if not mines_offline(config):
        return index
    return index.beside(np.full((len(examples), config.offline.neighbours), -1, np.int32))


def mines_offline(config: ml_collections.ConfigDict) -> bool:
    """Whether batches are drawn from a table of near examples."""
    return bool(config.offline.every or config.offline.table)


def draw(config: ml_collections.ConfigDict) -> Callable:
    """The batch of a step, `(index, state) -> positions`, inside a compiled step."""
    moved = settings.moving(config)

    def of_state(index, state):
        numbers = moved(state.step, state.pace) if moved else {}
        return _pk_batch(config, jnp, index, state.step, numbers)

    return of_state


def draw_on_host(config: ml_collections.ConfigDict, index: sampling.ClassIndex) -> Callable:
    """The same as a function of the step alone, for the processes that load a stream."""
    moved = settings.moving(config)
    numbers = {}
    if moved and any(field.startswith("batch.") for field in settings.scheduled(config)):
        steps = jnp.arange(config.train.steps)
        pace = settings.first_pace(config)  # of other fields, which stay out
        every = jax.jit(jax.vmap(lambda step: moved(step, pace)))(steps)
        numbers = {f: np.asarray(x) for f, x in every.items() if f.startswith("batch.")}
    return functools.partial(_draw_at, ml_collections.FrozenConfigDict(config), index, numbers)


def _draw_at(config, index, numbers, step):
    numbers = {field: values[step] for field, values in numbers.items()}
    return _pk_batch(config, np, index, step, numbers)


def _pk_batch(config, xp, index, step, numbers):
    c = config.batch
    return sampling.pk_batch(
        xp,
        index,
        config.seed,
        step,
        classes=c.classes,
        per_class=c.per_class,
        pool=numbers.get("batch.pool", c.pool),
        same_group=numbers.get("batch.same_group", c.same_group),
        near=config.offline.near if mines_offline(config) else 0,
    )


def encoder(
    config: ml_collections.ConfigDict,
    input_shape: tuple[int, ...],
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> nn.Module:
    """The model, with batch statistics over all devices; `pair_shapes` are those of the data."""
    c = config.model
    shapes = pair_shapes or (input_shape, input_shape)
    features = [standardises(config, shape) for shape in shapes]
    first = _tower(c, "name", c.name, shapes[0], features[0])
    if c.towers == 1:
        return first
    second = _tower(c, "second", c.second or c.name, shapes[1], features[1])
    return models.TwoTowers(first, second, pair_shapes)


def standardises(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> bool:
    """Whether the encoder standardises inputs of this shape: features, unless turned off."""
    return config.dataset.standardise and len(shape) == 1


def input_statistics(config: ml_collections.ConfigDict, everything: data.Dataset) -> dict:
    """What the encoder's layers of that kind need, by the names of its parts; {} without any."""
    shapes = everything.pair_shapes or (everything.input_shape,)
    if not any(standardises(config, shape) for shape in shapes):
        return {}
    train = everything.only("train").inputs
    if everything.pair_shapes is None:
        found = [standardise.statistics(train)] * config.model.towers
    else:
        # Rows of the two arrays take turns, each filled up to one length.
        rows = [train[i::2, : shape[0]] for i, shape in enumerate(shapes)]
        found = [
            standardise.statistics(x) if standardises(config, shape) else None
            for x, shape in zip(rows, shapes, strict=True)
        ]
    layers = [{} if one is None else {standardise.LAYER: one} for one in found]
    if config.model.towers == 1:
        return layers[0]
    return dict(zip(("first", "second"), layers, strict=True))


def _tower(c, field, name, shape, standardised):
    backbone = components.backbone(f"model.{field}", name, shape)
    if name == backbone != "mlp" and len(shape) != 3:
        raise errors.InputError(
            f"model.{field}={name!r} needs images, but an input has shape {shape}. Set"
            f" model.{field}='mlp'."
        )
    return models.encoder(
        backbone,
        dim=c.dim,
        normalize=c.normalize,
        norm=c.norm,
        dropout=c.dropout,
        projection=c.projection,
        projection_dim=c.projection_dim,
        standardised=standardised,
        axis_name=collectives.DEVICES,
        width=c.width,
    )


def augmentation(
    config: ml_collections.ConfigDict, input_shape: tuple[int, ...]
) -> Callable | None:
    """The random changes to an image; None where there are none."""
    c = config.augment
    own = components.augmentation(c.own, input_shape) if c.own else None
    if not any(value for name, value in c.items() if name != "own"):
        return own
    chain = _chain(c, input_shape)
    if own is None:
        return chain

    def both(key, image):
        first, second = jax.random.split(key)
        return own(second, chain(first, image))

    return both


def _chain(c, input_shape):
    if len(input_shape) != 3:
        raise errors.InputError(
            f"augment changes images, but an input has shape {input_shape}; set its fields to 0."
        )
    if c.turn and input_shape[0] != input_shape[1]:
        raise errors.InputError(f"augment.turn=True needs square images, not {input_shape}.")
    if c.crop >= min(input_shape[:2]):
        raise errors.InputError(
            f"augment.crop={c.crop} may leave nothing of an image of {input_shape[0]} x"
            f" {input_shape[1]}: set it below {min(input_shape[:2])}."
        )
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
    if config.loss.proxies and c.proxies_rate != 1:
        update = optax.chain(update, optax.masked(optax.scale(c.proxies_rate), _is_proxies))
    if c.clip_norm:
        return optax.chain(optax.clip_by_global_norm(c.clip_norm), update)
    return update


def _is_proxies(parameters):
    params, learned = parameters
    return jax.tree.map(lambda _: False, params), {name: name == "proxies" for name in learned}


def initial_state(
    config: ml_collections.ConfigDict,
    encoder: nn.Module,
    input_shape: tuple[int, ...],
    measured: dict | None = None,
) -> train_step.TrainState:
    """The state before the first step, of the config's seed.

    `measured` is what `input_statistics` gives; where a checkpoint is read into the state it is
    not needed, since that holds it.
    """
    init_key, _ = settings.keys(config)
    state = train_step.init_state(
        encoder,
        optimizer(config),
        jnp.zeros((1, *input_shape)),
        key=init_key,
        averaged=config.optimizer.average_decay > 0,
        learned=objective.learned(config),
        pace=settings.first_pace(config),
        remembered=memory.empty(config.memory.size, objective.dim(config))
        if config.memory.size
        else None,
    )
    return state.replace(batch_stats=standardise.put(state.batch_stats, measured or {}))


def step(
    config: ml_collections.ConfigDict, encoder: nn.Module, augment: Callable | None
) -> Callable:
    """The step of one device, `(state, inputs, labels)`."""
    return functools.partial(
        train_step.train_step,
        encoder=encoder,
        optimizer=optimizer(config),
        loss=objective.loss(config),
        augment=augment,
        average_decay=config.optimizer.average_decay,
        learning_rate=learning_rate(config),
        moving=settings.moving(config),
        next_pace=settings.next_pace(config),
        telemetry=objective.telemetry(config),
        memory_start=config.memory.start,
        memory_of_average=config.memory.of_average,
        shown=functools.partial(objective.shown, config),
        micro_batches=config.train.micro_batches,
        positive=objective.POSITIVE,
        key=settings.keys(config)[1],
        axis_name=collectives.DEVICES,
    )
