"""Batches that worker processes load ahead of the steps that use them."""

import functools
import multiprocessing.connection
import os
import pathlib
import pickle
import tempfile
import threading
import weakref
from collections.abc import Callable

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from triplet_jax.data.dataset import Dataset
from triplet_jax.devices import signals

Batch = tuple[np.ndarray, Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]
"""Inputs, labels, and positions in the data set."""


class _Batches(grain.sources.RandomAccessDataSource):
    """One host's part of every batch, indexed by the step."""

    def __init__(
        self,
        dataset: Dataset,
        draw: Callable[[int], Int[np.ndarray, "batch"]],
        steps: int,
        shard: int,
        shards: int,
    ):
        # Only what a batch needs: every worker holds a copy of this object.
        self._inputs, self._labels = dataset.inputs, dataset.labels
        self._draw, self._steps = draw, steps
        self._shard, self._shards = shard, shards

    def __len__(self):
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        drawn = self._draw(step)
        rows = len(drawn) // self._shards
        picked = drawn[self._shard * rows : (self._shard + 1) * rows]
        inputs = np.stack([self._inputs[i] for i in picked])
        return inputs, self._labels[picked], picked


class _InFile(grain.sources.RandomAccessDataSource):
    """A source that worker processes read from a file, which is removed with this object.

    A worker gets its first arguments through a pipe. If it is killed before it has read them, a
    writer that has filled the pipe waits for ever. So a worker gets only the name of a file.
    """

    def __init__(self, source: _Batches):
        self._source = source
        handle, self.path = tempfile.mkstemp(prefix="triplet_jax-batches-")
        weakref.finalize(self, pathlib.Path(self.path).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            pickle.dump(source, file)

    def __len__(self):
        return len(self._source)

    def __getitem__(self, step: int) -> Batch:
        return self._source[step]

    def __reduce__(self):
        return _read_source, (self.path,)


def _read_source(path: str) -> _Batches:
    with open(path, "rb") as file:
        return pickle.load(file)


def stream(
    dataset: Dataset,
    draw: Callable[[int], Int[np.ndarray, "batch"]],
    *,
    first_step: int,
    steps: int,
    workers: int,
    shard: int = 0,
    shards: int = 1,
) -> grain.DatasetIterator:
    """Loads the batches of a run in worker processes, ahead of the steps that use them.

    Args:
      dataset: examples that are decoded when they are read.
      draw: gives the positions of a step's batch in the data set, as `sampling.pk_batch` does.
      first_step: the step to start at.
      steps: the step to stop before.
      workers: the number of processes; 0 loads in threads of this process.
      shard: the number of this host.
      shards: the number of hosts; each loads an equal part of every batch.

    Returns:
      An iterator over `(inputs, labels, positions)` of this host's part, in the order of the
      steps. Its `close()` ends the workers.
    """
    source = _Batches(dataset, draw, steps, shard, shards)
    if workers > 0:
        source = _InFile(source)
    batches = grain.MapDataset.source(source)[first_step:].to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    )
    if workers > 0:
        if not flags.FLAGS.is_parsed():  # grain reads flags, and a notebook parses none
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers),
            worker_init_fn=functools.partial(_start_worker, source.path),
        )
    iterator = iter(batches)
    with signals.held():
        iterator.get_state()  # creates the workers that start_prefetch starts
        iterator.start_prefetch()
    return iterator


def _start_worker(source: str, worker: int, workers: int) -> None:
    """Ends a worker, and removes the file of its source, when the run's own process ends."""

    def leave_with_the_run() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        pathlib.Path(source).unlink(missing_ok=True)
        os._exit(1)

    # A run that is killed cannot end its workers, which would wait for it for ever.
    threading.Thread(target=leave_with_the_run, daemon=True).start()
