"""The trackers of a run and of a sweep: which, under which names, and what they are shown."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from experiments.config import naming, settings
from triplet_jax.runs.trackers import opening
from triplet_jax.runs.trackers.background import Trackers

WAIT_SECONDS = 10.0
"""How long a run waits, at its end, for trackers that have not shown everything yet."""


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
      InputError: naming the extra that installs it.
    """
    with naming.with_advice("Or leave it out of log.trackers."):
        opening.check(config.log.trackers)


@contextlib.contextmanager
def tracked(
    config: ml_collections.FrozenConfigDict, workdir: pathlib.Path, first_step: int
) -> Iterator[Trackers]:
    """Opens the trackers of a run, and waits at the end of the block for what they have to show.

    If nobody has said how the run ended when the block ends, it counts as failed.

    Args:
      config: of the run.
      workdir: of the run.
      first_step: the step from which it goes on.
    """
    with all_tracked([(config, workdir)], first_step) as (trackers,):
        yield trackers


@contextlib.contextmanager
def all_tracked(
    some: Iterable[tuple[ml_collections.FrozenConfigDict, pathlib.Path]], first_step: int
) -> Iterator[list[Trackers]]:
    """Opens the trackers of several runs, each a pair of config and folder; see `tracked`."""
    opened = []
    for config, workdir in some:
        group, name = _names(workdir)
        names = {"group": group, "name": name, "last_step": first_step}
        opened.append(opening.opened(config.log.trackers, workdir, **names))
        opened[-1].config(settings.flat(config))
    try:
        yield opened
    finally:
        _end(opened, "failed")


def finish(trackers: Trackers, workdir: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Shows the numbers of a result, the files that say what was done, and the figures; then ends.

    Args:
      trackers: of the run.
      workdir: of the run.
      result: what `result.json` holds.
    """
    trackers.write({"step": result["trained_steps"]} | dict(_numbers("result", result)))
    for path in [workdir / "config.json", workdir / "result.json", *_figures(workdir)]:
        trackers.file(path)
    trackers.end("finished")


def show_report(names: Iterable[str], workdir: pathlib.Path, written: Iterable[str]) -> None:
    """Shows the report of a sweep, as a run called "report" among the sweep's runs.

    Args:
      names: of the trackers.
      workdir: of the sweep.
      written: the names of its files.
    """
    trackers = opening.opened(names, workdir, name="report", group=workdir.name)
    for name in written:
        trackers.file(workdir / name)
    _end([trackers], "finished")


def _end(opened, ending):
    for trackers in opened:
        trackers.end(ending)
    until = time.monotonic() + WAIT_SECONDS
    for trackers in opened:
        trackers.wait(until)


def _names(workdir):
    """The name of the sweep or study that a run belongs to, or nothing, and that of the run."""
    for folder in workdir.parents:
        of_many = any((folder / name).is_file() for name in ("sweep.json", "study.json"))
        if of_many and workdir.is_relative_to(folder / "runs"):
            return folder.name, str(workdir.relative_to(folder / "runs"))
    return "", workdir.name


def _numbers(prefix, value):
    """The finite numbers in a nested dict, each with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(f"{prefix}/{name}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield prefix, value


def _figures(workdir):
    return sorted([*workdir.glob("*.png"), *workdir.glob("*.html")])
