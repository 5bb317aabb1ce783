"""Checkpoints: saves the state of a run, and restores it.

Orbax writes in the background and makes a checkpoint visible by one rename; another rename hides it
before it is removed. So a killed run leaves only whole checkpoints. A digest of the arrays, saved
beside them, shows later damage.
"""

import contextlib
import functools
import hashlib
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from triplet_jax import errors
from triplet_jax.devices import allocator

# A state of more bytes is large: a copy of it counts beside the memory of a step.
_LARGE = 2**27
# The folder, beside the checkpoints, of those that are being removed.
_REMOVED = "removed"


class DamagedError(errors.InputError):
    """A checkpoint is not what was saved."""


class SaveError(errors.LostError):
    """A checkpoint could not be saved."""


class Checkpoints:
    """The checkpoints of one run: the two latest, and the best by a score.

        checkpoints = Checkpoints(workdir / "checkpoints")
        state = checkpoints.restore_latest(like=state) or state
        checkpoints.save(step, state, score=map_at_r)
        checkpoints.wait()

    It keeps two latest ones so that a run can go back one if the last is damaged. In a run of
    several processes only the first uses this class, and passes on what it reads.

    Args:
      folder: the folder that keeps them.
      config: what the states belong to, as JSON can hold it; it is saved beside each state.
      read_only: whether nothing may be written or removed.
      report: what is called with a message about a damaged checkpoint.

    Raises:
      DamagedError: a checkpoint has no score, and `read_only` is set.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        config: dict[str, Any] | None = None,
        read_only: bool = False,
        report: Callable[[str], None] = print,
    ):
        self._folder = folder.absolute()
        self._config = config
        self._read_only = read_only
        self._report = report
        for step in whole_steps(self._folder):
            # Orbax reads all scores when it opens, and fails on a damaged one.
            if _read_score(self._folder / str(step)) is None:
                damaged = DamagedError(f"The checkpoint of step {step} in {folder} has no score.")
                if read_only:
                    raise damaged
                self._move_aside(step, damaged)
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clear()
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        best = preserve.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        return ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preserve.AnyPreservationPolicy([preserve.LatestN(2), best]),
                best_fn=_score,
                todelete_subdir=_REMOVED,
                cleanup_tmp_directories=not self._read_only,
                read_only=self._read_only,
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}
                )
                if jax.process_count() > 1
                else ocp.options.MultiprocessingOptions(),
            ),
            item_names=("state", "digest", "config"),
        )

    def _clear(self) -> None:
        """Removes the files of checkpoints that are no longer kept."""
        shutil.rmtree(self._folder / _REMOVED, ignore_errors=True)

    def _finish(self) -> None:
        """Waits for what is being written, and clears up after it."""
        self._manager.wait_until_finished()
        self._clear()

    @property
    def folder(self) -> pathlib.Path:
        """The folder that keeps the checkpoints."""
        return self._folder

    @property
    def steps(self) -> list[int]:
        """The steps of whole checkpoints, in rising order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, score: float | None = None) -> None:
        """Starts to save a state, and returns once it is copied from the device.

        On a CPU a large state is written before it returns, since a copy of it beside the next step
        would raise the run's peak memory.

        Args:
          step: the step of the state.
          state: the state.
          score: the larger, the better; the best is kept. None or NaN if there is no score.

        Raises:
          SaveError: an earlier save, or the start of this one, failed, as on a full disk.
        """
        # As numpy, since orbax refuses arrays that pmap left on one host of several.
        arrays = jax.device_get(state)
        score = -math.inf if score is None or math.isnan(score) else float(score)
        with self._naming_failures():
            self._finish()
            # Space is looked up first, since a write that fails halfway leaves background threads
            # that complain at length.
            needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(arrays)) + 2**20
            if shutil.disk_usage(self._folder).free < needed:
                raise OSError(f"No space left for {needed / 2**20:,.0f} MiB")
            items: dict[str, Any] = {
                "state": ocp.args.StandardSave(arrays),
                "digest": ocp.args.JsonSave({"sha256": _digest(arrays, score)}),
            }
            if self._config is not None:
                items["config"] = ocp.args.JsonSave(self._config)
            self._manager.save(step, args=ocp.args.Composite(**items), metrics={"score": score})
            if needed > _LARGE and jax.default_backend() == "cpu":
                self._finish()
                allocator.trim()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          SaveError: a save failed.
        """
        with self._naming_failures():
            self._finish()

    @contextlib.contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Turns whatever saving raises into a SaveError that says what to do."""
        try:
            yield
        except Exception as error:  # orbax and the libraries below it raise many kinds
            why = f"{error}. Mend that."
            if isinstance(error, TimeoutError):  # orbax measures by the time of day
                why = f"the disk took too long, or the clock jumped ({error}). Look at both."
            if "No space left" in why:
                why = f"the disk is full ({error}). Free some space."
            whole = whole_steps(self._folder)
            raise SaveError(
                f"A checkpoint could not be saved in {self._folder}, whose last is of step"
                f" {whole[-1] if whole else 0}: {why}"
            ) from error

    def restore_latest(self, like: PyTree) -> PyTree | None:
        """The newest whole state; None if there is no checkpoint.

        All checkpoints are checked, since their scores decide later which are removed. A damaged
        one is reported and set aside (renamed), never removed.

        Args:
          like: a state of the same structure, shapes and types.

        Raises:
          InputError: there are checkpoints, and all of them are damaged.
        """
        steps = self.steps
        newest = None
        for step in reversed(steps):
            state = self._restore_or_move_aside(step, like)
            newest = state if newest is None else newest
        if steps and newest is None:
            raise errors.InputError(
                f"Every checkpoint in {self._folder} is damaged (steps {steps}). They were moved to"
                f" {self._folder.parent / 'damaged_checkpoints'}: train again from the first step."
            )
        return newest

    def restore_best(self, like: PyTree) -> tuple[int, PyTree]:
        """The step and the state with the best score, or the latest if none has a score.

        All checkpoints are checked, since damage may have changed a score. A damaged one is set
        aside, as by `restore_latest`.

        Args:
          like: a state of the same structure, shapes and types.

        Raises:
          InputError: there is no checkpoint, or none is whole.
          DamagedError: a checkpoint is damaged, and `read_only` is set.
        """
        best = None
        for step in self._some_steps():
            state = self._restore_or_move_aside(step, like)
            if state is not None:
                score = _read_score(self._folder / str(step))
                if best is None or score >= best[0]:
                    best = score, step, state
        return best[1:] if best else self.restore_last(like)

    def restore_last(self, like: PyTree) -> tuple[int, PyTree]:
        """The last whole step and its state; it raises the errors of `restore_best`."""
        step = self._some_steps()[-1]
        state = self._restore_or_move_aside(step, like)
        return self.restore_last(like) if state is None else (step, state)

    def _some_steps(self) -> list[int]:
        steps = self.steps
        if not steps:
            why = f"{self._folder} holds no checkpoint. Train the run first."
            damaged = self._folder.parent / "damaged_checkpoints"
            if damaged.exists():
                why = (
                    f"Every checkpoint in {self._folder} was damaged, and was moved to {damaged}:"
                    " train again from the first step."
                )
            raise errors.InputError(why)
        return steps

    def config_of(self, step: int) -> dict[str, Any] | None:
        """What the state of a step belongs to; None if that was not saved or is damaged."""
        try:
            return json.loads((self._folder / str(step) / "config" / "metadata").read_bytes())
        except (OSError, ValueError) as error:
            errors.check_answers(error)
            return None

    def check_arrays(self, like: PyTree) -> None:
        """Refuses whole checkpoints of another model or optimizer.

        Args:
          like: a state of the wanted structure and shapes; it may be abstract.

        Raises:
          InputError: arrays differ; the message names the first of them.
        """
        wanted = _shapes(like)
        for step in reversed(self.steps):
            try:
                there = _shapes(_metadata(self._folder / str(step) / "state"))
            except Exception as error:  # damage, which restoring reports
                errors.check_answers(error)
                continue
            lines = [
                f"  {name}: {_words(there.get(name))} there, {_words(wanted.get(name))} now"
                for name in sorted(there.keys() | wanted.keys())
                if there.get(name) != wanted.get(name)
            ]
            if lines:
                more = f"\n  and {len(lines) - 5} more" if len(lines) > 5 else ""
                raise errors.InputError(
                    f"The checkpoint of step {step} in {self._folder} is of another model or"
                    " optimizer than is asked for:\n" + "\n".join(lines[:5]) + more
                )

    def restore(self, step: int, like: PyTree) -> PyTree:
        """The state of one step.

        Args:
          step: one of `steps`.
          like: a state of the same structure, shapes and types.

        Raises:
          DamagedError: the checkpoint cannot be read, or is not what was saved.
          OSError: the file system does not answer.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, jax.device_get(like))
        try:
            loaded: Any = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), digest=ocp.args.JsonRestore()
                ),
            )
            state = jax.tree.map(lambda a, b: np.asarray(a, b.dtype), loaded["state"], abstract)
            score = _read_score(self._folder / str(step))
            whole = _digest(state, score) == loaded["digest"]["sha256"]
        except Exception as error:  # damage makes orbax raise many kinds
            errors.check_answers(error)
            raise DamagedError(
                f"The checkpoint of step {step} in {self._folder} cannot be read"
                f" ({type(error).__name__})."
            ) from error
        if not whole:
            raise DamagedError(
                f"The checkpoint of step {step} in {self._folder} is not what was saved: its"
                " digest differs."
            )
        return state

    def _restore_or_move_aside(self, step: int, like: PyTree) -> PyTree | None:
        """The state of one step; None if it is damaged and was set aside."""
        try:
            return self.restore(step, like)
        except DamagedError as error:
            if self._read_only:
                raise DamagedError(
                    f"{error} Put it back as it was, or move {self._folder / str(step)} elsewhere:"
                    " then the others count."
                ) from error
            self._manager.close()
            self._move_aside(step, error)
            self._manager = self._open()
        return None

    def _move_aside(self, step: int, error: DamagedError) -> None:
        """Renames a damaged checkpoint, and reports where it is now."""
        newest = step == whole_steps(self._folder)[-1]
        then = "going back to the one before" if newest else "the best of the others counts"
        aside = self._folder.parent / "damaged_checkpoints" / str(step)
        aside.parent.mkdir(exist_ok=True)
        number = 0
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{step}_{number}")
        (self._folder / str(step)).rename(aside)
        self._report(f"warning: {error} It was moved to {aside}; {then}.")


def _metadata(folder: pathlib.Path) -> Any:
    """The saved tree, with shapes in place of arrays."""
    return ocp.StandardCheckpointHandler().metadata(folder).tree


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of every array, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    # By plain names, since orbax saves named tuples as dicts, and others as lists.
    name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    return {name(path): tuple(np.shape(leaf)) for path, leaf in leaves}


def _words(shape: tuple[int, ...] | None) -> str:
    return "no array" if shape is None else f"shape {list(shape)}"


def whole_steps(folder: pathlib.Path) -> list[int]:
    """The steps on the disk; the manager also counts those that it has only begun to save."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"]


def _read_score(folder: pathlib.Path) -> float | None:
    """The score of a checkpoint, as orbax wrote it; None if it is damaged."""
    try:
        return float(json.loads((folder / "metrics" / "metrics").read_text())["score"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        errors.check_answers(error)
        return None


def _digest(arrays: PyTree, score: float) -> str:
    """The SHA-256 of all arrays, with their paths and types, and of the score."""
    total = hashlib.sha256(repr(score).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        leaf = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        total.update(np.ascontiguousarray(leaf))
    return total.hexdigest()
