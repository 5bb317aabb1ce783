"""Offline mining: a run embeds its training set from time to time, and keeps what is near."""

import pathlib

import numpy as np
from jaxtyping import Float

from experiments.config import naming
from triplet_jax import data, errors
from triplet_jax.curricula import offline_negatives
from triplet_jax.devices import processes


class OfflineMining:
    """Tables of the nearest examples of other classes, each a file in `offline/` of the run.

    Args:
      config: of the run.
      workdir: of the run.
      examples: that batches are drawn from, by which a table knows them again.

    Raises:
      InputError: `offline.table` belongs to other examples or another model, or there are fewer
        examples than `offline.neighbours`.
    """

    def __init__(self, config, workdir: pathlib.Path, examples: data.Dataset):
        self._every, self._neighbours = config.offline.every, config.offline.neighbours
        self._folder, self._examples = workdir / "offline", examples
        self._of = {"examples": examples, "model": config.model.to_dict()}
        if self._neighbours > len(examples):
            raise errors.InputError(
                f"offline.neighbours={self._neighbours} must be at most {len(examples)}, the number"
                " of training examples."
            )
        self._like = np.zeros((len(examples), self._neighbours), np.int32)
        self._first = None
        if config.offline.table:
            self._first = processes.first_reads(
                lambda: self._read_given(config.offline.table), like=self._like
            )

    def at_start(self, step: int) -> np.ndarray | None:
        """The table that a run goes on with after this step; None where there is none.

        Raises:
          InputError: the file of the table is missing or damaged.
        """
        made_at = step // self._every * self._every if self._every else 0
        if not made_at:
            return self._first
        if made_at == step:  # the next step makes one first
            return None
        return processes.first_reads(lambda: self._read_own(made_at, step), like=self._like)

    def is_due(self, step: int) -> bool:
        """Whether the training set is embedded before this step."""
        return bool(self._every and step and step % self._every == 0)

    def mine(self, step: int, embeddings: Float[np.ndarray, "examples dim"]) -> np.ndarray:
        """Saves and returns the table of near examples, by their embeddings after this step."""
        near = offline_negatives.nearest_of_other_classes(
            embeddings, self._examples.labels, neighbours=self._neighbours
        )
        path = self._path(step)
        processes.first_does(lambda: offline_negatives.write(path, near, **self._of))
        return processes.from_first(near)

    def _path(self, step):
        return self._folder / f"step_{step:08d}.npz"

    @naming.as_fields("offline", path="offline.table")
    @naming.with_advice("Or leave offline.table empty.")
    def _read_given(self, path):
        return self._read(path)

    def _read(self, path):
        return offline_negatives.read(path, neighbours=self._neighbours, **self._of)

    def _read_own(self, made_at, step):
        path = self._path(made_at)
        try:
            return self._read(str(path))
        except errors.InputError as error:
            raise errors.InputError(
                f"{path} is {'damaged' if path.exists() else 'missing'}, and the run goes on with"
                f" it after step {step}. Put it back as it was; or move the checkpoints after step"
                f" {made_at} elsewhere, and the run goes back and makes it anew."
            ) from error
