"""What the rows of a batch are compared with: each other, the other tower, proxies, a memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from experiments.config import row_losses
from experiments.config.row_losses import Given, Outcome, RowLoss, Rows
from triplet_jax import class_centres
from triplet_jax.devices import collectives
from triplet_jax.losses import References

Comparison = Callable[[Rows, Given], Outcome]
"""The loss of a batch, and stats."""


def comparison(config: ml_collections.ConfigDict) -> Comparison:
    """The loss of a batch against what the config compares it with."""
    of_batch = row_losses.of_batch(config)
    if config.model.towers == 2:
        return _within_batch(of_batch) if config.loss.same_tower else _between_towers(of_batch)
    if config.loss.proxies == "anchors":
        return _with_proxies_as_anchors(of_batch, config.loss.num_classes)
    if config.loss.proxies:
        return _with_proxies(of_batch, config.loss.centres)
    if config.memory.of_average:
        return _with_average_and_memory(of_batch)
    if config.memory.size:
        return _with_memory(of_batch, row_losses.of_memory(config))
    return _within_batch(of_batch)


def _within_batch(of_rows: RowLoss) -> Comparison:
    """Every row against the other rows of the batch.

    Of two encoders' rows, the positive is then the other encoder's, and all else is negative.
    """
    return lambda rows, given: of_rows(rows, None, given)


def _between_towers(of_rows: RowLoss) -> Comparison:
    """The rows of either encoder against those of the other, and the mean of the two, as in CLIP.

    Rows of the two encoders take turns.
    """

    def between(rows, given):
        def against(mine, others):
            anchors = Rows(rows.embeddings[mine::2], rows.labels[mine::2])
            references = References(rows.embeddings[others::2], rows.labels[others::2])
            return of_rows(anchors, references, given)

        return jax.tree.map(lambda a, b: (a + b) / 2, against(0, 1), against(1, 0))

    return between


def _with_proxies(of_rows: RowLoss, centres: int) -> Comparison:
    """Every row against the proxies of all classes, of which each may have several."""

    def with_proxies(rows, given):
        classes = jnp.arange(len(given.proxies))
        proxies = given.proxies.reshape(len(classes), -1)
        rows = rows._replace(embeddings=class_centres.repeated(rows.embeddings, centres))
        return of_rows(rows, References(proxies, classes, shared=True), given)

    return with_proxies


def _with_proxies_as_anchors(of_rows: RowLoss, num_classes: int) -> Comparison:
    """The proxies against the rows of the batch; each device has its share of the proxies."""

    def with_anchors(rows, given):
        proxies, classes = collectives.share(given.proxies, given.axis_name)
        anchors = Rows(proxies, classes, classes < num_classes)
        return of_rows(anchors, References(*rows), given)

    return with_anchors


def _with_memory(of_batch: RowLoss, of_memory: RowLoss) -> Comparison:
    """The loss within the batch, and beside it that of the batch against the memory."""

    def with_memory(rows, given):
        value, stats = of_batch(rows, None, given)
        if given.remembered is None:  # as where a config is checked
            return value, stats
        past, counts = given.remembered
        references = References(past.embeddings, past.labels, counts, shared=True)
        beyond, of_past = of_memory(rows, references, given)
        stats |= {f"memory/{name}": number for name, number in of_past.items()}
        weight = given.numbers["memory.weight"]
        return value + weight * beyond, stats | {"memory/loss": beyond}

    return with_memory


def _with_average_and_memory(of_rows: RowLoss) -> Comparison:
    """Every row against the batch by the average of the weights, and against the memory.

    No row is compared with its own image by the average, which is the same view.
    """

    def with_average(rows, given):
        if given.remembered is None:  # as where a config is checked
            return of_rows(rows, None, given)
        past, counts = given.remembered
        mask = jnp.ones(len(rows.labels), bool) if rows.mask is None else rows.mask
        own = collectives.own_rows(len(rows.labels), given.axis_name)
        now = collectives.gather((given.by_average, rows.labels, mask), given.axis_name)
        candidates = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]), now, (past.embeddings, past.labels, counts)
        )
        return of_rows(rows, References(*candidates, shared=True, own=own), given)

    return with_average
