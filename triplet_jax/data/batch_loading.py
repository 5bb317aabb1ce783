"""Batches that worker processes load ahead of the step that needs them."""

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
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Int

from triplet_jax.data import images
from triplet_jax.data.dataset import Dataset
from triplet_jax.devices import signals


class _Batches(grain.sources.RandomAccessDataSource):
    """One host's part of every batch, by step."""

    def __init__(self, dataset: Dataset, draw, steps, shard, shards):
        self._dataset, self._draw, self._steps = dataset, draw, steps
        self._shard, self._shards = shard, shards

    def __len__(self):
        return self._steps

    def __getitem__(self, step):
        drawn = self._draw(step)
        rows = len(drawn) // self._shards
        picked = drawn[self._shard * rows : (self._shard + 1) * rows]
        inputs = np.stack([self._dataset.inputs[i] for i in picked])
        return inputs, self._dataset.labels[picked], picked


class _InFile(grain.sources.RandomAccessDataSource):
    """A source that other processes read from a file, for as long as it is kept here.

    All that a worker is given to start with goes through a pipe, and who fills a pipe waits for
    ever where the worker is killed before it has read it. So it is given the name of a file.
    """

    def __init__(self, source):
        self._source = source
        handle, self.path = tempfile.mkstemp(prefix="triplet_jax-batches-")
        weakref.finalize(self, pathlib.Path(self.path).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            pickle.dump(source, file)

    def __len__(self):
        return len(self._source)

    def __getitem__(self, step):
        return self._source[step]

    def __reduce__(self):
        return _read_source, (self.path,)


def _read_source(path):
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
    """Loads one batch after the other in worker processes, ahead of their use.

    Args:
      dataset: examples that are decoded when they are read.
      draw: the positions of a step's batch in the data set, as `pk_batch` gives them.
      first_step: the step to start at.
      steps: the step to stop before.
      workers: the number of processes; 0 loads in threads of this one.
      shard: which host this is.
      shards: how many hosts there are; each loads an equal part of every batch.

    Returns:
      An iterator over the inputs, the labels and the positions of this host's part, in the
      order of the steps. Its `close()` ends the workers.
    """
    source = _Batches(dataset, draw, steps, shard, shards)
    if workers > 0:
        source = _InFile(source)
    batches = grain.MapDataset.source(source)[first_step:].to_iter_dataset(
        grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    )
    if workers > 0:
        if not flags.FLAGS.is_parsed():  # grain reads flags, which a notebook does not parse
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers),
            worker_init_fn=functools.partial(_start_worker, source.path),
        )
    iterator = iter(batches)
    with signals.held():
        iterator.get_state()  # makes the workers, which start_prefetch starts
        iterator.start_prefetch()
    return iterator


def _start_worker(source: str, worker: int, workers: int) -> None:
    """Ties the lives of a worker and of the file of its source to that of the run's own process."""

    def leave_with_the_run():
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        pathlib.Path(source).unlink(missing_ok=True)
        os._exit(1)

    # A run that is killed cannot end its workers; they would wait for it for ever.
    threading.Thread(target=leave_with_the_run, daemon=True).start()


def resident(dataset: Dataset) -> tuple[Array, Array]:
    """What a compiled step takes its batches from: inputs, decoded, and labels."""
    return jnp.asarray(images.load(dataset.inputs)), jnp.asarray(dataset.labels)
