"""Trains one run and evaluates it, for `experiments.train` and for sweeps."""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping

import jax
import ml_collections
import numpy as np

from experiments.config import (
    check,
    completion,
    components,
    datasets,
    encoders,
    naming,
    pk_batches,
    stepping,
)
from experiments.run import (
    batches,
    changes,
    config_json,
    data_json,
    early_stopping,
    evaluating,
    frozen_features,
    journals,
    pretrained,
    restoring,
    tracking,
)
from experiments.run.offline_mining import OfflineMining
from experiments.run.setup import Setup
from triplet_jax import data
from triplet_jax.devices import processes, signals
from triplet_jax.runs import health
from triplet_jax.runs.checkpoint import Checkpoints, whole_steps
from triplet_jax.runs.stopwatch import Stopwatch
from triplet_jax.runs.trackers.background import Trackers
from triplet_jax.training import data_parallel, loop, train_state
from triplet_jax.training.patience import Patience

GoesOn = Callable[[int, Mapping[str, float]], bool]
"""Asked after each validation but the last, `(step, scores)`, whether the run is to go on."""


def train(
    config: ml_collections.FrozenConfigDict, workdir: pathlib.Path, goes_on: GoesOn | None = None
) -> None:
    """Trains from the last checkpoint, or from the start, and evaluates the best one.

    Args:
      config: with every field of `config.fields`.
      workdir: of the run; see the README for what is in it.
      goes_on: where it answers no, the run saves, and ends without an evaluation; for a run of one
        process.
    """
    config = completion.completed(config)
    check.check(config)
    started = time.perf_counter()
    is_new = not _holds_checkpoints(workdir)
    if is_new:
        pretrained.find(config)
    decoded = not encoders.keeps_features(config)
    run = Setup(config, workdir, datasets.dataset(config, decoded=decoded))
    run.check()
    if is_new:
        run.weights  # noqa: B018, refuses weights that do not fit before anything is written
    note = datasets.note_on_validation(config, run.everything)
    if note:
        print(naming.in_fields(note, "dataset"))
    mining = None
    if pk_batches.mines_offline(config):
        mining = OfflineMining(config, workdir, run.examples)
    processes.first_does(lambda: run.remember(data_json.content(run.everything)))
    checkpoints, state = _state_to_go_on_from(run)
    processes.first_does(lambda: _note_weights(run, state))
    run = frozen_features.on_features(run, state.variables)
    _announce(run, state)
    watch = processes.first_does(lambda: Stopwatch(workdir / "seconds.json", started=started))
    with contextlib.ExitStack() as resources:
        tracked = tracking.tracked(config, workdir, int(state.step))
        trackers = processes.first_does(lambda: resources.enter_context(tracked)) or Trackers()
        _train_and_evaluate(run, state, checkpoints, mining, watch, trackers, started, goes_on)


def _train_and_evaluate(
    run: Setup,
    state: train_state.TrainState,
    checkpoints: Checkpoints | None,
    mining: OfflineMining | None,
    watch: Stopwatch | None,
    trackers: Trackers,
    started: float,
    goes_on: GoesOn | None,
) -> None:
    """Trains to the end and evaluates, unless somebody asks to stop."""
    config, workdir = run.config, run.workdir
    patience = early_stopping.at(workdir, config, int(state.step))
    state, stopped_by = _train(run, state, checkpoints, mining, watch, patience, trackers, goes_on)
    if stopped_by:
        print(
            f"stopped by {stopped_by} and saved at step {int(state.step)} of"
            f" {config.train.steps}. Run the same command again to go on."
        )
        trackers.end("stopped")
        return
    if patience.is_over:
        print(
            f"stopped early at step {int(state.step)} of {config.train.steps}: the validation MAP@R"
            f" has not risen above {patience.best:.4f} in {patience.since} evaluations."
        )
    wall = {"wall_seconds_of_this_process": time.perf_counter() - started}
    like = run.state_shapes()
    embed, inputs = run.judging
    trained = restoring.TrainedRun(workdir, config, run.encoder, embed, like, checkpoints)
    result = evaluating.evaluate(trained, run.everything, extra=wall, inputs=inputs)
    processes.first_does(lambda: tracking.finish(trackers, workdir, result))
    processes.first_does(lambda: watch.note(now=True))


def _state_to_go_on_from(run: Setup) -> tuple[Checkpoints | None, train_state.TrainState]:
    """The run's checkpoints, which only the first process has, and the latest state.

    Raises:
      InputError: the checkpoints belong to another config, or hold arrays of other shapes.
    """

    def opened():
        config = json.loads(run.config.to_json())
        checkpoints = Checkpoints(run.workdir / "checkpoints", config=config)
        config_json.check_checkpoints(run.config, checkpoints)
        checkpoints.check_arrays(run.state_shapes())
        return checkpoints

    # Before the state is made: that of an edited config may not fit into memory.
    checkpoints = processes.first_does(opened)
    begun = processes.first_reads(lambda: np.bool_(bool(checkpoints.steps)), like=np.bool_(0))
    if begun:
        like = run.state_shapes()
        state = processes.first_reads(lambda: checkpoints.restore_latest(like), like=like)
    else:
        state = run.initial_state()
    return checkpoints, data_parallel.replicate(state)


