"""From config fields to objects: the only place that knows both."""

import dataclasses
import functools
import inspect
from collections.abc import Callable

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs import base
from triplet_jax import (
    augment,
    collectives,
    contrastive,
    data,
    difficulty,
    engine,
    errors,
    images,
    label_noise,
    losses,
    memory,
    mining,
    models,
    sampling,
    schedules,
    train_step,
)
from triplet_jax import telemetry as measurements


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
    schedule = _scheduled(config).get("batch.pool")
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
    return sampling.class_index(examples.labels, rank=rank, groups=examples.groups)


def draw(config: ml_collections.ConfigDict) -> Callable:
    """The batch of a step, `(index, state) -> positions`, inside a compiled step."""
    moved = moving(config)

    def of_state(index, state):
        numbers = moved(state.step, state.pace) if moved else {}
        return _pk_batch(config, jnp, index, state.step, numbers)

    return of_state


def draw_on_host(config: ml_collections.ConfigDict, index: sampling.ClassIndex) -> Callable:
    """The same as a function of the step alone, for the processes that load a stream."""
    moved = moving(config)
    numbers = {}
    if moved and any(field.startswith("batch.") for field in _scheduled(config)):
        steps = jnp.arange(config.train.steps)
        pace = first_pace(config)  # of other fields, which stay out
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
    if config.loss.proxies and c.proxies_rate != 1:
        update = optax.chain(update, optax.masked(optax.scale(c.proxies_rate), _is_proxies))
    if c.clip_norm:
        return optax.chain(optax.clip_by_global_norm(c.clip_norm), update)
    return update


def _is_proxies(parameters):
    params, learned = parameters
    return jax.tree.map(lambda _: False, params), {name: name == "proxies" for name in learned}


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
        pace=first_pace(config),
        remembered=memory.empty(config.memory.size, config.model.dim)
        if config.memory.size
        else None,
    )


def keys(config: ml_collections.ConfigDict) -> tuple[jax.Array, jax.Array]:
    """The key of the initial weights, and that of everything drawn while training."""
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    return init_key, run_key


def with_numbers(config, numbers: dict | None):
    """The config with other numbers, which may be traced, at their dotted names."""
    if not numbers:
        return config
    moved = ml_collections.ConfigDict(config).copy_and_resolve_references()
    with moved.ignore_type():
        moved.update_from_flattened_dict(numbers)
    return moved


def _scheduled(config) -> dict:
    """The schedules by their fields."""
    return {c.field: c for _, c in sorted(config.schedules.items())}


def moving(config: ml_collections.ConfigDict) -> train_step.Moving | None:
    """The scheduled numbers, by their fields; None where nothing is scheduled."""
    scheduled = _scheduled(config)
    if not scheduled:
        return None
    _, run_key = keys(config)
    # Beyond the keys of the steps.
    shuffling = [jax.random.fold_in(run_key, 2**31 + i) for i in range(len(scheduled))]
    paths = {
        field: _path(c, config.train.steps, key)
        for (field, c), key in zip(scheduled.items(), shuffling, strict=True)
    }
    defaults = base.get_config()

    def at(step, pace):
        numbers = {}
        for field, c in scheduled.items():
            path = paths[field]
            if path is None:
                own = schedules.constant(pace[field].fraction)
                path = schedules.ordered(own, c.order, total_steps=config.train.steps)
            value = schedules.between(path, start=c.start, end=c.end)(step)
            owner, _, name = field.rpartition(".")
            whole = defaults[owner].get_type(name) is int
            numbers[field] = jnp.round(value).astype(jnp.int32) if whole else value
        return numbers

    return at


def _path(c, steps, key):
    """From the step to the share of the way; None for a self-paced one, which has no path."""
    if c.kind == "self_paced":
        return None
    if c.kind == "constant":
        path = schedules.constant(1.0)
    elif c.kind == "cosine":
        path = schedules.cosine(total_steps=steps, a=c.a)
    elif c.kind == "piecewise":
        boundaries = [share * steps for share in c.boundaries]
        path = schedules.piecewise(boundaries=boundaries, values=c.levels)
    else:
        path = schedules.pacing(c.kind, total_steps=steps, a=c.a, b=c.b)
    return schedules.ordered(path, c.order, total_steps=steps, key=key)


