"""From the fields of a config to the optimizer of a run."""

import jax
import ml_collections
import optax


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


def optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """The optimizer of the weights and of what the loss learns; it clips gradients first."""
    c, rate = config.optimizer, learning_rate(config)
    if c.name == "adam":
        update = optax.adam(rate)
    elif c.name == "adamw":
        # The weights of the encoder decay; what the loss learns does not.
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
