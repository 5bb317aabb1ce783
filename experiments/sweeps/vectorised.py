"""Runs that differ only in numbers, trained together in one compiled step.

The step of a run is lifted over runs by `jax.vmap`. On a CPU the runs take that one step in turn
instead: convolutions with a kernel for each run are slow there, and so are those in a `lax.map`.
Each run gives what it gives alone, within float error, and leaves the same files.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.config import augmentations, datasets, encoders, pk_batches, settings, stepping
from experiments.run import config_json, data_json, evaluating, lock, restoring, training
from experiments.sweeps import runs
from triplet_jax import data
from triplet_jax.data import batch_loading
from triplet_jax.devices import collectives, signals
from triplet_jax.models import inference
from triplet_jax.runs import files, health, row_files, stopwatch
from triplet_jax.runs.checkpoint import Checkpoints
from triplet_jax.runs.stopwatch import Stopwatch
from triplet_jax.training import data_parallel, train_state

# Fields that may differ among runs that are trained together: they are traced.
NUMBERS = ("seed", "loss.margin", "mining.mix", "batch.pool", "batch.same_group")
NUMBERS += ("optimizer.learning_rate", "memory.weight")
OWNERS = ("mining.knobs", "loss.knobs")
OF_SCHEDULES = ("a", "b", "start", "end", "target", "rate", "decay")


def train_all(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """The engine: group after group of runs that can be trained together."""
    stop = signals.Stop()
    with stop.listening():
        for members in _groups(planned):
            group = _Group(members)
            with contextlib.ExitStack() as claims:
                for run in group.pending:
                    run.folder.mkdir(parents=True, exist_ok=True)
                    claims.enter_context(lock.claimed(run.folder))
                if group.pending:
                    group.train(stop, show)
            if stop.signal is not None:
                return


def _groups(planned):
    """Runs by all that is not a number."""
    groups: dict[str, list[runs.Run]] = {}
    for run in planned:
        fields = settings.flat(run.config)
        fixed = {name: value for name, value in fields.items() if not _may_differ(name, fields)}
        groups.setdefault(json.dumps(fixed, sort_keys=True, default=str), []).append(run)
    return groups.values()


def _may_differ(name, fields):
    if fields[name] is None:  # a default, which is not a number
        return False
    owner, _, leaf = name.rpartition(".")
    # Which examples there are depends on the noise where some are dropped by their labels.
    noise = ("dataset.label_noise", "dataset.noise_seed")
    fixed = fields["dataset.drop_noisy"] or fields["batch.small_classes"] == "drop"
    of_noise = name in noise and not fixed
    of_schedule = owner.startswith("schedules.") and leaf in OF_SCHEDULES
    return name in NUMBERS or owner in OWNERS or of_noise or of_schedule


def dataset(config) -> data.Dataset:
    """The data of a run, opened once for all runs that have the same."""
    # The noise is planted later.
    fields = config.dataset.to_dict() | {"noise_seed": 0, "label_noise": 0.0}
    return _dataset(json.dumps({"dataset": fields}))


@functools.lru_cache(maxsize=2)
def _dataset(fields):
    return datasets.dataset(ml_collections.ConfigDict(json.loads(fields)))


class _Group:
    """Runs that are trained together, and what they share."""

    def __init__(self, members: Sequence[runs.Run]):
        pending = [run for run in members if not run.has_ended]
        self._folder, self._members = _started(members, pending) or _fresh(pending)
        self.pending = pending

    def train(self, stop: signals.Stop, show: Callable[[], None]) -> None:
        """Trains all members to the end and evaluates them, unless somebody asks to stop."""
        started = time.perf_counter()
        config = self._members[0].config
        everything = dataset(config)
        encoder = encoders.encoder(config, everything.input_shape, everything.pair_shapes)
        embed = inference.make_embed(encoder, batch=config.evaluate.batch)
        resident = self._prepare(everything)
        state, start = self._compile(config, encoder, everything, resident)
        saved = Checkpoints(self._folder / "checkpoints")
        kept = saved.restore_latest(_Kept(state, config).tree)
        if kept is not None and self._retries(kept["state"], stop, show):
            return
        best = _Kept(state, config, kept)
        with contextlib.ExitStack() as resources:
            validates = datasets.can_score(everything.only("validation"))
            loggers = [_Logger(run, int(best.step), validates, resources) for run in self._members]
            watch = Stopwatch(self._folder / "seconds.json", started=started)
            self._loop(best, start(best.state), embed, everything, saved, loggers, watch, stop)
        saved.wait()
        watch.note(now=True)
        if best.step < config.train.steps:
            return
        seconds = time.perf_counter() - started
        of_group = sum(stopwatch.read(self._folder / "seconds.json"))
        for i, run in enumerate(self._members):
            if not run.has_ended:
                self._finish(run, best, i, everything, encoder, embed, seconds)
                stopwatch.write(run.folder / "seconds.json", [of_group / len(self._members)])
                show()

    def _retries(self, state, stop, show):
        """Trains runs that failed and are tried again, each apart; whether nothing else is left."""
        for i, run in enumerate(self._members):
            params = jax.tree.leaves(_of(state, i).params)
            if not run.has_ended and not all(np.isfinite(x).all() for x in params):
                if len(self._members) == 1:  # its own group failed too
                    shutil.rmtree(self._folder)
                _Group([run]).train(stop, show)
        return all(run.has_ended for run in self._members) or stop.signal is not None

    def _prepare(self, everything):
        """Writes what each run is; the data on the devices: inputs once, labels for every run."""
        examples, indices, mark = [], [], data_json.content(everything)
        for run in self._members:
            config_json.remember(run.folder, run.config)
            data_json.remember(run.folder, mark)
            mine, wrong = datasets.training_split(run.config, everything)
            if wrong.any():
                training.remember_noise(run.folder, run.config, everything, wrong)
            examples.append(mine)
            indices.append(pk_batches.class_index(run.config, mine))
        inputs, _ = batch_loading.resident(examples[0])
        index = jax.tree.map(lambda *x: jnp.stack(x), *indices)
        labels = jnp.stack([mine.labels for mine in examples])
        return data_parallel.replicate((index, inputs, labels))

    def _compile(self, config, encoder, everything, resident):
        numbers, shape = self._numbers(), everything.input_shape
        measured = encoders.input_statistics(config, everything)
        augment = augmentations.augmentation(config, shape)
        devices = jax.device_count()

        def first_state(numbers):
            mine = settings.with_numbers(config, numbers)
            return stepping.initial_state(mine, encoder, shape, measured)

        def of_run(state, numbers_and_data, device):
            numbers, resident = numbers_and_data
            mine = settings.with_numbers(config, numbers)
            step = stepping.step(mine, encoder, augment)
            take = data_parallel.drawing(step, pk_batches.draw(mine), devices=devices)
            return take(state, resident, device)

        # The number of the step is one for all, so that what happens every so many steps
        # stays a branch.
        like = jax.eval_shape(first_state, jax.tree.map(lambda x: x[0], numbers))
        fields = [field.name for field in dataclasses.fields(like)]
        axes = {name: 0 for name in fields if getattr(like, name) is not None}
        of_state = like.replace(**axes | {"step": None})
        state = jax.jit(jax.vmap(first_state, out_axes=of_state))(numbers)
        lift = _InTurn if jax.default_backend() == "cpu" else _AtOnce
        return state, functools.partial(lift, of_run, of_state, numbers, resident)

    def _numbers(self):
        """What differs among the members, as arrays over runs. The seed always counts."""
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

    def _loop(self, kept, together, embed, everything, saved, loggers, watch, stop):
        config = self._members[0].config
        validation = everything.only("validation")
        step, waiting = kept.step, []

        def write_down(*, write):
            """Checks what the last steps said, which comes before anything is saved."""
            numbers = jax.device_get(waiting)
            waiting.clear()
            for i, logger in enumerate(loggers):
                rows = [(at, {n: x[i] for n, x in row.items()}) for at, row in numbers]
                logger.metrics(rows, write=write)

        while step < config.train.steps and stop.signal is None:
            metrics = together.take_step()
            step += 1
            telemetry = metrics.pop("telemetry", None)
            waiting.append((step, metrics))
            last = step == config.train.steps
            logs = last or step % config.log.every == 0
            evaluates = last or step % config.evaluate.every == 0
            measured = config.log.telemetry_every and step % config.log.telemetry_every == 0
            if measured:
                telemetry = jax.device_get(telemetry)
                for i, logger in enumerate(loggers):
                    logger.telemetry(step, {name: x[i] for name, x in telemetry.items()})
            if logs or evaluates:
                write_down(write=logs)
                watch.note()
            if evaluates:
                scores = []
                for i, logger in enumerate(loggers):
                    found = training.validate(embed, together.of_run(i), validation)
                    scores.append(found.get("map_at_r", -np.inf))
                    logger.validation(step, found)
                kept.update(step, together.state, np.asarray(scores))
                saved.save(step, kept.tree)
        if step > kept.step:  # somebody asked to stop
            write_down(write=False)
            saved.save(step, kept.tree | {"state": jax.device_get(together.state)})

    def _finish(self, run, kept, i, everything, encoder, embed, seconds):
        config = json.loads(run.config.to_json())
        checkpoints = Checkpoints(run.folder / "checkpoints", config=config)
        for step, state, score in kept.of_run(i):
            if step not in checkpoints.steps:
                checkpoints.save(step, state, score if np.isfinite(score) else None)
        checkpoints.wait()
        together = len(self._members)
        extra = {"wall_seconds_of_this_process": seconds, "runs_trained_together": together}
        with (run.folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
            state = kept.of_run(i)[-1][1]
            trained = restoring.TrainedRun(
                run.folder, run.config, encoder, embed, state, checkpoints
            )
            evaluating.evaluate(trained, everything, extra=extra)


class _Kept:
    """What a group saves: where all runs stand, and where each was best if that is asked for."""

    def __init__(self, state, config, tree=None):
        wants_best = config.evaluate.checkpoint == "best"
        count = len(jax.tree.leaves(state.params)[0])
        fresh = {
            "state": state,
            "scores": np.full(count, -np.inf, np.float32),
            "best": state.replace(step=np.zeros(count, np.int32)) if wants_best else None,
            "best_scores": np.full(count, -np.inf, np.float32),
        }
        self.tree = fresh if tree is None else tree

    @property
    def state(self):
        return self.tree["state"]

    @property
    def step(self) -> int:
        return int(self.tree["state"].step)

    def update(self, step, state, scores):
        state, scores = jax.device_get(state), scores.astype(np.float32)
        tree = self.tree | {"state": state, "scores": scores}
        if tree["best"] is not None:
            # Of equals the later one, as a run alone keeps it, and without scores the last.
            better = (scores >= tree["best_scores"]) | ~np.isfinite(scores)
            now = state.replace(step=np.full(len(scores), step, np.int32))
            tree["best"] = jax.tree.map(
                lambda new, old: np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                now,
                jax.device_get(tree["best"]),
            )
            tree["best_scores"] = np.where(better, scores, tree["best_scores"])
        self.tree = tree

    def of_run(self, i):
        """Pairs of a step and the run's state, with its score; the last one last."""
        states = [(self.step, _of(self.state, i), float(self.tree["scores"][i]))]
        if self.tree["best"] is not None:
            best = jax.tree.map(lambda x: x[i], self.tree["best"])
            if int(best.step) != self.step:
                states.insert(0, (int(best.step), best, float(self.tree["best_scores"][i])))
        return states


