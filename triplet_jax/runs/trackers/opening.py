"""Opens the trackers of a run by their names, each where it left the run."""

import contextlib
import datetime
import functools
import pathlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterable

from triplet_jax.runs import files
from triplet_jax.runs.trackers import interface, mlflow, tensorboard, trackio, wandb
from triplet_jax.runs.trackers.background import Background, Trackers

TRACKERS: dict[str, Callable[[interface.Place], interface.Tracker]] = {
    "tensorboard": tensorboard.TensorBoard,
    "mlflow": mlflow.MLflow,
    "wandb": wandb.WandB,
    "trackio": trackio.Trackio,
}
KNOWN, LOG = "trackers.json", "trackers.log"
_writing = threading.Lock()


def check(names: Iterable[str]) -> None:
    """Imports the packages of trackers, so that one that is missing is known before a run starts.

    Raises:
      InputError: a package is not installed; the message names the extra.
    """
    for name in names:
        # An installed package that is broken is reported when the tracker is opened.
        with contextlib.suppress(AttributeError, OSError, RuntimeError, TypeError):
            interface.needed(TRACKERS[name].package, name)


def opened(
    names: Iterable[str],
    folder: pathlib.Path,
    *,
    name: str,
    group: str = "",
    last_step: int = 0,
) -> Trackers:
    """Opens trackers without waiting for them.

    `trackers.json` in the run's folder keeps what each needs to go on with this run later. The
    first error of each is reported on stderr, and stands with its traceback in `trackers.log`.

    Args:
      names: of `TRACKERS`.
      folder: of the run.
      name: of the run.
      group: the name of the runs that it belongs to; empty for none.
      last_step: the step from which the run goes on; 0 for a new one.
    """
    place = interface.Place(folder, name, group, last_step)
    return Trackers(
        Background(
            functools.partial(_open, tracker, place),
            complain=functools.partial(_complain, tracker, folder),
        )
        for tracker in names
    )


def _open(name, place):
    path = place.folder / KNOWN
    known = _known(path).get(name, {})
    tracker = TRACKERS[name](
        interface.Place(place.folder, place.name, place.group, place.last_step, known)
    )
    if tracker.known != known:
        with _writing:
            files.write_json(path, _known(path) | {name: dict(tracker.known)})
    return tracker


def _known(path):
    return files.read_json(path) if path.exists() else {}


def _complain(name, folder, words, error):
    why = f": {_in_one_line(error)}" if error is not None else ""
    said = f"the tracker {name} {words}{why}. The run does not need it: its own files miss nothing."
    with contextlib.suppress(OSError), (folder / LOG).open("a") as log:
        log.write(f"{datetime.datetime.now().isoformat(timespec='seconds')} {said}\n")
        log.writelines(traceback.format_exception(error) if error is not None else ())
    print(f"warning: {said} See {folder / LOG}", file=sys.stderr, flush=True)


def _in_one_line(error):
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return f"{kind}: {lines[0].rstrip('.')}" if lines else kind
