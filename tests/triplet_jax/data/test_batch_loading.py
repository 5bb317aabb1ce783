"""What workers of a run begin with, and how they end; test_sampling.py has their batches."""

import multiprocessing
import os
import pathlib
import pickle
import queue
import types

import numpy as np

from triplet_jax import data
from triplet_jax.data import batch_loading


def draw(step):
    return np.array([step, step + 1, 0, 5])


def test_the_source_of_workers_is_in_a_file_that_goes_with_it():
    x, labels = np.arange(6, dtype=np.float32)[:, None], np.arange(6, dtype=np.int32)
    dataset = data.Dataset(x, labels, np.full(6, "train"), tuple("abcdef"))
    source = batch_loading._InFile(batch_loading._Batches(dataset, draw, 4, 0, 2))
    pickled, path = pickle.dumps(source), pathlib.Path(source.path)
    for found in (source, pickle.loads(pickled)):
        assert len(found) == 4
        inputs, own_labels, positions = found[2]  # the first half of the batch of this step
        assert (inputs.tolist(), own_labels.tolist(), positions.tolist()) == (
            [[2], [3]],
            [2, 3],
            [2, 3],
        )
    assert len(pickled) < 200  # whatever the data set holds
    assert path.exists()
    del source, found
    assert not path.exists()


def test_a_worker_removes_its_file_and_ends_where_its_run_has_ended(tmp_path, monkeypatch):
    run_has_ended, run = os.pipe()
    left = queue.Queue()
    parent = types.SimpleNamespace(sentinel=run_has_ended)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(os, "_exit", left.put)
    path = tmp_path / "source"
    path.touch()
    batch_loading._start_worker(str(path), 0, 1)
    assert path.exists() and left.empty()
    os.close(run)
    assert left.get(timeout=20) == 1
    assert not path.exists()
    os.close(run_has_ended)
