"""Runs that differ only in numbers, trained together in one compiled step.

The step of a run is lifted over runs by `jax.vmap`. On a CPU the runs take the compiled step in
turn, since convolutions with one kernel for each run are slow there, in a `lax.map` too. Each run
gives what it gives alone, within float error, and leaves the same files.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.config import datasets, encoders, pk_batches, settings, stepping
from experiments.run import (
    data_json,
    evaluating,
    frozen_features,
    lock,
    pretrained,
    restoring,
    tracking,
)
from experiments.run.setup import Setup
from experiments.sweeps import runs
from experiments.sweeps.vectorised_files import Kept, Logger
from experiments.sweeps.vectorised_step import AtOnce, InTurn, state_of
from triplet_jax import data
from triplet_jax.data import on_device
from triplet_jax.devices import signals
from triplet_jax.runs import files, stopwatch
from triplet_jax.runs.checkpoint import Checkpoints
from triplet_jax.runs.stopwatch import Stopwatch
from triplet_jax.runs.trackers.background import Trackers
from triplet_jax.training import data_parallel

# The fields that are traced. Runs that are trained together may differ in them.
NUMBERS = ("seed", "loss.margin", "mining.mix")
NUMBERS += ("batch.pool", "batch.same_group", "batch.strictness")
NUMBERS += ("optimizer.learning_rate", "memory.weight")
OWNERS = ("mining.knobs", "loss.knobs")
OF_SCHEDULES = ("a", "b", "start", "end", "target", "rate", "decay")


def train_all(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Carries out all runs: one group of runs that can be trained together after the other."""
    stop = signals.Stop()
    with stop.listening():
        for members in itertools.chain.from_iterable(map(_as_begun, groups(planned))):
            group = _Group(members)
            with contextlib.ExitStack() as claims:
                for run in group.pending:
                    run.folder.mkdir(parents=True, exist_ok=True)
                    claims.enter_context(lock.claimed(run.folder))
                if group.pending:
                    group.train(stop, show)
            if stop.signal is not None:
                return


def groups(planned: Sequence[runs.Run]) -> list[list[runs.Run]]:
    """Groups the runs whose configs differ in traced fields alone, which train together."""
    found: dict[str, list[runs.Run]] = {}
    for run in planned:
        fields = settings.flat(run.config)
        fixed = {name: value for name, value in fields.items() if not _may_differ(name, fields)}
        found.setdefault(json.dumps(fixed, sort_keys=True, default=str), []).append(run)
    return list(found.values())


def _may_differ(name, fields):
    """Whether a field is traced, by all fields of its config."""
    if fields[name] is None:  # the function's own default, which is not known here
        return False
    owner, _, leaf = name.rpartition(".")
    # Where examples are dropped by their labels, noise decides which examples there are.
    noise = ("dataset.label_noise", "dataset.noise_seed")
    fixed = fields["dataset.drop_noisy"] or fields["batch.small_classes"] == "drop"
    of_noise = name in noise and not fixed
    is_on = name in settings.OFF and settings.is_on(name, fields[name])
    of_schedule = owner.startswith("schedules.") and leaf in OF_SCHEDULES
    return name in NUMBERS or owner in OWNERS or of_noise or is_on or of_schedule


def dataset(config) -> data.Dataset:
    """The data of a run, opened once for all runs on the same data."""
    # `datasets.training_split` plants the noise.
    fields = config.dataset.to_dict() | {"noise_seed": 0, "label_noise": 0.0}
    return _dataset(json.dumps({"dataset": fields}), not encoders.keeps_features(config))


def forget_datasets() -> None:
    """Closes the data that `dataset` has opened."""
    _dataset.cache_clear()


@functools.lru_cache(maxsize=2)
def _dataset(fields, decoded):
    return datasets.dataset(ml_collections.ConfigDict(json.loads(fields)), decoded=decoded)


