"""Trains one run and evaluates it, for `experiments.train` and for sweeps."""

import contextlib
import gc
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.config import (
    augmentations,
    check,
    components,
    datasets,
    encoders,
    naming,
    objective,
    pk_batches,
    stepping,
)
from experiments.run import (
    changes,
    collapse,
    config_json,
    data_json,
    evaluating,
    restoring,
    scoring,
)
from experiments.run.offline_mining import OfflineMining
from triplet_jax import data, errors
from triplet_jax.data import batch_loading
from triplet_jax.devices import collectives, processes, signals
from triplet_jax.models import inference
from triplet_jax.runs import files, health, row_files, trackers
from triplet_jax.runs.checkpoint import Checkpoints
from triplet_jax.runs.journal import Journal
from triplet_jax.runs.progress import Progress
from triplet_jax.runs.stopwatch import Stopwatch
from triplet_jax.training import data_parallel, loop


def train(config: ml_collections.FrozenConfigDict, workdir: pathlib.Path) -> None:
    """Trains from the last checkpoint, or from the start, and evaluates the best one.

    Args:
      config: with every field of `config.fields`.
      workdir: of the run; see the README for what is in it.
    """
    check.check(config)
    started = time.perf_counter()
    everything = datasets.dataset(config)
    datasets.check_test(config, everything)
    note = datasets.note_on_validation(config, everything)
    if note:
        print(naming.in_fields(note, "dataset"))
    examples, wrong = datasets.training_split(config, everything)
    shape = everything.input_shape
    encoder = encoders.encoder(config, shape, everything.pair_shapes)
    augment = augmentations.augmentation(config, shape)
    embed = inference.make_embed(encoder, batch=config.evaluate.batch)
    mining = None
    if pk_batches.mines_offline(config):
        mining = OfflineMining(config, workdir, examples, embed)
    processes.first_does(lambda: config_json.remember(workdir, config))
    processes.first_does(lambda: data_json.remember(workdir, data_json.content(everything)))
    if wrong.any():
        processes.first_does(lambda: remember_noise(workdir, config, everything, wrong))

    like = jax.eval_shape(lambda: stepping.initial_state(config, encoder, shape))
    checkpoints = processes.first_does(lambda: open_checkpoints(config, workdir, like))
    measured = encoders.input_statistics(config, everything)
    state = stepping.initial_state(config, encoder, shape, measured)
    restored = processes.first_reads(lambda: checkpoints.restore_latest(state), like=state)
    state = data_parallel.replicate(state if restored is None else restored)
    first_step = int(state.step)
    changed = processes.first_does(lambda: config_json.update(workdir, config, first_step))
    if changed:
        print(f"going on with other values of {', '.join(changed)}: see {workdir / changes.FILE}")
    describe(config, everything, examples, state, first_step)
    for complaint in components.known_here_alone(config):
        print(f"warning: {complaint}")

    watch = processes.first_does(lambda: Stopwatch(workdir / "seconds.json", started=started))
    step = stepping.step(config, encoder, augment)
    validation = everything.only("validation")
    stop = signals.Stop()
    with stop.listening(), contextlib.ExitStack() as resources:
        try:
            state = loop.train(
                state,
                make_take_step(config, step, examples, first_step, resources, mining),
                schedule=loop.Schedule(
                    steps=config.train.steps,
                    log_every=config.log.every,
                    telemetry_every=config.log.telemetry_every,
                    evaluate_every=config.evaluate.every,
                ),
                score=lambda state: validate(embed, state, validation),
                score_name="map_at_r",
                save=lambda *saved: processes.first_does(lambda: checkpoints.save(*saved)),
                journal=processes.first_does(
                    lambda: open_journal(
                        config,
                        workdir,
                        first_step,
                        examples,
                        datasets.can_score(validation),
                        watch,
                        resources,
                    )
                ),
                stop=stop,
            )
        except health.NotFiniteError as error:
            advice = processes.first_does(lambda: way_back(checkpoints, workdir)) or ""
            raise health.NotFiniteError(f"{error} {advice}") from error
        processes.first_does(lambda: checkpoints.wait())
        processes.first_does(lambda: watch.note(now=True))
        stopped = int(state.step) < config.train.steps or stop.before(int(state.step))
    if stopped:
        print(
            f"stopped by {stop.signal.name} and saved at step {int(state.step)} of"
            f" {config.train.steps}. Run the same command again to go on."
        )
        return
    wall = {"wall_seconds_of_this_process": time.perf_counter() - started}
    run = restoring.TrainedRun(workdir, config, encoder, embed, state, checkpoints)
    evaluating.evaluate(run, everything, extra=wall)
    processes.first_does(lambda: watch.note(now=True))


