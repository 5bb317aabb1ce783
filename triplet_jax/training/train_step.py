"""One step of training, as a function of one device."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, Shaped

from triplet_jax import schedules
from triplet_jax.devices import collectives
from triplet_jax.models import pixels
from triplet_jax.training import cross_batch_memory, gradient_cache
from triplet_jax.training.train_state import TrainState

Moving = Callable[[Int[Array, ""], dict[str, schedules.Pace]], dict[str, Array]]
"""From the step and the self-paced fractions to the scheduled numbers, by field."""


# Bounds of a learned number that must stay above 0, beyond which a softmax overflows.
_POSITIVE = (1e-4, 1e4)


def train_step(
    state: TrainState,
    inputs: Shaped[Array, "batch ..."],
    labels: Int[Array, "batch"],
    places: Int[Array, "batch"],
    *,
    encoder: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Callable,
    augment: Callable | None,
    average_decay: float,
    learning_rate: optax.Schedule,
    moving: Moving | None = None,
    next_pace: Callable | None = None,
    telemetry: Callable | None = None,
    memory_start: int = 0,
    memory_of_average: bool = False,
    shown: Callable | None = None,
    micro_batches: int = 1,
    positive: Collection[str] = (),
    key: PRNGKeyArray,
    axis_name: str | None,
) -> tuple[TrainState, dict[str, Any]]:
    """Takes one step with this device's part of the batch.

    The loss is that of the global batch on every device, made so inside the
    differentiated function; the mean of the devices' gradients is then exact (a mean of
    local losses would weigh a device with few active triplets like one with many).

    Args:
      state: the same on every device.
      inputs: this device's part.
      labels: their classes.
      places: which training examples they are; only a memory needs it.
      encoder: the model.
      optimizer: the optimizer.
      loss: `(embeddings, labels, *, key, axis_name, **learned) -> (loss, stats)`, global; with a
        memory it is also given `remembered`, the memory and which of its entries count, and with
        `memory_of_average` also `by_average`, this device's embeddings by the moving average.
      augment: a random function of one image, or None.
      average_decay: of the moving average of the parameters, if the state has one.
      learning_rate: that of the optimizer, by the step, for the log.
      moving: the scheduled numbers by their fields, which the loss and the telemetry are then
        given as `numbers`; None for none.
      next_pace: `(pace, active_fraction) -> pace`, of the self-paced ones.
      telemetry: `(step, embeddings, labels, *, key, axis_name) -> arrays` by name, or None.
      memory_start: the first step that compares with the memory, which is filled before.
      memory_of_average: whether it keeps what the moving average of the parameters makes of the
        batch, with the running statistics of batch normalisation.
      shown: `(numbers, rows, axis_name) -> mask`, which of this device's rows count while the
        batch's numbers move, or None for all; the memory keeps no others.
      micro_batches: parts that a device embeds one after the other, so that the activations of
        one are in memory; with more than one, everything is embedded twice.
      positive: names of learned numbers that must stay above 0, of which the optimizer sees the
        logarithm.
      key: of the run; what a step draws depends on it, the step and the place in the
        global batch, not on the number of devices.
      axis_name: the device axis.

    Returns:
      The next state, and scalars: `loss`, `grad_norm`, `learning_rate`, what the loss learns
      as `learned_NAME`, what is scheduled as `schedule/FIELD`, the loss's stats,
      `embedding_norm` (mean length) and `embedding_spread`, the root mean squared distance
      of the batch's embeddings to their mean; with `telemetry`, its arrays under that name.
    """
    step_key = jax.random.fold_in(key, state.step)
    augment_key, mining_key = jax.random.split(step_key)
    dropout_key = jax.random.fold_in(step_key, 2)  # beside the two
    context = {"key": mining_key, "axis_name": axis_name}
    numbers = {}
    if moving is not None:
        context["numbers"] = numbers = moving(state.step, state.pace)
    extra = {}
    if state.memory is not None:
        mask = shown(numbers, len(labels), axis_name) if shown else None
        places = places if mask is None else jnp.where(mask, places, -1)
        everywhere = collectives.gather(places, axis_name)
        counts = cross_batch_memory.useful(state.memory, everywhere) & (state.step >= memory_start)
        extra["remembered"] = state.memory, counts

    rows = collectives.own_rows(inputs.shape[0], axis_name)
    parts = list(zip(jnp.split(inputs, micro_batches), jnp.split(rows, micro_batches), strict=True))

    def seen(part):
        inputs, rows = part
        inputs = pixels.as_floats(inputs)
        if augment is None:
            return inputs
        return jax.vmap(augment)(_of_rows(augment_key, rows), inputs)

    def embed(params, batch_stats, part):
        _, rows_of_part = part
        embeddings, updates = encoder.apply(
            {"params": params, "batch_stats": batch_stats},
            seen(part),
            train=True,
            keys=_of_rows(dropout_key, rows_of_part),
            mutable=["batch_stats"],
        )
        return embeddings, updates.get("batch_stats", {})

    if memory_of_average:
        embed_by_average = functools.partial(encoder.apply, state.variables, project=True)
        extra["by_average"] = jnp.concatenate([embed_by_average(seen(part)) for part in parts])

    def global_loss(embeddings, learned):
        learned = _with(jnp.exp, learned, positive)
        value, stats = loss(embeddings, labels, **context, **extra, **learned)
        return value, stats | _spread(jax.lax.stop_gradient(embeddings), axis_name)

    before = (state.params, _with(jnp.log, state.learned, positive))
    (value, stats, embeddings, batch_stats), grads = gradient_cache.value_and_grad(
        embed, global_loss, before, state.batch_stats, parts
    )
    grads = collectives.mean(grads, axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, before)
    params, learned = optax.apply_updates(before, updates)
    learned = _with(lambda x: jnp.clip(jnp.exp(x), *_POSITIVE), learned, positive)
    average = state.average
    if average is not None:
        average = optax.incremental_update(params, average, 1.0 - average_decay)
    metrics = {
        "loss": value,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": jnp.float32(learning_rate(state.step)),
        **{f"learned_{name}": x for name, x in state.learned.items() if not x.ndim},
        **{f"schedule/{field}": value.astype(jnp.float32) for field, value in numbers.items()},
    }
    if telemetry is not None:
        metrics["telemetry"] = telemetry(state.step + 1, embeddings, labels, **context)
    if state.memory is not None:
        kept = extra.get("by_average", embeddings)
        batch = collectives.gather((kept, labels, places), axis_name)
        state = state.replace(memory=cross_batch_memory.remember(state.memory, *batch))
    state = state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        learned=learned,
        pace=next_pace(state.pace, stats.get("active_fraction")) if next_pace else state.pace,
        opt_state=opt_state,
        average=average,
    )
    return state, metrics | stats


def _with(function, learned, names):
    return {name: function(x) if name in names else x for name, x in learned.items()}


def _of_rows(key, rows):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def _spread(embeddings, axis_name):
    centre = collectives.mean(embeddings.mean(axis=0), axis_name)
    squares = jnp.sum((embeddings - centre) ** 2, axis=1).mean()
    norm = jnp.linalg.norm(embeddings, axis=1).mean()
    return {
        "embedding_norm": collectives.mean(norm, axis_name),
        "embedding_spread": jnp.sqrt(collectives.mean(squares, axis_name)),
    }
