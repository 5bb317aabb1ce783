"""One step of training, as a function of one device."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from triplet_jax import schedules
from triplet_jax.devices import collectives
from triplet_jax.models import encoder_parts, pixels, stages
from triplet_jax.training import cross_batch_memory, gradient_cache, label_filter
from triplet_jax.training.numbers import Numbers
from triplet_jax.training.train_state import TrainState

# Bounds of a learned number that must stay above 0, beyond which a softmax overflows.
_POSITIVE = (1e-4, 1e4)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a run takes its steps: what stays the same while the state changes."""

    encoder: encoder_parts.Applied
    optimizer: optax.GradientTransformation
    loss: Callable
    """`(embeddings, labels, *, key, axis_name, **given) -> (loss, stats)`, the loss of the global
    batch. `given` holds what the loss learns, by name; `numbers` and `mask`, where the recipe
    has them; `remembered`, the memory and a mask of its useful entries, where the state has one;
    and with `memory_of_average` also `by_average`, this device's rows as the average embeds them.
    """
    learning_rate: optax.Schedule
    """The learning rate of the optimizer at a step, for the log."""
    key: PRNGKeyArray
    """The key of all draws. What is drawn for a row depends on the key, the step and the row's
    position in the global batch, but not on the number of devices."""
    axis_name: str | None = None
    """The name of the device axis; None on one device without `pmap`."""
    augment: Callable | None = None
    """A random function of one image, `(key, image) -> image`."""
    micro_batches: int = 1
    """Parts that a device embeds one after the other, so that only the activations of one are in
    memory. With more than one, everything is embedded twice."""
    backbone_start: int = 0
    """The step from which the backbone learns. Before it, only the head does, and the backbone is
    frozen as `Encoder.frozen` says; its gradient is not computed."""
    average_decay: float = 0.0
    """The decay of the moving average of the parameters, where the state has one."""
    positive: Collection[str] = ()
    """The learned numbers that must stay above 0, of which the optimizer sees the logarithms."""
    numbers: Callable[[Int[Array, ""], dict[str, schedules.Pace]], Numbers] | None = None
    """`(step, pace) -> numbers`: what schedules move, with the self-paced fractions in `pace`."""
    next_pace: Callable | None = None
    """`(pace, stats) -> pace`: the self-paced fractions after a step, by the stats of its loss."""
    measures_gradient_share: bool = False
    """Whether the stats have `gradient_share`, the share of the batch's rows among which the
    gradient is spread, as `schedules.gradient_share` says."""
    mask: Callable[[Numbers, Int[Array, "batch"]], Bool[Array, "batch"] | None] | None = None
    """`(numbers, rows) -> mask`: which rows of the batch count, by their positions in the global
    batch, or None for all. The memory leaves the others out. Needs `numbers`."""
    noise_rate: Callable[[Numbers], Float[Array, ""]] | None = None
    """`numbers -> share`: the share of labels that are taken to be wrong. Rows that `label_filter`
    finds count for nothing, and the memory leaves them out. Needs `numbers`, and a state with a
    memory and thresholds."""
    memory_start: int = 0
    """The first step that compares with the memory, which is filled from the first step on."""
    memory_of_average: bool = False
    """Whether the memory keeps the rows as the moving average of the parameters embeds them, with
    the running statistics of batch normalisation."""
    telemetry: Callable | None = None
    """`(step, embeddings, labels, *, key, axis_name, **given) -> arrays` by name, where `given`
    holds `numbers` and `mask`."""


def phases(recipe: Recipe) -> dict[int, Recipe]:
    """The recipes of a run whose backbone joins later, by the step from which each is followed.

    Their steps are those of the recipe itself. As programs of their own they are faster on a CPU:
    in one program, by `jax.lax.cond`, a step of EfficientNet kept little more than one core of two
    busy and took 2.3 times as long (jaxlib 0.10.2).
    """
    if not recipe.backbone_start:
        return {0: recipe}
    alone = stages.frozen_whole(recipe.encoder)
    return {
        0: dataclasses.replace(recipe, encoder=alone, backbone_start=0),
        recipe.backbone_start: dataclasses.replace(recipe, backbone_start=0),
    }


class _Keys(NamedTuple):
    """The keys of one step."""

    augment: PRNGKeyArray
    mining: PRNGKeyArray
    dropout: PRNGKeyArray


class _Part(NamedTuple):
    """Examples that are embedded together."""

    inputs: Shaped[Array, "rows ..."]
    rows: Int[Array, "rows"]
    """Their positions in the global batch."""