def open_checkpoints(config, workdir: pathlib.Path, like) -> Checkpoints:
    """The checkpoints of a run, which belong to this config and hold arrays of these shapes.

    Raises:
      InputError: they do not.
    """
    checkpoints = Checkpoints(workdir / "checkpoints", config=json.loads(config.to_json()))
    config_json.check_checkpoints(config, checkpoints)
    checkpoints.check_arrays(like)
    return checkpoints


def open_rows(
    config, workdir: pathlib.Path, name: str, *, first_step: int, validates: bool
) -> row_files.RowFile:
    """The file of rows of this name, of a run that goes on from this step."""
    every = {}  # what is in a row of every so many steps
    if name == "metrics":
        every["loss"] = config.log.every
        if validates:
            every["validation/map_at_r"] = config.evaluate.every
    elif name == "telemetry" and config.log.telemetry_every:
        every["step"] = config.log.telemetry_every
    since = changes.last_step_of(
        workdir, ("log.every", "log.telemetry_every", "evaluate.every", "train.steps")
    )
    path = workdir / f"{name}.jsonl"
    return row_files.RowFile(path, last_step=first_step, every=every, since=since)


def open_journal(
    config,
    workdir: pathlib.Path,
    first_step: int,
    examples: data.Dataset,
    validates: bool,
    watch: Stopwatch,
    resources: contextlib.ExitStack,
) -> Journal:
    """What is written down of the run; `resources` closes it."""

    def rows(name):
        return open_rows(config, workdir, name, first_step=first_step, validates=validates)

    tensorboard = None
    if config.log.tensorboard:
        with naming.with_advice("Or set log.tensorboard=False."):
            tensorboard = trackers.TensorBoard(workdir / "tensorboard", last_step=first_step)
    journal = Journal(
        rows=rows("metrics"),
        timing=rows("timing"),
        telemetry=rows("telemetry") if config.log.telemetry_every else None,
        tensorboard=tensorboard,
        progress=Progress(
            steps=config.train.steps,
            first_step=first_step,
            batch=config.batch.classes * config.batch.per_class,
        ),
        collapsed_loss=objective.collapsed_loss(config),
        stopwatch=watch,
        advice=lambda: collapse.advice(config, examples),
    )
    resources.callback(journal.close)
    return journal


def way_back(checkpoints: Checkpoints, workdir: pathlib.Path) -> str:
    """What to do once a run has gone wrong."""
    checkpoints.wait()
    steps = checkpoints.steps
    good = f"step {steps[-1]} in {workdir / 'checkpoints'}" if steps else "none was saved yet"
    return (
        f"The last good checkpoint: {good}. Try a smaller optimizer.learning_rate or"
        " optimizer.clip_norm=1.0 in a new --workdir."
    )


def make_take_step(
    config,
    step,
    examples: data.Dataset,
    first_step: int,
    resources: contextlib.ExitStack,
    mining: OfflineMining | None,
):
    """A function from one state to the next, over all devices, that finds its own batch.

    `resources` ends the processes that load a stream; `mining` makes tables to draw batches from.
    """
    on_device = config.dataset.placement == "device"
    batches = (_OnDevice if on_device else _Streamed)(config, step, examples)
    resources.callback(batches.close)
    index = pk_batches.class_index(config, examples)
    if mining is None:
        batches.draw_from(index, first_step, config.train.steps)
        return batches.take_step
    every, at = config.offline.every or config.train.steps, first_step
    near = mining.at_start(at)
    index = index if near is None else index.beside(near)
    if not mining.is_due(at):
        batches.draw_from(index, at, at - at % every + every)

    def take_step(state):
        nonlocal at
        if mining.is_due(at):
            batches.draw_from(index.beside(mining.mine(state)), at, at + every)
        at += 1
        return batches.take_step(state)

    return take_step


