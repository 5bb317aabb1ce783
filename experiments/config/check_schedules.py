"""Refuses schedules of fields that cannot move, and of values that their fields do not allow."""

import ml_collections

from experiments.config import defaults, fields, naming, settings
from triplet_jax import errors, schedules


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses schedules that make no sense.

    Raises:
      InputError: naming the schedule, its field and what is allowed.
    """
    known = settings.flat(defaults.like(config))
    moved_by: dict[str, str] = {}
    for name, c in sorted(config.schedules.items()):
        own = f"schedules.{name}"
        unknown = set(c) ^ set(fields.SCHEDULE.fields)
        if unknown:
            raise errors.InputError(
                f"{own} lacks or does not know {', '.join(sorted(unknown))}; make it with"
                " configs.base.schedule(field, ...)."
            )
        errors.check_known(f"{own}.field", c.field, known)
        if not (c.field in fields.MOVABLE or fields.is_knob(c.field)):
            raise errors.InputError(
                f"{own}.field={c.field!r} cannot move while training. What can:"
                f" {', '.join(fields.MOVABLE)}, and the numbers of mining.knobs and loss.knobs."
            )
        if c.field in moved_by:
            raise errors.InputError(
                f"{own}.field={c.field!r} is moved by schedules.{moved_by[c.field]} too; keep one."
            )
        moved_by[c.field] = name
        fields.SCHEDULE.check(c, f"{own}.")
        for end in ("start", "end"):
            allowed = fields.allowed(c.field)
            if allowed:
                allowed.check(f"{own}.{end}", c[end])
        _check_scale(own, c)
        _check_batch_shape(config, own, c)
        _check_pace(config, own, c)


def _check_scale(own, c):
    if c.scale == "log" and min(c.start, c.end) <= 0:
        raise errors.InputError(
            f"{own}.scale='log' needs ends above 0, not start={c.start} and end={c.end}: no factor"
            " leads to or from 0. Choose a small number, or scale='linear'."
        )


def _check_batch_shape(config, own, c):
    """Refuses larger batches than the config's, whose shape stays while its rows come and go."""
    if c.field not in ("batch.classes", "batch.per_class"):
        return
    most = settings.flat(config)[c.field]
    if max(c.start, c.end) > most:
        raise errors.InputError(
            f"{own} moves {c.field} up to {max(c.start, c.end)}, more than {c.field}={most}, which"
            " is the batch's shape: raise that."
        )


def _check_pace(config, own, c):
    """Refuses steps without a level each, and orders and streams that do not suit self-pacing."""
    if c.kind == "piecewise":
        with naming.as_fields_of_schedule(own.removeprefix("schedules.")):
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
