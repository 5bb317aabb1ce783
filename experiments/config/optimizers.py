"""From the fields of a config to the optimizer of a run."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import optax

from experiments.config import settings
from triplet_jax.models import encoder_parts, stages


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """A linear rise from 0; then a constant, or half a cosine that ends at 0 at the last step."""
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


def optimizer(
    config: ml_collections.ConfigDict, encoder: encoder_parts.Applied
) -> optax.GradientTransformation:
    """The optimizer of the weights and of what the loss learns; it clips gradients first.

    A frozen weight does not move and has no state. The others of a backbone may have rates of their
    own, and may join at a later step.
    """
    c = config.optimizer
    update = _rule(config, learning_rate(config))
    if config.loss.proxies and settings.is_on("optimizer.proxies_rate", c.proxies_rate):
        update = optax.chain(update, optax.masked(optax.scale(c.proxies_rate), _is_proxies))
    if config.model.freeze or c.backbone_start:
        of_backbone = _from(c.backbone_start, config) if c.backbone_start else update
        rules = {"head": update, "backbone": of_backbone, "frozen": optax.set_to_zero()}
        update = optax.partition(rules, functools.partial(_kinds, encoder))
    if c.backbone_rate != 1 or c.layer_decay != 1:
        update = optax.chain(update, _scale_by_place(c, encoder))
    if c.clip_norm:
        return optax.chain(optax.clip_by_global_norm(c.clip_norm), update)
    return update


def _rule(config, rate):
    """The update of one weight at these learning rates."""
    c = config.optimizer
    if c.name == "adam":
        return optax.adam(rate)
    if c.name == "adamw":
        # The weights of the encoder decay; what the loss learns does not.
        return optax.adamw(rate, weight_decay=c.weight_decay, mask=(True, False))
    return optax.sgd(rate, momentum=c.momentum)


def _from(start, config):
    """The rule for weights that join at a step; their learning rate rises as at the first step.

    Their moments begin there too. Those of the zero gradients before it would make the first steps
    of Adam three times as long as the learning rate.
    """
    rate, steps = learning_rate(config), config.optimizer.warmup_steps

    def rising(count):
        return rate(count) * (jnp.clip((count - start) / steps, 0, 1) if steps else 1.0)

    joined = optax.transforms.conditionally_mask(
        _rule(config, 1.0), lambda count, *_, **__: count >= start
    )
    return optax.chain(joined, optax.scale_by_schedule(rising))


def _kinds(encoder, parameters):
    """Labels weights "frozen", "backbone" or "head"; what the loss learns goes with the head."""

    def kind(place):
        if place.frozen:
            return "frozen"
        return "head" if place.after is None else "backbone"

    params, learned = parameters
    return stages.map_places(kind, encoder, params), jax.tree.map(lambda _: "head", learned)


def _scale_by_place(c, encoder):
    """Scales the updates of the backbone, and those of earlier stages by smaller factors."""

    def factor(place):
        return 1.0 if place.after is None else c.backbone_rate * c.layer_decay**place.after

    def scaled(updates, _):
        of_params, of_learned = updates
        factors = stages.map_places(factor, encoder, of_params)
        return jax.tree.map(lambda x, by: x * by, of_params, factors), of_learned

    return optax.stateless(scaled)


def _is_proxies(parameters):
    params, learned = parameters
    return jax.tree.map(lambda _: False, params), {name: name == "proxies" for name in learned}
