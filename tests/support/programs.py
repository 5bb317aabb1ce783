"""Runs the programs under `experiments` as a person would, in processes of their own."""

import atexit
import functools
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from tests.support import compiling, forks
from triplet_jax.runs import row_files

ROOT = pathlib.Path(__file__).parents[2]
WARNINGS = "error::UserWarning"
TIMEOUT = 900

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


def arguments(program, *flags, config="configs/digits.py:semi_hard", **fields):
    """The arguments of a program; `fields` are config fields, with __ for the dot."""
    overrides = TINY | {name.replace("__", "."): value for name, value in fields.items()}
    if program != "train":
        return [str(flag) for flag in flags]
    of_config = [f"--config.{name}={value}" for name, value in overrides.items()]
    return [*flags, f"--config={config}", *of_config]


def environment(devices=1, compiled=compiling.QUICKLY):
    """One device unless a test says otherwise, and no colour."""
    flags = f"--xla_force_host_platform_device_count={devices} {compiled}"
    return os.environ | {"XLA_FLAGS": flags, "COLUMNS": "120", "PYTHONWARNINGS": WARNINGS}


def run_alone(program, *flags, devices=1, **fields):
    """Runs a program to its end by the command that a person types."""
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", *arguments(program, *flags, **fields)],
        cwd=ROOT,
        env=environment(devices, compiled=""),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def run(program, *flags, devices=1, folder=ROOT, **fields):
    """Runs a program to its end, without the time of its imports: see `tests.support.forks`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        given = arguments(program, *flags, **fields)
        process = Program(program, given, devices, out, err, folder)
        process.wait(TIMEOUT)
        said = [file.seek(0) or file.read() for file in (out, err)]
    return subprocess.CompletedProcess(process.name, process.returncode, *said)


def start(program, *flags, **fields):
    """Starts a program and leaves it running; what it says on both streams is one text."""
    read, write = os.pipe()
    with open(write, "w") as pipe:
        process = Program(program, arguments(program, *flags, **fields), 1, pipe, pipe)
    process.said = read
    return process


def start_together(devices, arguments, program="train", code=None):
    """Starts the processes of one program, or of other code, each with its number of devices, and
    leaves them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    what = ("-c", code) if code else ("-m", f"experiments.{program}")
    started = []
    for number, own_devices in enumerate(devices):
        own = [*arguments]
        if len(devices) > 1:
            own += [f"--coordinator={address}", f"--processes={len(devices)}"]
            own += [f"--process={number}"]
        started.append(
            subprocess.Popen(
                [sys.executable, *what, *own],
                cwd=ROOT,
                env=environment(own_devices),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


class Program:
    """A process that `tests.support.forks` started, with the methods of a `subprocess.Popen`."""

    def __init__(self, program, arguments, devices, out, err, folder=ROOT):
        self.name, self.returncode = program, None
        self.said = None  # a pipe, where it is to be read while it runs
        self._server = _server()
        for left in _started:  # by a test that failed: this one would end with its status
            left.kill()
            left.wait(TIMEOUT)
        _started[:] = [self]
        surroundings = environment(devices)
        self.pid = self._server.fork(
            f"experiments.{program}", arguments, surroundings, (out, err), folder
        )

    def poll(self):
        if self.returncode is None and _readable(self._server, 0):
            self.returncode = self._server.status()
        return self.returncode

    def wait(self, seconds):
        if self.poll() is None and not _readable(self._server, seconds):
            self.kill()
            self.returncode = self._server.status()  # or the next program would end with it
            raise AssertionError(f"{self.name} was not through after {seconds} s")
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=TIMEOUT):
        """What it said, once it and all that it started have let go of its streams."""
        said, end = [], time.monotonic() + timeout
        while not said or said[-1]:
            if not _readable(self.said, end - time.monotonic()):
                self.kill()
                raise AssertionError(f"{self.name} or its workers go on after {timeout} s")
            said.append(os.read(self.said, 1 << 16))
        os.close(self.said)
        self.wait(timeout)
        return b"".join(said).decode(), None


_started: list[Program] = []  # the last


def _readable(file, seconds):
    return bool(select.select([file], [], [], max(seconds, 0))[0])


@functools.cache
def _server():
    """One for each process of pytest."""
    server = forks.Server(ROOT, environment())
    atexit.register(server.close)
    return server


def refused(done, *words, status=2):
    """Asserts that a program refused its input in one message, with these words in it.

    Or with another status ended for another reason, likewise.
    """
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


def wait_until(condition, process, seconds=600):
    """Waits for a moment in a running program."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"it ended too early:\n{process.communicate()[0]}")
        if time.monotonic() > end:
            process.kill()
            raise AssertionError(f"it took too long:\n{process.communicate()[0]}")
        time.sleep(0.002)


def kill_loaders(process):
    """Kills the processes that load the batches of a run."""
    subprocess.run(["pkill", "-KILL", "-P", str(process.pid), "-f", "spawn_main"], check=True)


def last_step(workdir):
    """Of the metrics written so far."""
    rows = row_files.read_rows(workdir / "metrics.jsonl")
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