def _self_paced(config):
    return {field: c for field, c in _scheduled(config).items() if c.kind == "self_paced"}


def first_pace(config: ml_collections.ConfigDict) -> dict[str, schedules.Pace]:
    """Where the self-paced numbers start."""
    return {
        field: schedules.first_pace(target=c.target, b=c.b)
        for field, c in _self_paced(config).items()
    }


def next_pace(config: ml_collections.ConfigDict) -> Callable:
    """How the self-paced numbers go on."""

    def after(pace, active_fraction):
        return {
            field: schedules.next_pace(
                pace[field], active_fraction, target=c.target, rate=c.rate, decay=c.decay
            )
            for field, c in _self_paced(config).items()
        }

    return after


def step(
    config: ml_collections.ConfigDict, encoder: models.Encoder, augment: Callable | None
) -> Callable:
    """The step of one device, `(state, inputs, labels)`."""
    return functools.partial(
        train_step.train_step,
        encoder=encoder,
        optimizer=optimizer(config),
        loss=loss(config),
        augment=augment,
        average_decay=config.optimizer.average_decay,
        learning_rate=learning_rate(config),
        moving=moving(config),
        next_pace=next_pace(config),
        telemetry=telemetry(config),
        memory_start=config.memory.start,
        micro_batches=config.train.micro_batches,
        key=keys(config)[1],
        axis_name=collectives.DEVICES,
    )


def miner(config: ml_collections.ConfigDict) -> Callable:
    """The miner with its knobs."""
    return functools.partial(mining.MINERS[config.mining.miner], **knobs(config.mining.knobs))


def telemetry(config: ml_collections.ConfigDict) -> Callable | None:
    """What the step measures about mining; None if that is off."""
    if not config.log.telemetry_every:
        return None

    def measure(embeddings, labels, *, key, axis_name, numbers=None):
        moved = with_numbers(config, numbers)
        return measurements.of_batch(
            embeddings,
            labels,
            miner=miner(moved),
            margin=moved.loss.margin,
            most_positives=config.batch.per_class - 1,
            metric=config.loss.metric,
            metric_params=_metric_params(config.loss),
            per_anchor=config.log.telemetry_per_anchor,
            mask=_shown(config, numbers, len(labels), axis_name),
            key=key,
            axis_name=axis_name,
        )

    return measurements.every(config.log.telemetry_every, measure)


def loss(config: ml_collections.ConfigDict) -> Callable:
    """The loss as the step calls it: what is scheduled as `numbers`, what is learned by name."""
    of_batch = _triplet_loss(config) if config.loss.name == "triplet" else _contrastive_loss(config)
    if not config.memory.size:
        return of_batch

    def with_memory(embeddings, labels, *, numbers=None, remembered=None, **context):
        c = with_numbers(config, numbers).memory
        value, stats = of_batch(embeddings, labels, numbers=numbers, **context)
        if remembered is None:  # as where a config is checked
            return value, stats
        past, counts = remembered
        beyond, their_stats = of_batch(
            embeddings,
            labels,
            numbers=numbers,
            **context,
            against={
                "references": past.embeddings,
                "reference_labels": past.labels,
                "reference_mask": counts,
                "shared_references": True,
            },
        )
        stats |= {f"memory/{name}": number for name, number in their_stats.items()}
        return value + c.weight * beyond, stats | {"memory/loss": beyond}

    return with_memory


