"""The loss that a config describes, and what is measured beside it."""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from experiments.config import components, import_paths, settings
from triplet_jax import contrastive, losses, models, regularisers
from triplet_jax import telemetry as measurements
from triplet_jax.devices import collectives
from triplet_jax.engine import rules

# Numbers of losses that must be above 0, and are learned by their logarithm.
POSITIVE = ("scale", "temperature")


def loss(config: ml_collections.ConfigDict) -> Callable:
    """The loss as the step calls it: what is scheduled as `numbers`, what is learned by name."""
    return _regularised(config, _nested(config, _compared(config)))


def shown(config: ml_collections.ConfigDict, numbers: dict | None, rows: int, axis_name):
    """Which rows of a batch count while its numbers of classes or images move; None for all."""
    c, moved = config.batch, numbers or {}
    if not {"batch.classes", "batch.per_class"} & set(moved):
        return None
    place = collectives.own_rows(rows, axis_name)
    in_classes = place // c.per_class < moved.get("batch.classes", c.classes)
    return in_classes & (place % c.per_class < moved.get("batch.per_class", c.per_class))


def _regularised(config, compared):
    """The loss and its regularisers."""
    names = regularised_by(config)
    if not names:
        return compared

    def regularised(embeddings, labels, *, axis_name, numbers=None, **context):
        c = settings.with_numbers(config, numbers).loss
        where = {"mask": shown(config, numbers, len(labels), axis_name), "axis_name": axis_name}
        value, stats = compared(embeddings, labels, axis_name=axis_name, numbers=numbers, **context)
        terms = {
            name: regularisers.REGULARISERS[name](embeddings, labels, **where) for name in names
        }
        value += sum(c[f"{name}_weight"] * term for name, term in terms.items())
        return value, stats | {f"regulariser/{name}": term for name, term in terms.items()}

    return regularised


def regularised_by(config: ml_collections.ConfigDict) -> list[str]:
    """The names of the regularisers whose weight is not 0, or moves."""
    moved = settings.scheduled(config)
    return [
        name
        for name in regularisers.REGULARISERS
        if f"loss.{name}_weight" in moved or config.loss[f"{name}_weight"] != 0
    ]


def _nested(config, compared):
    """The mean of the losses of an embedding's first values (Kusupati et al. 2022, Matryoshka).

    What embeddings are compared with is cut likewise. The stats are those of all values.
    """
    dims = config.loss.nested_dims
    if not dims:
        return compared

    def nested(embeddings, labels, *, remembered=None, by_average=None, proxies=None, **context):
        short = functools.partial(models.prefix, normalize=config.model.normalize)
        values = {}
        for size in dims:
            tables = {}
            if remembered is not None:
                past, counts = remembered
                past = past._replace(embeddings=short(past.embeddings, size))
                tables["remembered"] = past, counts
            if by_average is not None:
                tables["by_average"] = short(by_average, size)
            if proxies is not None:
                tables["proxies"] = proxies[:, :size]
            value, stats = compared(short(embeddings, size), labels, **tables, **context)
            values[f"nested/{size}"] = value
        return sum(values.values()) / len(dims), stats | values

    return nested


def _compared(config):
    """The loss against the batch, and against the memory if there is one."""
    of_batch = _triplet_loss(config) if config.loss.name == "triplet" else _contrastive_loss(config)
    if config.model.towers == 2:
        return _between_towers(of_batch)
    if not config.memory.size:
        return of_batch
    return (_beside_average if config.memory.of_average else _with_memory)(config, of_batch)


def _between_towers(of_batch):
    """The rows of either encoder beside those of the other, and the mean of the two, as in CLIP."""

    def between(embeddings, labels, **context):
        def beside(mine, others):
            references = losses.References(embeddings[others::2], labels[others::2])
            return of_batch(embeddings[mine::2], labels[mine::2], against=references, **context)

        return jax.tree.map(lambda a, b: (a + b) / 2, beside(0, 1), beside(1, 0))

    return between


def _with_memory(config, of_batch):
    """The loss within the batch, and that of the batch beside the memory."""

    def with_memory(embeddings, labels, *, numbers=None, remembered=None, **context):
        c = settings.with_numbers(config, numbers).memory
        value, stats = of_batch(embeddings, labels, numbers=numbers, **context)
        if remembered is None:  # as where a config is checked
            return value, stats
        past, counts = remembered
        beyond, their_stats = of_batch(
            embeddings,
            labels,
            numbers=numbers,
            **context,
            against=losses.References(past.embeddings, past.labels, counts, shared=True),
        )
        stats |= {f"memory/{name}": number for name, number in their_stats.items()}
        return value + c.weight * beyond, stats | {"memory/loss": beyond}

    return with_memory


def _beside_average(config, of_batch):
    """The loss of the batch beside what the average of the weights makes of it, and the memory.

    No row is compared with its own image as the average sees it, which is the same view.
    """

    def beside_average(
        embeddings, labels, *, axis_name, numbers=None, remembered=None, by_average=None, **context
    ):
        context |= {"axis_name": axis_name, "numbers": numbers}
        if remembered is None:  # as where a config is checked
            return of_batch(embeddings, labels, **context)
        past, counts = remembered
        rows = len(labels)
        index = collectives.own_rows(rows, axis_name)
        mask = shown(config, numbers, rows, axis_name)
        mask = jnp.ones(rows, bool) if mask is None else mask
        batch = collectives.gather((by_average, labels, mask), axis_name)
        references = jax.tree.map(
            lambda now, before: jnp.concatenate([now, before]),
            batch,
            (past.embeddings, past.labels, counts),
        )
        against = losses.References(*references, shared=True, own=index)
        return of_batch(embeddings, labels, against=against, **context)

    return beside_average