class _Logger:
    """The files of one run, until it fails; nothing of a run that has ended."""

    def __init__(
        self, run: runs.Run, first_step: int, validates: bool, resources: contextlib.ExitStack
    ):
        self._run, self._files = run, {}
        self._over = run.has_ended
        opened = {"first_step": first_step, "validates": validates}
        for name in () if self._over else ("metrics", "telemetry"):
            file = training.open_rows(run.config, run.folder, name, **opened)
            resources.callback(file.close)
            self._files[name] = file

    def metrics(self, rows: Sequence[tuple[int, dict]], *, write: bool) -> None:
        """Checks all, and writes the last of them; a run that is not finite fails at once."""
        for step, numbers in rows:
            row = row_files.metrics_row(step, numbers)
            try:
                health.check_finite(row)
            except health.NotFiniteError as error:
                if not self._over:
                    self._run.fail(str(error))
                self._over = True
        if write:
            self._write("metrics", row)

    def validation(self, step: int, scores: dict[str, float]) -> None:
        if scores:
            self._write("metrics", row_files.validation_row(step, scores))

    def telemetry(self, step: int, arrays: dict) -> None:
        self._write("telemetry", row_files.arrays_row(step, arrays))

    def _write(self, name, row):
        if not self._over:
            self._files[name].write(row)


