"""Refuses schedules of fields that are none, or do not move, or leave their range."""

import math

import ml_collections

from configs import base
from experiments.config import settings
from triplet_jax import errors, schedules

# Numbers outside of the knobs that a schedule may move, and schedules beside Wu's pacings.
MOVABLE = ("loss.margin", "loss.norm_weight", "loss.spread_weight", "memory.weight", "mining.mix")
MOVABLE += ("batch.pool", "batch.same_group")
# The rows of a batch that count; the batch keeps its shape, that of the config.
MOVABLE += ("batch.classes", "batch.per_class")
OTHER_KINDS = ("constant", "cosine", "piecewise", "self_paced")


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses schedules that make no sense; the ranges of fields are looked at elsewhere.

    Raises:
      InputError: naming the schedule, its field and what is allowed.
    """
    defaults = base.like(config)
    fields = settings.flat(config)
    seen: dict[str, str] = {}
    for name, c in sorted(config.schedules.items()):
        own = f"schedules.{name}"
        unknown = set(c) ^ set(base.schedule(""))
        if unknown:
            raise errors.InputError(
                f"{own} lacks or does not know {', '.join(sorted(unknown))}; make it with"
                " configs.base.schedule(field, ...)."
            )
        errors.check_known(f"{own}.field", c.field, fields)
        owner, _, leaf = c.field.rpartition(".")
        movable = c.field in MOVABLE or is_knob(c.field)
        if not movable or defaults[owner].get_type(leaf) not in (int, float):
            raise errors.InputError(
                f"{own}.field={c.field!r} cannot move while training. What can:"
                f" {', '.join(MOVABLE)}, and the numbers of mining.knobs and loss.knobs."
            )
        if c.field in seen:
            raise errors.InputError(
                f"{own}.field={c.field!r} is moved by schedules.{seen[c.field]} too; keep one."
            )
        seen[c.field] = name
        errors.check_known(f"{own}.kind", c.kind, (*schedules.PACINGS, *OTHER_KINDS))
        errors.check_known(f"{own}.order", c.order, schedules.ORDERS)
        for end in ("start", "end"):
            if not math.isfinite(c[end]):
                raise errors.InputError(f"{own}.{end}={c[end]} must be a finite number.")
        if (
            c.field in ("batch.classes", "batch.per_class")
            and max(c.start, c.end) > fields[c.field]
        ):
            raise errors.InputError(
                f"{own} moves {c.field} up to {max(c.start, c.end)}, more than"
                f" {c.field}={fields[c.field]}, which is the batch's shape: raise that."
            )
        _check_pace(config, own, c)


def _check_pace(config, own, c):
    within = {
        "a": (c.a, 0 < c.a < math.inf, "above 0 and finite"),
        "b": (c.b, 0 <= c.b <= 1, "from 0 to 1"),
        "target": (c.target, 0 <= c.target <= 1, "from 0 to 1"),
        "rate": (c.rate, 0 < c.rate <= 1, "above 0 and at most 1"),
        "decay": (c.decay, 0 <= c.decay < 1, "at least 0 and below 1"),
        "boundaries": (
            c.boundaries,
            all(0 <= x <= 1 for x in c.boundaries),
            "shares of training, 0 to 1",
        ),
        "levels": (c.levels, all(0 <= v <= 1 for v in c.levels), "shares of the way, 0 to 1"),
    }
    for field, (value, allowed, words) in within.items():
        if not allowed:
            raise errors.InputError(f"{own}.{field}={value} must be {words}.")
    if c.kind == "piecewise":
        schedules.piecewise(boundaries=c.boundaries, values=c.levels)
    if c.kind == "self_paced" and c.order == "random":
        raise errors.InputError(
            f"{own}.order='random' cannot shuffle what is not known in advance: choose another"
            " order, or another kind than 'self_paced'."
        )
    streamed = config.dataset.placement == "stream" and c.field.startswith("batch.")
    if c.kind == "self_paced" and streamed:
        raise errors.InputError(
            f"{own}.kind='self_paced' moves {c.field} by what the step finds out, but a stream is"
            " loaded ahead: set dataset.placement='device', or choose a pacing."
        )


def is_knob(field: str) -> bool:
    """Whether a field is a number of the miner or of the loss."""
    return field.startswith(("mining.knobs.", "loss.knobs."))
