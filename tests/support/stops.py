"""Stops a run in this process after a step, as a signal would."""

import os
import signal

import numpy as np

from experiments.run import training


def stop_after(monkeypatch, step):
    """Asks every run that begins from now on to stop after this step."""
    train = training.loop.train

    def stopped(state, take_step, **rest):
        def take(state):
            after, metrics = take_step(state)
            if int(after.step) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return after, metrics

        return train(state, take, **rest)

    monkeypatch.setattr(training.loop, "train", stopped)


def assert_same_end(stopped, left_alone):
    """A run that was stopped has the bits of one that was not.

    It has more checkpoints: those of the stops.
    """

    def end(workdir):
        last = max(int(path.name) for path in workdir.glob("checkpoints/[0-9]*"))
        state = (workdir / f"checkpoints/{last}/digest/metadata").read_text()
        return last, state, (workdir / "metrics.jsonl").read_bytes(), embeddings(workdir).tobytes()

    assert end(stopped) == end(left_alone)


def embeddings(workdir):
    """Those that evaluation wrote."""
    with np.load(workdir / "embeddings.npz") as saved:
        return saved["embeddings"]
