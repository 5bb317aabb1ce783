"""The encoder and the state that a run is judged by, from its checkpoints."""

import pathlib

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from experiments.config import components, encoders, stepping
from experiments.run import record
from triplet_jax.devices import processes
from triplet_jax.runs.checkpoint import Checkpoints
from triplet_jax.training import train_state


def load_run(
    config: ml_collections.FrozenConfigDict,
    workdir: pathlib.Path,
    input_shape: tuple[int, ...],
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> tuple[nn.Module, train_state.TrainState, Checkpoints]:
    """The encoder of a run, a state of its structure, and its checkpoints.

    Raises:
      InputError: the checkpoints belong to another config, or hold other arrays.
    """
    components.warn_of_changes(workdir, config)
    encoder = encoders.encoder(config, input_shape, pair_shapes)
    like = jax.eval_shape(lambda: stepping.initial_state(config, encoder, input_shape))

    def opened():
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        # Before the state is made, which of an edited config may not fit into memory.
        record.check_checkpoints(config, checkpoints)
        checkpoints.check_arrays(like)
        return checkpoints

    checkpoints = processes.first_does(opened)
    return encoder, stepping.initial_state(config, encoder, input_shape), checkpoints


def restore(
    config: ml_collections.FrozenConfigDict, checkpoints: Checkpoints, state: train_state.TrainState
) -> tuple[int, train_state.TrainState]:
    """The step and the state that a run is judged by, as `evaluate.checkpoint` says."""

    def read():
        if config.evaluate.checkpoint == "best":
            return checkpoints.restore_best(state)
        return checkpoints.restore_last(state)

    step, judged = processes.first_reads(read, like=(np.int64(0), state))
    return int(step), judged
