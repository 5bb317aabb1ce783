"""The loss that a config describes, from top to bottom, and what is measured beside it.

A batch is compared with itself, another tower, proxies or a memory (`comparisons`), by a loss of
triplets or a contrastive one (`row_losses`). The mean over the first values of an embedding may be
taken, and regularisers may be added.
"""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from experiments.config import comparisons, components, row_losses, settings
from experiments.config.row_losses import Given, Rows
from triplet_jax import models, regularisers
from triplet_jax import telemetry as measurements
from triplet_jax.engine import rules

# Numbers of losses that must be above 0, and are learned by their logarithm.
POSITIVE = ("scale", "temperature")


def loss(config: ml_collections.ConfigDict) -> Callable:
    """The loss of a step, as `train_step.Recipe.loss` is called.

    Without `numbers` the fields are as the config has them.
    """
    usual = settings.constant(config)
    compare = comparisons.comparison(config)
    if config.loss.nested_dims:
        compare = _nested(compare, config.loss.nested_dims, config.model.normalize)
    names = regularised_by(config)

    def objective(
        embeddings,
        labels,
        *,
        key,
        axis_name,
        numbers=usual,
        mask=None,
        remembered=None,
        by_average=None,
        proxies=None,
        **learned,
    ):
        given = Given(numbers, learned, key, axis_name, remembered, by_average, proxies)
        value, stats = compare(Rows(embeddings, labels, mask), given)
        terms = {
            name: regularisers.REGULARISERS[name](
                embeddings, labels, mask=mask, axis_name=axis_name
            )
            for name in names
        }
        value += sum(numbers[f"loss.{name}_weight"] * term for name, term in terms.items())
        return value, stats | {f"regulariser/{name}": term for name, term in terms.items()}

    return objective


def regularised_by(config: ml_collections.ConfigDict) -> list[str]:
    """The names of the regularisers whose weight is not 0, or moves."""
    moved = settings.scheduled(config)
    return [
        name
        for name in regularisers.REGULARISERS
        if f"loss.{name}_weight" in moved or config.loss[f"{name}_weight"] != 0
    ]


def _nested(
    compare: comparisons.Comparison, dims: tuple[int, ...], normalize: bool
) -> comparisons.Comparison:
    """The mean of the losses of an embedding's first values (Kusupati et al. 2022, Matryoshka).

    What embeddings are compared with is cut to as many values. The stats are those of all values.
    """

    def cut(size, rows, given):
        short = functools.partial(models.prefix, dim=size, normalize=normalize)
        if given.remembered is not None:
            past, counts = given.remembered
            past = past._replace(embeddings=short(past.embeddings))
            given = given._replace(remembered=(past, counts))
        if given.by_average is not None:
            given = given._replace(by_average=short(given.by_average))
        if given.proxies is not None:
            given = given._replace(proxies=given.proxies[..., :size])
        return rows._replace(embeddings=short(rows.embeddings)), given

    def nested(rows, given):
        values = {}
        for size in dims:
            value, stats = compare(*cut(size, rows, given))
            values[f"nested/{size}"] = value
        return sum(values.values()) / len(dims), stats | values

    return nested


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
        c, values = config.loss, dim(config)
        shape = (c.num_classes, values) if c.centres == 1 else (c.num_classes, c.centres, values)
        init_key, _ = settings.keys(config)
        drawn = jax.random.normal(jax.random.fold_in(init_key, 1), shape)
        found["proxies"] = drawn / jnp.sqrt(values)
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


def telemetry(config: ml_collections.ConfigDict) -> Callable | None:
    """What the step measures about mining; None if that is off."""
    if not config.log.telemetry_every:
        return None
    usual, mine = settings.constant(config), row_losses.miner(config)
    metric = row_losses.metric(config)
    metric = {"metric": metric["metric"], **metric["metric_params"]}
    by = row_losses.mining_metric(config)
    if by is not None:  # the triplets that are measured were mined by it
        metric = {"metric": by}
    most_positives, per_anchor = config.batch.per_class - 1, config.log.telemetry_per_anchor

    def measure(embeddings, labels, *, key, axis_name, numbers=usual, mask=None):
        return measurements.of_batch(
            embeddings,
            labels,
            miner=mine(numbers),
            margin=numbers["loss.margin"],
            most_positives=most_positives,
            per_anchor=per_anchor,
            mask=mask,
            key=key,
            axis_name=axis_name,
            **metric,
        )

    return measurements.every(config.log.telemetry_every, measure)
