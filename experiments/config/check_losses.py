"""Refuses losses and miners whose parts do not go together."""

import functools
import inspect

import jax
import jax.numpy as jnp
import ml_collections

from experiments.config import components, naming, objective, settings
from triplet_jax import contrastive, errors
from triplet_jax.engine import rules
from triplet_jax.models import augmented


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses knobs that the miner or the loss lacks, and parts of a loss that do not go together.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    c, m = config.loss, config.mining
    owner = f"mining.miner={m.miner!r}"
    function = components.find("mining.miner", m.miner)
    moved = [c.field for c in config.schedules.values()]
    set_and_moved = [*settings.knobs(m.knobs), *_leaves(moved, "mining.knobs")]
    _check_knobs("mining.knobs", set_and_moved, owner, function, rules.GIVEN_TO_MINERS)
    _check_loss_name(config)
    _check_regularisers(config)
    _check_nested(config)
    owner, function = objective.of_loss(config)
    set_and_moved = [*settings.knobs(c.knobs), *_leaves(moved, "loss.knobs")]
    for field, knobs in (("loss.knobs", set_and_moved), ("loss.learned", c.learned)):
        _check_knobs(field, knobs, owner, function, rules.GIVEN_TO_PENALTIES)
    for knob in c.learned:
        if f"loss.knobs.{knob}" in moved:
            raise errors.InputError(
                f"loss.learned={c.learned} learns {knob}, which a schedule moves: take it out of"
                " loss.learned, or leave the schedule out."
            )
    batch = jax.ShapeDtypeStruct((2, objective.dim(config)), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    # The loss itself refuses what only it knows, such as a metric that does not suit a miner.
    run = functools.partial(objective.loss(config), axis_name=None, **objective.learned(config))
    with naming.as_fields("loss", mining_metric="mining.metric", miner="mining.miner"):
        jax.eval_shape(run, batch, labels, key=jax.random.key(0))


def _check_knobs(field, knobs, owner, function, given) -> None:
    """Refuses knobs that the function, which a config names as `owner`, does not take."""
    takes = {p.name for p in inspect.signature(function).parameters.values() if _is_knob(p)}
    takes -= set(given)
    for knob in knobs:
        if knob not in takes:
            has = f"its knobs are {', '.join(sorted(takes))}" if takes else "it has none"
            raise errors.InputError(f"{field}: {owner} has no knob {knob!r}; {has}.")


def _leaves(fields, owner):
    return [field.removeprefix(f"{owner}.") for field in fields if field.startswith(f"{owner}.")]


def _is_knob(parameter):
    return parameter.kind is parameter.KEYWORD_ONLY


def _check_loss_name(config: ml_collections.ConfigDict) -> None:
    """Refuses proxies and schedules that the loss does not use, and proxies without a number."""
    c = config.loss
    if c.proxies and c.name == "triplet":
        raise errors.InputError(
            f"loss.proxies={c.proxies!r} goes with no triplet loss: set loss.name to one of"
            f" {', '.join(contrastive.LOSSES)}."
        )
    if (c.name == "proxy_anchor") != (c.proxies == "anchors"):
        raise errors.InputError(
            f"loss.name={c.name!r} with loss.proxies={c.proxies!r}: 'anchors' goes with"
            " 'proxy_anchor', and nothing else does."
        )
    if c.proxies and c.num_classes < 2:
        raise errors.InputError(
            f"loss.num_classes={c.num_classes}, but loss.proxies={c.proxies!r} needs a proxy for"
            " each training class: set it to their number."
        )
    if c.centres > 1 and c.metric != "cosine":
        raise errors.InputError(
            f"loss.metric={c.metric!r} with loss.centres={c.centres}: several centres of a class"
            " are compared by their cosines, so set loss.metric='cosine', or loss.centres=1."
        )
    if c.name == "triplet":
        return
    for schedule in config.schedules.values():
        if schedule.field in ("loss.margin", "mining.mix"):
            raise errors.InputError(
                f"A schedule of {schedule.field} of kind {schedule.kind!r} needs triplets, and"
                f" loss.name={c.name!r} has none: set loss.name='triplet'."
            )
        if schedule.kind == "self_paced" and schedule.holds == "active_fraction":
            raise errors.InputError(
                f"A schedule of {schedule.field} that holds the active fraction needs triplets, and"
                f" loss.name={c.name!r} has none: set its holds='gradient_share', or"
                " loss.name='triplet'."
            )


def _check_regularisers(config: ml_collections.ConfigDict) -> None:
    """Refuses regularisers that need embeddings of a free length where every length is 1."""
    used = objective.regularised_by(config)
    if "norm" in used and config.model.normalize:
        raise errors.InputError(
            f"loss.norm_weight={config.loss.norm_weight} would add a constant, since with"
            " model.normalize=True every embedding has length 1: set model.normalize=False, or"
            " loss.norm_weight=0."
        )
    if "variance" in used and config.model.normalize:
        raise errors.InputError(
            f"loss.variance_weight={config.loss.variance_weight} asks for deviations of 1, which"
            " embeddings of length 1 can't have: set model.normalize=False, or"
            " loss.variance_weight=0."
        )


def _check_nested(config: ml_collections.ConfigDict) -> None:
    """Refuses numbers of leading values that do not rise to the whole embedding."""
    dims, dim = config.loss.nested_dims, config.model.dim
    if not dims:
        return
    if config.model.projection:
        raise errors.InputError(
            f"loss.nested_dims={dims} would be of what the projection head gives, which evaluation"
            f" leaves out: set model.projection={config.model.projection} to 0, or"
            " loss.nested_dims=()."
        )
    joined = set(augmented.JOINED) & set(config.evaluate.augment)
    if joined:
        raise errors.InputError(
            f"evaluate.augment={config.evaluate.augment} joins embeddings, so that the first values"
            f" are not those of loss.nested_dims={dims}: leave out {' and '.join(sorted(joined))},"
            " or set loss.nested_dims=()."
        )
    whole = all(type(d) is int and 2 <= d <= dim for d in dims)
    if not whole or sorted(set(dims)) != list(dims) or dims[-1] != dim:
        kept = sorted({d for d in dims if type(d) is int and 2 <= d < dim} | {dim})
        raise errors.InputError(
            f"loss.nested_dims={dims} must be whole numbers that rise from at least 2 to"
            f" model.dim={dim}, which is the last: set it to {tuple(kept)}, or to () for none."
        )
