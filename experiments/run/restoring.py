"""Opens a trained run: its encoder, its checkpoints, and the state that it is judged by."""

import dataclasses
import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from experiments.config import components, encoders, stepping
from experiments.run import config_json
from triplet_jax.devices import processes
from triplet_jax.models import inference
from triplet_jax.runs.checkpoint import Checkpoints
from triplet_jax.training import data_parallel, train_state


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run with checkpoints, ready to embed.

    Args:
      workdir: its folder.
      config: its config.
      encoder: the model.
      embed: `(variables, inputs) -> embeddings` by `judged_encoder`.
      like: the shapes and types of a state in the checkpoints.
      checkpoints: its checkpoints; None in any process but the first.
    """

    workdir: pathlib.Path
    config: ml_collections.FrozenConfigDict
    encoder: nn.Module
    embed: Callable
    like: train_state.TrainState
    checkpoints: Checkpoints | None

    @property
    def judged_encoder(self) -> nn.Module:
        """The model, with the copies of `evaluate.augment`, if there are any."""
        return encoders.judged(self.config, self.encoder)

    def judged(self) -> tuple[int, train_state.TrainState]:
        """Reads the checkpoint that the run is judged by, as `evaluate.checkpoint` says.

        Returns:
          Its step and its state.

        Raises:
          InputError: there is no checkpoint, or it cannot be read.
        """

        def read():
            if self.config.evaluate.checkpoint == "best":
                return self.checkpoints.restore_best(self.like)
            return self.checkpoints.restore_last(self.like)

        step, state = processes.first_reads(read, like=(np.int64(0), self.like))
        return int(step), state

    def embed_with(self, state: train_state.TrainState, inputs) -> np.ndarray:
        """Embeds inputs with the weights of a state, over all devices."""
        return self.embed(data_parallel.replicate(state.variables), inputs)


def load(
    workdir: pathlib.Path,
    config: ml_collections.FrozenConfigDict,
    input_shape: tuple[int, ...],
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> TrainedRun:
    """Opens a trained run; its checkpoints are only read.

    Args:
      workdir: its folder.
      config: its config, from `config_json.read`.
      input_shape: of one input.
      pair_shapes: of either side of a pair; None where examples are no pairs.

    Raises:
      InputError: the checkpoints belong to another config, or hold other arrays.
    """
    components.warn_of_changes(workdir, config)
    encoder = encoders.encoder(config, input_shape, pair_shapes)
    judged = encoders.judged(config, encoder)
    like = jax.eval_shape(lambda: stepping.initial_state(config, encoder, input_shape))

    def opened():
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        # Before the state is made: that of an edited config may not fit into memory.
        config_json.check_checkpoints(config, checkpoints)
        checkpoints.check_arrays(like)
        return checkpoints

    checkpoints = processes.first_does(opened)
    return TrainedRun(
        workdir=workdir,
        config=config,
        encoder=encoder,
        embed=inference.make_embed(judged, batch=config.evaluate.batch),
        like=like,
        checkpoints=checkpoints,
    )