def train_step(
    state: TrainState,
    inputs: Shaped[Array, "batch ..."],
    labels: Int[Array, "batch"],
    places: Int[Array, "batch"],
    *,
    recipe: Recipe,
) -> tuple[TrainState, dict[str, Any]]:
    """Takes one step with this device's part of the batch.

    Every device computes the loss of the global batch, inside the differentiated function. The
    mean of the devices' gradients is then exact. (A mean of local losses would give a device with
    few active triplets the same weight as one with many.)

    Args:
      state: the same on every device.
      inputs: this device's part of the batch.
      labels: their classes.
      places: which training examples they are; only a memory needs them.
      recipe: how the run takes its steps.

    Returns:
      The next state, and scalars: `loss`, `grad_norm`, `learning_rate`, what the loss learns
      as `learned_NAME`, what schedules move as `schedule/NAME`, the loss's stats,
      `embedding_norm` (mean length) and `embedding_spread`, the root mean squared distance
      of the batch's embeddings to their mean; with `telemetry`, its arrays under that name.
    """
    keys = _draw_keys(recipe.key, state.step)
    rows = collectives.own_rows(len(labels), recipe.axis_name)
    context = _context(recipe, state, rows, keys)
    parts = _split(inputs, rows, recipe.micro_batches)
    beside: dict[str, Any] = {}
    if state.memory is not None:
        mask = context.get("mask")
        places = places if mask is None else jnp.where(mask, places, -1)
        beside["remembered"] = state.memory, _useful_memory(recipe, state, places)
    if recipe.memory_of_average:
        beside["by_average"] = _embed_by_average(recipe, state, parts, keys)

    def trusting(embeddings):
        if recipe.noise_rate is None:
            return context, state.thresholds, {}
        return _without_wrong_labels(recipe, state, embeddings, labels, context, beside)

    def loss(embeddings, learned):
        constant = jax.lax.stop_gradient(embeddings)
        given, _, of_filter = trusting(constant)
        value, stats = recipe.loss(embeddings, labels, **given, **beside, **learned)
        return value, stats | _spread(constant, recipe.axis_name) | of_filter

    found, grads = _value_and_grad(recipe, state, parts, keys, loss)
    stats, embeddings = found.aux, found.embeddings
    if recipe.measures_gradient_share:
        slopes = collectives.gather(found.of_embeddings, recipe.axis_name)
        stats = stats | {"gradient_share": schedules.gradient_share(slopes)}
    metrics = _metrics(recipe, state, found.value, grads, context.get("numbers"))
    context, thresholds, _ = trusting(embeddings)
    if recipe.telemetry is not None:
        metrics["telemetry"] = recipe.telemetry(state.step + 1, embeddings, labels, **context)
    memory = state.memory
    if memory is not None:
        if recipe.noise_rate is not None:
            places = jnp.where(context["mask"], places, -1)
        batch = (beside.get("by_average", embeddings), labels, places)
        batch = collectives.gather(batch, recipe.axis_name)
        memory = cross_batch_memory.remember(memory, *batch)
    pace = state.pace
    if recipe.next_pace is not None:
        pace = recipe.next_pace(pace, stats)
    after = _updated(recipe, state, grads).replace(
        step=state.step + 1,
        batch_stats=found.statistics,
        pace=pace,
        memory=memory,
        thresholds=thresholds,
    )
    return after, metrics | stats


def _draw_keys(key: PRNGKeyArray, step: Int[Array, ""]) -> _Keys:
    """The keys of a step."""
    step_key = jax.random.fold_in(key, step)
    augment, mining = jax.random.split(step_key)
    # Folding 2 in gives a third key, beside the two of the split.
    return _Keys(augment, mining, dropout=jax.random.fold_in(step_key, 2))


def _context(
    recipe: Recipe, state: TrainState, rows: Int[Array, "batch"], keys: _Keys
) -> dict[str, Any]:
    """What the loss and the telemetry are both given beside the batch."""
    context: dict[str, Any] = {"key": keys.mining, "axis_name": recipe.axis_name}
    if recipe.numbers is not None:
        context["numbers"] = recipe.numbers(state.step, state.pace)
    if recipe.mask is not None:
        context["mask"] = recipe.mask(context["numbers"], rows)
    return context


def _split(
    inputs: Shaped[Array, "batch ..."], rows: Int[Array, "batch"], count: int
) -> list[_Part]:
    """The batch in parts of one size."""
    return [
        _Part(*part) for part in zip(jnp.split(inputs, count), jnp.split(rows, count), strict=True)
    ]


def _useful_memory(
    recipe: Recipe, state: TrainState, places: Int[Array, "batch"]
) -> Bool[Array, "size"]:
    """Which entries of the memory the batch is compared with: none before `memory_start`."""
    everywhere = collectives.gather(places, recipe.axis_name)
    useful = cross_batch_memory.useful(state.memory, everywhere)
    return useful & (state.step >= recipe.memory_start)


def _without_wrong_labels(
    recipe: Recipe,
    state: TrainState,
    embeddings: Float[Array, "batch dim"],
    labels: Int[Array, "batch"],
    context: dict[str, Any],
    beside: dict[str, Any],
) -> tuple[dict[str, Any], label_filter.Thresholds, dict[str, Float[Array, ""]]]:
    """The context that hides rows whose labels look wrong, the next thresholds, and a stat."""
    chances = label_filter.chances(embeddings, labels, *beside["remembered"])
    mask = context.get("mask")
    mask = jnp.ones(len(labels), bool) if mask is None else mask
    # What does not count anyway has no part in the threshold.
    chances, counts = collectives.gather(
        (jnp.where(mask, chances, jnp.inf), mask), recipe.axis_name
    )
    rate = recipe.noise_rate(context["numbers"])
    kept, thresholds = label_filter.kept(chances, rate, state.thresholds)
    share = jnp.sum(kept & counts) / jnp.maximum(jnp.sum(counts), 1)
    own = collectives.own_rows(len(labels), recipe.axis_name)
    return context | {"mask": mask & kept[own]}, thresholds, {"kept_fraction": share}