class _OnDevice:
    """Batches drawn inside the compiled step from data that live on every device."""

    def __init__(self, config, step, examples):
        self._step = data_parallel.resident(
            data_parallel.drawing(step, pk_batches.draw(config), devices=jax.device_count())
        )
        self._examples = data_parallel.replicate(batch_loading.resident(examples))
        self._devices = collectives.own_devices()
        self._index = None

    def draw_from(self, index, first_step, last_step):
        del first_step, last_step
        self._index = data_parallel.replicate(jax.tree.map(jnp.asarray, index))

    def take_step(self, state):
        return self._step(state, (self._index, *self._examples), self._devices)

    def close(self):
        pass


class _Streamed:
    """Batches that worker processes load from disk."""

    def __init__(self, config, step, examples):
        self._config, self._examples = config, examples
        self._step = data_parallel.streamed(step)
        self._devices = jax.local_device_count()
        self._batches = None

    def draw_from(self, index, first_step, last_step):
        self.close()
        self._batches = batch_loading.stream(
            self._examples,
            pk_batches.draw_on_host(self._config, index),
            first_step=first_step,
            steps=min(last_step, self._config.train.steps),
            workers=self._config.dataset.workers,
            shard=jax.process_index(),
            shards=jax.process_count(),
        )

    def take_step(self, state):
        try:
            inputs, labels, places = next(self._batches)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise errors.LostError(
                "a process that loads batches has ended, as one does that the system kills for"
                " want of memory. If it happens again, set dataset.workers lower."
            ) from error
        shape = (self._devices, len(labels) // self._devices)
        inputs = inputs.reshape(*shape, *inputs.shape[1:])
        return self._step(state, inputs, labels.reshape(shape), places.reshape(shape))

    def close(self):
        if self._batches is not None:
            self._batches.close()
            self._batches = None
            gc.collect()  # the last batch, in shared memory, which lives in a cycle of references


def validate(embed, state, validation: data.Dataset) -> dict[str, float]:
    """MAP@R and P@1 of the validation split; empty where there is none, or it can tell nothing.

    Of pairs both are Recall at 1 between the two arrays, the mean of both ways.
    """
    if not datasets.can_score(validation):
        return {}
    scores = scoring.retrieval(validation, embed(state.variables, validation.inputs))
    return {name: scores[name] for name in ("map_at_r", "precision_at_1")}


def remember_noise(workdir: pathlib.Path, config, everything: data.Dataset, wrong) -> None:
    """Writes which labels are wrong on purpose, and what training is given."""
    train = everything.only("train")
    files.write_arrays(
        workdir / "label_noise.npz",
        positions=np.flatnonzero(everything.split == "train"),
        true=train.labels,
        given=datasets.given_labels(config, train),
        wrong=wrong,
    )


def describe(config, everything, examples, state, first_step) -> None:
    """Prints what is about to be trained, on what."""
    for note in everything.notes:
        print(naming.in_fields(note, "dataset"))
    weights = sum(x.size for x in jax.tree.leaves(state.params))
    sizes = ", ".join(f"{(everything.split == split).sum():,} {split}" for split in data.SPLITS)
    noise = config.dataset.label_noise
    noisy = f"; {noise:.0%} of the training labels are wrong on purpose" if noise else ""
    c = config.loss
    rule = f"mining  {config.mining.miner}, {c.penalty}, margin {c.margin}"
    if c.name != "triplet":
        rule = f"loss    {c.name}" + (f", proxies as {c.proxies}" if c.proxies else "")
    shapes = everything.pair_shapes or (everything.input_shape,)
    inputs = " and ".join("x".join(map(str, shape)) for shape in shapes)
    towers = [config.model.name, config.model.second or config.model.name][: config.model.towers]
    print(
        f"data    {config.dataset.name}: {sizes}; {len(np.unique(examples.labels)):,} training"
        f" classes, input {inputs}{noisy}\n"
        f"model   {' and '.join(towers)}, {weights:,} weights, {config.model.dim}-d embedding\n"
        f"{rule},"
        f" batches of {config.batch.classes} classes x {config.batch.per_class}\n"
        f"device  {evaluating.devices()}"
    )
    if first_step:
        print(f"continuing after step {first_step} of {config.train.steps}")