class _Group:
    """Runs that are trained together, and what they share."""

    def __init__(self, members: Sequence[runs.Run]):
        pending = [run for run in members if not run.has_ended]
        self._folder, self._members = _started(members, pending) or _fresh(pending)
        self.pending = pending

    def train(self, stop: signals.Stop, show: Callable[[], None]) -> None:
        """Trains all members to the end and evaluates them, unless somebody asks to stop."""
        started = time.perf_counter()
        run = self._members[0]
        first = Setup(run.config, run.folder, dataset(run.config))
        saved = Checkpoints(self._folder / "checkpoints")
        is_new = not saved.steps
        state, of_state = self._first_states(first, first.given if is_new else {})
        tree = saved.restore_latest(Kept(state, first.config).tree)
        if tree is not None and self._retries(tree["state"], stop, show):
            return
        kept = Kept(state, first.config, tree)
        record = first.weights.record if is_new else None
        variables = state_of(kept.state, 0).variables
        first = frozen_features.on_features(first, variables)
        resident = self._prepare(first)
        if is_new:
            alone = frozen_features.scores(first, variables)
            for member in self._members:
                pretrained.remember(member.folder, record)
                frozen_features.remember(member.folder, alone)
        watch = Stopwatch(self._folder / "seconds.json", started=started)
        with contextlib.ExitStack() as resources:
            trackers = self._tracked(kept.step, resources)
            together = self._together(first, of_state, resident, kept.state)
            with contextlib.ExitStack() as rows:
                validates = datasets.can_score(first.config, first.validation)
                loggers = [
                    Logger(run, kept.step, validates, own, rows)
                    for run, own in zip(self._members, trackers, strict=True)
                ]
                self._loop(first, kept, together, saved, loggers, watch, stop)
            saved.wait()
            watch.note(now=True)
            if kept.step < first.config.train.steps:
                for own in trackers:
                    own.end("stopped")
                return
            seconds = time.perf_counter() - started
            of_group = sum(stopwatch.read(self._folder / "seconds.json"))
            for i, run in enumerate(self._members):
                if not run.has_ended:
                    result = self._finish(i, kept, first, seconds)
                    tracking.finish(trackers[i], run.folder, result)
                    stopwatch.write(run.folder / "seconds.json", [of_group / len(self._members)])
                    show()

    def _tracked(self, first_step, resources):
        """The trackers of each run, none for one that has ended."""
        going_on = [run for run in self._members if not run.has_ended]
        opening = tracking.all_tracked([(run.config, run.folder) for run in going_on], first_step)
        opened = dict(zip(map(_name, going_on), resources.enter_context(opening), strict=True))
        return [opened.get(_name(run), Trackers()) for run in self._members]

    def _retries(self, state, stop, show):
        """Trains each run that failed before in a group of its own.

        Returns:
          Whether nothing else is left to do.
        """
        for i, run in enumerate(self._members):
            params = jax.tree.leaves(state_of(state, i).params)
            if not run.has_ended and not all(np.isfinite(x).all() for x in params):
                if len(self._members) == 1:  # its own group failed too
                    shutil.rmtree(self._folder)
                _Group([run]).train(stop, show)
        return all(run.has_ended for run in self._members) or stop.signal is not None

    def _prepare(self, first):
        """Writes the records of each run, and puts what they see of the data on the devices.

        Returns:
          Class indices, inputs and labels. The inputs are shared; the others have an axis of runs.
        """
        content, indices, labels = data_json.content(first.everything), [], []
        for run in self._members:
            # Each has a copy of the training split, of which only one is kept at a time.
            one = Setup(run.config, run.folder, first.everything, first.features)
            one.remember(content)
            indices.append(pk_batches.class_index(one.config, one.examples))
            labels.append(one.examples.labels)
        inputs, _ = on_device.resident(one.examples)
        index = jax.tree.map(lambda *x: jnp.stack(x), *indices)
        return data_parallel.replicate((index, inputs, jnp.stack(labels)))

    def _first_states(self, first, given):
        """The first states of all runs, and the axis of runs in each of their fields."""
        config, numbers = first.config, self._numbers()
        shape = first.everything.input_shape

        def first_state(numbers, given):
            mine = settings.with_numbers(config, numbers)
            return stepping.initial_state(mine, first.encoder, shape, given)

        # All runs share the number of the step. What happens every so many steps then stays a
        # branch, where `vmap` would compute it at every step.
        like = jax.eval_shape(first_state, jax.tree.map(lambda x: x[0], numbers), given)
        fields = [field.name for field in dataclasses.fields(like)]
        axes = {name: 0 for name in fields if getattr(like, name) is not None}
        of_state = like.replace(**axes | {"step": None})
        return jax.jit(jax.vmap(first_state, (0, None), of_state))(numbers, given), of_state

    def _together(self, first, of_state, resident, state):
        """The runs from these states on, which take a common step."""
        devices = jax.device_count()

        def step_of_run(state, numbers_and_data, device):
            numbers, resident = numbers_and_data
            mine = settings.with_numbers(first.config, numbers)
            step = stepping.step(mine, first.trained, first.augment)
            draw = pk_batches.draw(mine, first.trained)
            take = data_parallel.drawing(step, draw, devices=devices)
            return take(state, resident, device)

        lift = InTurn if jax.default_backend() == "cpu" else AtOnce
        return lift(step_of_run, of_state, self._numbers(), resident, state)

    def _numbers(self):
        """The fields in which members differ, and the seed, as arrays with an axis of runs."""
        flat = [settings.flat(run.config) for run in self._members]
        names = [
            name
            for name in flat[0]
            if name == "seed" or len({json.dumps(fields[name]) for fields in flat}) > 1
        ]
        return {
            name: jnp.asarray([fields[name] for fields in flat])
            for name in names
            if not name.startswith("dataset.")
        }

    def _loop(self, first, kept, together, saved, loggers, watch, stop):
        """Trains until the last step, or until somebody asks to stop."""
        schedule = stepping.schedule(first.config)
        step, waiting = kept.step, []

        def write_down(*, write):
            """Checks the metrics of the last steps, before anything is saved."""
            numbers = jax.device_get(waiting)
            waiting.clear()
            for i, logger in enumerate(loggers):
                rows = [(at, {n: x[i] for n, x in row.items()}) for at, row in numbers]
                logger.metrics(rows, write=write)

        while step < schedule.steps and stop.signal is None:
            metrics = together.take_step()
            step += 1
            telemetry = metrics.pop("telemetry", None)
            waiting.append((step, metrics))
            if schedule.measures(step):
                telemetry = jax.device_get(telemetry)
                for i, logger in enumerate(loggers):
                    logger.telemetry(step, {name: x[i] for name, x in telemetry.items()})
            logs, evaluates = schedule.logs(step), schedule.evaluates(step)
            if logs or evaluates:
                write_down(write=logs)
                watch.note()
            if evaluates:
                found = [first.validate(together.of_run(i)) for i in range(len(loggers))]
                for logger, scores in zip(loggers, found, strict=True):
                    logger.validation(step, scores)
                scores = [scores.get("map_at_r", -np.inf) for scores in found]
                kept.update(step, together.state, np.asarray(scores))
                saved.save(step, kept.tree)
        if step > kept.step:  # somebody asked to stop
            write_down(write=False)
            saved.save(step, kept.tree | {"state": jax.device_get(together.state)})

    def _finish(self, i, kept, first, seconds):
        """Writes the checkpoints of a run and evaluates it, as a run alone does; its result."""
        run, states = self._members[i], kept.of_run(i)
        config = json.loads(run.config.to_json())
        checkpoints = Checkpoints(run.folder / "checkpoints", config=config)
        for step, state, score in states:
            if step not in checkpoints.steps:
                checkpoints.save(step, state, score if np.isfinite(score) else None)
        checkpoints.wait()
        _, last, _ = states[-1]
        embed, inputs = first.judging
        trained = restoring.TrainedRun(
            run.folder, run.config, first.encoder, embed, last, checkpoints
        )
        together = len(self._members)
        extra = {"wall_seconds_of_this_process": seconds, "runs_trained_together": together}
        with (run.folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
            return evaluating.evaluate(trained, first.everything, extra=extra, inputs=inputs)


def _as_begun(members):
    """The runs in parts: each group that was begun and has not ended, and those that are new."""
    pending = [run for run in members if not run.has_ended]
    if not pending or _started(members, pending):
        return [members]
    left, parts = {_name(run): run for run in pending}, []
    for _, group in sorted(_begun(members), key=lambda begun: -len(begun[1])):
        names = {_name(run) for run in group}
        if waiting := names & left.keys():
            parts.append(group)
            left = {name: run for name, run in left.items() if name not in waiting}
    return [*parts, [*left.values()]] if left else parts


def _begun(members):
    """The folder and the members of each group of these runs that was begun."""
    names = {_name(run): run for run in members}
    for file in sorted(members[0].workdir.glob("groups/*/members.json")):
        try:
            found = json.loads(file.read_text())
        except FileNotFoundError:  # another process begins this group anew
            continue
        if set(found) <= set(names):
            yield file.parent, [names[name] for name in found]


def _started(members, pending):
    """The folder and members of a group that was begun and holds all runs that are pending."""
    wanted = {_name(run) for run in pending}
    for folder, group in _begun(members):
        if wanted <= {_name(run) for run in group}:
            return folder, group
    return None


def _fresh(pending):
    """A new group."""
    if not pending:
        return None, []
    names = [_name(run) for run in pending]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    folder = pending[0].workdir / "groups" / digest
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "members.json", names)
    return folder, list(pending)


def _name(run):
    return str(run.folder.relative_to(run.workdir))
