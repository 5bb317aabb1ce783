"""The loss of rows against candidates: of mined triplets, or contrastive, as a config says."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from experiments.config import components, import_paths
from triplet_jax import class_centres, contrastive, losses
from triplet_jax.training.cross_batch_memory import Memory
from triplet_jax.training.numbers import Numbers


class Rows(NamedTuple):
    """The anchors of a loss."""

    # Any, since jax fills trees with what is no array.
    embeddings: Any
    labels: Any
    mask: Any = None
    """Which rows count; None for all."""


class Given(NamedTuple):
    """What a step gives a loss beside the batch."""

    numbers: Numbers
    learned: dict[str, Array]
    """The knobs of the loss that are learned."""
    key: PRNGKeyArray | None
    axis_name: str | None
    remembered: tuple[Memory, Bool[Array, "size"]] | None = None
    """The memory, and which of its entries count."""
    by_average: Float[Array, "batch dim"] | None = None
    """The batch as the moving average of the weights embeds it."""
    proxies: Float[Array, "classes *centres dim"] | None = None


Outcome = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
RowLoss = Callable[[Rows, losses.References | None, Given], Outcome]
"""The loss of rows against references, or against each other where these are None; and stats."""


@dataclasses.dataclass(frozen=True)
class TripletLoss:
    """The penalty of mined triplets, a `RowLoss`."""

    mine: Callable[[Numbers], Callable]
    """The miner with its knobs at a step."""
    penalty: Callable
    average: str
    metric: dict[str, Any]
    """`metric`, `metric_params` and `precision`, as the library takes them."""
    mining_metric: str | Callable | None
    tile_size: int | None

    def __call__(self, rows: Rows, references: losses.References | None, given: Given) -> Outcome:
        numbers = given.numbers
        return losses.triplet_loss(
            rows.embeddings,
            rows.labels,
            references=references,
            mask=rows.mask,
            miner=self.mine(numbers),
            penalty=functools.partial(self.penalty, **_knobs(given)),
            margin=numbers["loss.margin"],
            average=self.average,
            mining_metric=self.mining_metric,
            tile_size=self.tile_size,
            key=given.key,
            axis_name=given.axis_name,
            **self.metric,
        )


@dataclasses.dataclass(frozen=True)
class ContrastiveLoss:
    """A contrastive or ranking loss, a `RowLoss`."""

    loss: Callable
    metric: dict[str, Any]
    tile_size: int | None

    def __call__(self, rows: Rows, references: losses.References | None, given: Given) -> Outcome:
        return contrastive.contrastive_loss(
            rows.embeddings,
            rows.labels,
            references=references,
            mask=rows.mask,
            loss=functools.partial(self.loss, **_knobs(given)),
            tile_size=self.tile_size,
            axis_name=given.axis_name,
            **self.metric,
        )


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Two losses and their stats, mixed by `mining.mix`, the share of the second; a `RowLoss`."""

    first: RowLoss
    second: RowLoss

    def __call__(self, rows: Rows, references: losses.References | None, given: Given) -> Outcome:
        share = given.numbers["mining.mix"]
        both = self.first(rows, references, given), self.second(rows, references, given)
        return jax.tree.map(lambda a, b: (1.0 - share) * a + share * b, *both)


def _knobs(given: Given) -> dict[str, Any]:
    return given.numbers.below("loss.knobs") | given.learned


def of_batch(config: ml_collections.ConfigDict) -> RowLoss:
    """The loss of a batch: contrastive, or of the triplets of one or two miners."""
    if config.loss.name != "triplet":
        return _contrastive(config)
    first, second = _triplets(config, miner(config)), config.mining.second
    if not second:
        return first
    return Mixed(first, _triplets(config, _without_knobs("mining.second", second)))


def of_memory(config: ml_collections.ConfigDict) -> RowLoss:
    """The loss of a batch against a memory: that of one miner, which may be the memory's own."""
    if config.loss.name != "triplet":
        return _contrastive(config)
    own = config.memory.miner
    return _triplets(config, _without_knobs("memory.miner", own) if own else miner(config))


def _triplets(config, mine) -> TripletLoss:
    c = config.loss
    return TripletLoss(
        mine=mine,
        penalty=components.find("loss.penalty", c.penalty),
        average=c.average,
        metric=metric(config) | {"precision": c.precision},
        mining_metric=mining_metric(config),
        tile_size=config.mining.tile_size or None,
    )


def _contrastive(config) -> ContrastiveLoss:
    c = config.loss
    metric_of_rows = _to_centres(c) if c.centres > 1 else metric(config)
    return ContrastiveLoss(
        loss=components.find("loss.name", c.name),
        metric=metric_of_rows | {"precision": c.precision},
        tile_size=config.mining.tile_size or None,
    )


def miner(config: ml_collections.ConfigDict) -> Callable[[Numbers], Callable]:
    """The miner of a config, with its knobs at a step."""
    function = components.find("mining.miner", config.mining.miner)
    return lambda numbers: functools.partial(function, **numbers.below("mining.knobs"))


def _without_knobs(field, name):
    """Another miner, which keeps its defaults."""
    function = components.find(field, name)
    return lambda numbers: function


def metric(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The metric of the loss and its parameters, as the library's functions take them."""
    c = config.loss
    return {
        "metric": _metric("loss.metric", c.metric),
        "metric_params": {} if c.p is None else {"p": c.p},
    }


def _to_centres(c: ml_collections.ConfigDict) -> dict[str, Any]:
    """The cosine to classes that have several proxies."""
    params = {"centres": c.centres, "temperature": c.centres_temperature}
    return {"metric": class_centres.to_centres, "metric_params": params}


def mining_metric(config: ml_collections.ConfigDict) -> str | Callable | None:
    """The metric that triplets are mined by; None where it is that of the loss."""
    return _metric("mining.metric", config.mining.metric) or None


def _metric(field, name):
    """The name of a metric of the library, or the function that makes one of the user's own."""
    return components.find(field, name) if import_paths.is_path(name) else name