def _contrastive_loss(config):
    def contrastive_loss(
        embeddings, labels, *, key, axis_name, numbers=None, proxies=None, against=None, **learned
    ):
        del key  # nothing is drawn
        c = with_numbers(config, numbers).loss
        settings = {
            "loss": functools.partial(contrastive.LOSSES[c.name], **(knobs(c.knobs) | learned)),
            "metric": c.metric,
            "metric_params": _metric_params(c),
            "tile_size": config.mining.tile_size or None,
            "axis_name": axis_name,
        }
        shown = _shown(config, numbers, len(labels), axis_name)
        if against:
            settings |= against
        elif config.loss.proxies == "anchors":
            mine, classes = collectives.share(proxies, axis_name)
            return contrastive.contrastive_loss(
                mine,
                classes,
                references=embeddings,
                reference_labels=labels,
                mask=classes < config.loss.num_classes,
                **settings,
            )
        elif config.loss.proxies:
            settings |= {
                "references": proxies,
                "reference_labels": jnp.arange(len(proxies)),
                "shared_references": True,
            }
        return contrastive.contrastive_loss(embeddings, labels, mask=shown, **settings)

    return contrastive_loss


def _triplet_loss(config):
    def triplet_loss(embeddings, labels, *, key, axis_name, numbers=None, against=None, **learned):
        moved = with_numbers(config, numbers)
        c = moved.loss
        penalty = functools.partial(losses.PENALTIES[c.penalty], **(knobs(c.knobs) | learned))

        def mined_by(miner):
            return losses.triplet_loss(
                embeddings,
                labels,
                miner=miner,
                tile_size=config.mining.tile_size or None,
                metric=c.metric,
                metric_params=_metric_params(c),
                penalty=penalty,
                margin=c.margin,
                average=c.average,
                mask=_shown(config, numbers, len(labels), axis_name),
                key=key,
                axis_name=axis_name,
                **(against or {}),
            )

        if against:
            return mined_by(moved.memory.miner or miner(moved))
        first = mined_by(miner(moved))
        if not moved.mining.second:
            return first
        second, mix = mined_by(moved.mining.second), moved.mining.mix
        return jax.tree.map(lambda a, b: (1.0 - mix) * a + mix * b, first, second)

    return triplet_loss


def _shown(config, numbers, rows, axis_name):
    """Which rows of a batch count while its numbers of classes or images move."""
    c, moved = config.batch, numbers or {}
    if not {"batch.classes", "batch.per_class"} & set(moved):
        return None
    place = collectives.first_row(rows, axis_name) + jnp.arange(rows)
    in_classes = place // c.per_class < moved.get("batch.classes", c.classes)
    return in_classes & (place % c.per_class < moved.get("batch.per_class", c.per_class))


def of_loss(config: ml_collections.ConfigDict) -> tuple[str, Callable]:
    """What the knobs of the loss belong to: how a config names it, and the function."""
    c = config.loss
    if c.name == "triplet":
        return f"loss.penalty={c.penalty!r}", losses.PENALTIES[c.penalty]
    return f"loss.name={c.name!r}", contrastive.LOSSES[c.name]


def learned(config: ml_collections.ConfigDict) -> dict:
    """Where what the loss learns starts: knobs by name, and `proxies`."""
    _, penalty = of_loss(config)
    defaults = {name: p.default for name, p in inspect.signature(penalty).parameters.items()}
    start = defaults | knobs(config.loss.knobs)
    found = {name: start[name] for name in config.loss.learned}
    if config.loss.proxies:
        shape = (config.loss.num_classes, config.model.dim)
        init_key, _ = keys(config)
        drawn = jax.random.normal(jax.random.fold_in(init_key, 1), shape)
        found["proxies"] = drawn / jnp.sqrt(config.model.dim)
    return found


def collapsed_loss(config: ml_collections.ConfigDict) -> float:
    """The loss of an embedding that maps everything to one point; 0 where that is not known."""
    if config.loss.name != "triplet":
        return 0.0
    penalty = losses.PENALTIES[config.loss.penalty]
    names = inspect.signature(penalty).parameters
    given = {name: jnp.float32(0) for name in engine.GIVEN_TO_PENALTIES if name in names}
    given |= knobs(config.loss.knobs)
    return float(penalty(jnp.float32(0), jnp.float32(0), config.loss.margin, **given))


def knobs(fields) -> dict:
    """Those that are set; the others keep their defaults."""
    return {name: value for name, value in fields.items() if value is not None}


def _metric_params(c) -> dict:
    return {} if c.p is None else {"p": c.p}
