"""Runs the programs under `experiments` as a person would, in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys
import time

from triplet_jax import logging

ROOT = pathlib.Path(__file__).parent.parent

# Small and quick, but with every part of a run.
TINY = {
    "train.steps": 240,
    "evaluate.every": 60,
    "evaluate.episodes": 20,
    "log.every": 10,
    "model.width": 24,
    "model.dim": 16,
    "batch.per_class": 8,
}


def command(program, *flags, config="configs/digits.py:semi_hard", **fields):
    """The command line of a program; `fields` are config fields, with __ for the dot."""
    overrides = TINY | {name.replace("__", "."): value for name, value in fields.items()}
    line = [sys.executable, "-m", f"experiments.{program}", *flags]
    if program == "train":
        line += [f"--config={config}"]
        line += [f"--config.{name}={value}" for name, value in overrides.items()]
    return line


def environment(devices=1):
    """One device unless a test says otherwise, and no colour."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "XLA_FLAGS": flags,
        "COLUMNS": "120",
        "PYTHONWARNINGS": "error::UserWarning",
    }


def run(program, *flags, devices=1, config="configs/digits.py:semi_hard", **fields):
    """Runs a program to its end."""
    return subprocess.run(
        command(program, *flags, config=config, **fields),
        cwd=ROOT,
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=300,
    )


def start(program, *flags, **fields):
    """Starts a program and leaves it running."""
    return subprocess.Popen(
        command(program, *flags, **fields),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition, process, seconds=120):
    """Waits for a moment in a running program."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"it ended too early:\n{process.stdout.read()}")
        if time.monotonic() > end:
            process.kill()
            raise AssertionError(f"it took too long:\n{process.stdout.read()}")
        time.sleep(0.002)


def last_step(workdir):
    """Of the metrics written so far."""
    rows = logging.read_rows(workdir / "metrics.jsonl")
    return rows[-1]["step"] if rows else 0


def outcome(workdir):
    """What must be the same for a run that was disturbed: metrics, parameters, result."""
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    digests = [
        json.loads((workdir / "checkpoints" / str(s) / "digest" / "metadata").read_text())
        for s in steps
    ]
    result = json.loads((workdir / "result.json").read_text())
    scores = {key: result[key] for key in ("embedding", "raw_pixels", "protocol")}
    rows = [(workdir / name).read_bytes() for name in ("metrics.jsonl", "telemetry.jsonl")]
    return rows, steps, digests, scores