def _augmented(recipe: Recipe, part: _Part, keys: _Keys) -> Float[Array, "rows ..."]:
    """What the encoder sees of a part."""
    inputs = pixels.as_floats(part.inputs)
    if recipe.augment is None:
        return inputs
    return jax.vmap(recipe.augment)(_of_rows(keys.augment, part.rows), inputs)


def _embed_by_average(
    recipe: Recipe, state: TrainState, parts: list[_Part], keys: _Keys
) -> Float[Array, "batch dim"]:
    """The batch as the moving average of the parameters embeds it."""
    embedded = [
        recipe.encoder.apply(state.variables, _augmented(recipe, part, keys), project=True)
        for part in parts
    ]
    return jnp.concatenate(embedded)


def _value_and_grad(
    recipe: Recipe, state: TrainState, parts: list[_Part], keys: _Keys, loss: Callable
) -> tuple[gradient_cache.Found, PyTree]:
    """The value and the gradient of `loss`, which is `(embeddings, learned) -> (value, stats)`.

    Returns:
      What was found of the batch, with the stats as `aux`; and the mean over devices of the
      gradient in what the optimizer sees.
    """

    def embed(encoder, params, batch_stats, part):
        embeddings, updates = encoder.apply(
            {"params": stages.stop_frozen(encoder, params), "batch_stats": batch_stats},
            _augmented(recipe, part, keys),
            train=True,
            keys=_of_rows(keys.dropout, part.rows),
            mutable=["batch_stats"],
        )
        return embeddings, updates.get("batch_stats", {})

    def of_logarithms(embeddings, learned):
        return loss(embeddings, _with(jnp.exp, learned, recipe.positive))

    def by(encoder):
        return gradient_cache.value_and_grad(
            functools.partial(embed, encoder),
            of_logarithms,
            _parameters(recipe, state),
            state.batch_stats,
            parts,
        )

    encoder = recipe.encoder
    if recipe.backbone_start:
        head_alone = functools.partial(by, stages.frozen_whole(encoder))
        everything = functools.partial(by, encoder)
        found, grads = jax.lax.cond(state.step < recipe.backbone_start, head_alone, everything)
    else:
        found, grads = by(encoder)
    return found, collectives.mean(grads, recipe.axis_name)


def _parameters(recipe: Recipe, state: TrainState) -> tuple[PyTree, dict[str, Array]]:
    """What the optimizer sees: numbers that must stay above 0 by their logarithms."""
    return state.params, _with(jnp.log, state.learned, recipe.positive)


def _updated(recipe: Recipe, state: TrainState, grads: PyTree) -> TrainState:
    """The state after the optimizer's step, and the step of the average of the parameters."""
    before = _parameters(recipe, state)
    updates, opt_state = recipe.optimizer.update(grads, state.opt_state, before)
    params, learned = optax.apply_updates(before, updates)
    # Adding an update of 0 would read and write all of a frozen backbone.
    frozen = stages.map_places(lambda place: place.frozen, recipe.encoder, params)
    params = jax.tree.map(lambda x, old, stop: old if stop else x, params, state.params, frozen)
    learned = _with(lambda x: jnp.clip(jnp.exp(x), *_POSITIVE), learned, recipe.positive)
    average = state.average
    if average is not None:
        share = 1.0 - recipe.average_decay
        # In this form the average of a weight that does not move is that weight, to the last bit.
        average = jax.tree.map(lambda old, new: old + share * (new - old), average, params)
    return state.replace(params=params, learned=learned, opt_state=opt_state, average=average)


def _metrics(
    recipe: Recipe,
    state: TrainState,
    loss: Float[Array, ""],
    grads: PyTree,
    numbers: Numbers | None,
) -> dict[str, Any]:
    """The scalars of a step beside the loss's stats."""
    moved = {} if numbers is None else numbers.moved
    return {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": jnp.float32(recipe.learning_rate(state.step)),
        **{f"learned_{name}": x for name, x in state.learned.items() if not x.ndim},
        **{f"schedule/{name}": value.astype(jnp.float32) for name, value in moved.items()},
    }


def _with(function, learned, names):
    """The learned numbers, with the function applied to those that are named."""
    return {name: function(x) if name in names else x for name, x in learned.items()}


def _of_rows(key, rows):
    """A key for every row."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def _spread(embeddings, axis_name):
    """The mean length of embeddings, and their root mean squared distance to their mean."""
    centre = collectives.mean(embeddings.mean(axis=0), axis_name)
    squares = jnp.sum((embeddings - centre) ** 2, axis=1).mean()
    norm = jnp.linalg.norm(embeddings, axis=1).mean()
    return {
        "embedding_norm": collectives.mean(norm, axis_name),
        "embedding_spread": jnp.sqrt(collectives.mean(squares, axis_name)),
    }