def _holds_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether the run may go on from a checkpoint, so that it needs no weights from elsewhere."""

    def found():
        return np.bool_(bool(whole_steps(workdir / "checkpoints")))

    return bool(processes.first_reads(found, like=np.bool_(0)))


def _note_weights(run: Setup, state: train_state.TrainState) -> None:
    """Writes down, and prints, the weights that the run begins with.

    Raises:
      InputError: the run has no checkpoint, and began with other weights.
    """
    if state.step:
        note = pretrained.note(run.workdir, run.config)
        print(note, end="\n" * bool(note))
    elif run.weights.record is not None:
        pretrained.remember(run.workdir, run.weights.record)
        print(f"weights {pretrained.describe(run.weights.record)}")


def _announce(run: Setup, state: train_state.TrainState) -> None:
    """Prints what is about to be trained, and keeps the record of a changed config true."""
    first_step = int(state.step)
    changed = processes.first_does(lambda: config_json.update(run.workdir, run.config, first_step))
    if changed:
        path = run.workdir / changes.FILE
        print(f"going on with other values of {', '.join(changed)}: see {path}")
    _describe(run, state)
    if not first_step:
        alone = frozen_features.scores(run, state.variables)
        processes.first_does(lambda: frozen_features.remember(run.workdir, alone))
        if alone:
            print(frozen_features.describe(alone))
    for complaint in components.known_here_alone(run.config):
        print(f"warning: {complaint}")


def _train(
    run: Setup,
    state: train_state.TrainState,
    checkpoints: Checkpoints | None,
    mining: OfflineMining | None,
    watch: Stopwatch | None,
    patience: Patience,
    trackers: Trackers,
    goes_on: GoesOn | None,
) -> tuple[train_state.TrainState, str | None]:
    """Trains to the last step, or until somebody asks to stop.

    Returns:
      The last state, and who asked to stop; None where nobody did.
    """
    first_step, stop = int(state.step), signals.Stop()
    is_over = patience.is_over or first_step >= run.config.train.steps

    def score(state):
        scores, step = run.validate(state), int(state.step)
        if goes_on and step < run.config.train.steps and not goes_on(step, scores):
            stop.ask("the study that it belongs to")
        return scores

    with stop.listening(), contextlib.ExitStack() as resources:
        try:
            state = loop.train(
                state,
                batches.step_with_batches(run, first_step, mining, resources),
                schedule=stepping.schedule(run.config),
                score=score,
                score_name="map_at_r",
                save=lambda *saved: processes.first_does(lambda: checkpoints.save(*saved)),
                journal=processes.first_does(
                    lambda: journals.open_journal(
                        run, first_step, watch, trackers, resources, is_over=is_over
                    )
                ),
                stop=stop,
                patience=patience,
            )
        except health.NotFiniteError as error:
            advice = processes.first_does(lambda: _way_back(checkpoints, run.workdir)) or ""
            raise health.NotFiniteError(f"{error} {advice}") from error
        processes.first_does(lambda: checkpoints.wait())
        processes.first_does(lambda: watch.note(now=True))
        step = int(state.step)
        ended = step == run.config.train.steps or patience.is_over
        if ended and not stop.before(step):
            return state, None
    return state, stop.asked_by


def _way_back(checkpoints: Checkpoints, workdir: pathlib.Path) -> str:
    """What to do once a run has gone wrong."""
    checkpoints.wait()
    steps = checkpoints.steps
    good = f"step {steps[-1]} in {workdir / 'checkpoints'}" if steps else "none was saved yet"
    return (
        f"The last good checkpoint: {good}. Try a smaller optimizer.learning_rate or"
        " optimizer.clip_norm=1.0 in a new --workdir."
    )


def _describe(run: Setup, state: train_state.TrainState) -> None:
    """Prints what is about to be trained, on what."""
    config, everything = run.config, run.everything
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
        f"data    {config.dataset.name}: {sizes}; {len(np.unique(run.examples.labels)):,} training"
        f" classes, input {inputs}{noisy}\n"
        f"model   {' and '.join(towers)}, {weights:,} weights, {config.model.dim}-d embedding\n"
        f"{rule},"
        f" batches of {config.batch.classes} classes x {config.batch.per_class}\n"
        f"device  {evaluating.devices()}"
    )
    if state.step:
        print(f"continuing after step {int(state.step)} of {config.train.steps}")