class _AtOnce:
    """Runs that take one step together.

    Args:
      step: `(state, (numbers, resident), device) -> (state, metrics)` of one run.
      of_state: where the axis of runs is in a state.
      numbers: what differs among the runs, with an axis of runs.
      resident: the data: an index and labels for every run, and the inputs of all.
      state: where the runs stand.
    """

    def __init__(self, step, of_state, numbers, resident, state):
        self.state = data_parallel.replicate(state)
        axes = (of_state, (0, (0, None, 0)), None)
        self._step = data_parallel.resident(jax.vmap(step, in_axes=axes, out_axes=(of_state, 0)))
        self._inputs = (data_parallel.replicate(numbers), resident)
        self._devices = collectives.own_devices()

    def take_step(self) -> dict:
        """The metrics of all runs by name, each with an axis of runs."""
        self.state, metrics = self._step(self.state, self._inputs, self._devices)
        return metrics

    def of_run(self, i: int) -> train_state.TrainState:
        return _of(self.state, i)


class _InTurn:
    """Runs that take the same compiled step one after the other; see `_AtOnce`."""

    def __init__(self, step, of_state, numbers, resident, state):
        del of_state
        index, inputs, labels = resident
        self._step = data_parallel.resident(step)
        count = len(labels)
        self._states = [data_parallel.replicate(_of(state, i)) for i in range(count)]
        self._inputs = [
            data_parallel.replicate(jax.tree.map(lambda x, i=i: x[i], (numbers, index, labels)))
            for i in range(count)
        ]
        self._examples, self._devices = inputs, collectives.own_devices()

    def take_step(self) -> dict:
        """The metrics of all runs by name, each a list over runs."""
        metrics = []
        for i, (numbers, index, labels) in enumerate(self._inputs):
            inputs = (numbers, (index, self._examples, labels))
            self._states[i], of_run = self._step(self._states[i], inputs, self._devices)
            metrics.append(of_run)
        # Telemetry is a tree of its own, and the list goes under its names.
        return jax.tree.map(lambda *of_runs: list(of_runs), *metrics)

    def of_run(self, i: int) -> train_state.TrainState:
        return self._states[i]

    @property
    def state(self) -> train_state.TrainState:
        first, *_ = states = jax.device_get(self._states)
        stacked = jax.tree.map(lambda *of_runs: np.stack(of_runs), *states)
        return stacked.replace(step=first.step)


def _of(state, i):
    """The state of one run."""
    mine = jax.tree.map(lambda x: x[i], state.replace(step=None))
    return mine.replace(step=state.step)


def _started(members, pending):
    """The folder and the members of a group that was begun, and holds all that are to do."""
    names = {_name(run): run for run in members}
    for file in sorted(members[0].workdir.glob("groups/*/members.json")):
        found = json.loads(file.read_text())
        if set(found) <= set(names) and {_name(run) for run in pending} <= set(found):
            return file.parent, [names[name] for name in found]
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