def _contrastive_loss(config):
    def contrastive_loss(
        embeddings, labels, *, key, axis_name, numbers=None, proxies=None, against=None, **learned
    ):
        del key  # nothing is drawn
        c = settings.with_numbers(config, numbers).loss
        arguments = {
            "loss": functools.partial(
                components.find("loss.name", c.name), **(settings.knobs(c.knobs) | learned)
            ),
            "metric": _metric("loss", c.metric),
            "metric_params": _metric_params(c),
            "tile_size": config.mining.tile_size or None,
            "axis_name": axis_name,
        }
        mask = shown(config, numbers, len(labels), axis_name)
        if against is not None:
            arguments["references"] = against
        elif config.loss.proxies == "anchors":
            mine, classes = collectives.share(proxies, axis_name)
            return contrastive.contrastive_loss(
                mine,
                classes,
                references=losses.References(embeddings, labels, mask),
                mask=classes < config.loss.num_classes,
                **arguments,
            )
        elif config.loss.proxies:
            classes = jnp.arange(len(proxies))
            arguments["references"] = losses.References(proxies, classes, shared=True)
        return contrastive.contrastive_loss(embeddings, labels, mask=mask, **arguments)

    return contrastive_loss


def _triplet_loss(config):
    def triplet_loss(embeddings, labels, *, key, axis_name, numbers=None, against=None, **learned):
        moved = settings.with_numbers(config, numbers)
        c = moved.loss
        penalty = functools.partial(
            components.find("loss.penalty", c.penalty), **(settings.knobs(c.knobs) | learned)
        )

        def mined_by(miner):
            return losses.triplet_loss(
                embeddings,
                labels,
                miner=miner,
                tile_size=config.mining.tile_size or None,
                metric=_metric("loss", c.metric),
                metric_params=_metric_params(c),
                mining_metric=_metric("mining", config.mining.metric) or None,
                penalty=penalty,
                margin=c.margin,
                average=c.average,
                mask=shown(config, numbers, len(labels), axis_name),
                key=key,
                axis_name=axis_name,
                references=against,
            )

        if against is not None and config.memory.size:
            other = moved.memory.miner
            return mined_by(components.find("memory.miner", other) if other else miner(moved))
        first = mined_by(miner(moved))
        if not moved.mining.second:
            return first
        second = mined_by(components.find("mining.second", moved.mining.second))
        mix = moved.mining.mix
        return jax.tree.map(lambda a, b: (1.0 - mix) * a + mix * b, first, second)

    return triplet_loss


def of_loss(config: ml_collections.ConfigDict) -> tuple[str, Callable]:
    """What the knobs of the loss belong to: how a config names it, and the function."""
    c = config.loss
    if c.name == "triplet":
        return f"loss.penalty={c.penalty!r}", components.find("loss.penalty", c.penalty)
    return f"loss.name={c.name!r}", components.find("loss.name", c.name)


def dim(config: ml_collections.ConfigDict) -> int:
    """How many values of an example the loss sees: a projection head's, where there is one."""
    c = config.model
    return c.projection_dim if c.projection else c.dim


def learned(config: ml_collections.ConfigDict) -> dict:
    """Where what the loss learns starts: knobs by name, and `proxies`."""
    _, penalty = of_loss(config)
    defaults = {name: p.default for name, p in inspect.signature(penalty).parameters.items()}
    start = defaults | settings.knobs(config.loss.knobs)
    found = {name: start[name] for name in config.loss.learned}
    if config.loss.proxies:
        shape = (config.loss.num_classes, dim(config))
        init_key, _ = settings.keys(config)
        drawn = jax.random.normal(jax.random.fold_in(init_key, 1), shape)
        found["proxies"] = drawn / jnp.sqrt(dim(config))
    return found


def collapsed_loss(config: ml_collections.ConfigDict) -> float:
    """The loss of an embedding that maps everything to one point; 0 where that is not known."""
    if config.loss.name != "triplet" or regularised_by(config):
        return 0.0
    penalty = components.find("loss.penalty", config.loss.penalty)
    names = inspect.signature(penalty).parameters
    given = {name: jnp.float32(0) for name in rules.GIVEN_TO_PENALTIES if name in names}
    given |= settings.knobs(config.loss.knobs)
    return float(penalty(jnp.float32(0), jnp.float32(0), config.loss.margin, **given))


def miner(config: ml_collections.ConfigDict) -> Callable:
    """The miner with its knobs."""
    return functools.partial(
        components.find("mining.miner", config.mining.miner),
        **settings.knobs(config.mining.knobs),
    )


def telemetry(config: ml_collections.ConfigDict) -> Callable | None:
    """What the step measures about mining; None if that is off."""
    if not config.log.telemetry_every:
        return None

    own = config.mining.metric

    def measure(embeddings, labels, *, key, axis_name, numbers=None):
        moved = settings.with_numbers(config, numbers)
        return measurements.of_batch(
            embeddings,
            labels,
            miner=miner(moved),
            margin=moved.loss.margin,
            most_positives=config.batch.per_class - 1,
            # That of mining, since mined triplets are what is measured.
            metric=_metric("mining", own) if own else _metric("loss", config.loss.metric),
            **({} if own else _metric_params(config.loss)),
            per_anchor=config.log.telemetry_per_anchor,
            mask=shown(config, numbers, len(labels), axis_name),
            key=key,
            axis_name=axis_name,
        )

    return measurements.every(config.log.telemetry_every, measure)


def _metric(section, name):
    """The name of a metric of the library, or the function that makes one of the user's own."""
    return components.find(f"{section}.metric", name) if import_paths.is_path(name) else name


def _metric_params(c) -> dict:
    return {} if c.p is None else {"p": c.p}
