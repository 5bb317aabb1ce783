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
    "model.name": "mlp",
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
    own = {"XLA_FLAGS": flags, "COLUMNS": "120", "PYTHONWARNINGS": WARNINGS}
    return os.environ | own | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


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
    process = _into_files(_module(program), arguments(program, *flags, **fields), devices, folder)
    return process.completed()


def run_code(code, *given, folder=ROOT):
    """Runs what `python -c` would, in the same way."""
    return _into_files(("-c", code), [str(one) for one in given], 1, folder).completed()


def start(program, *flags, **fields):
    """Starts a program and leaves it running; what it says on both streams is one text."""
    return _into_pipe(_module(program), arguments(program, *flags, **fields))


def start_code(code, *given):
    """Starts what `python -c` would, and leaves it running; each stream goes into a file."""
    return _into_files(("-c", code), [str(one) for one in given], 1)


def start_together(devices, arguments, program="train", code=None):
    """Starts the processes of one program, or of other code, each with its number of devices, and
    leaves them."""
    address = f"127.0.0.1:{free_port()}"
    started = []
    for number, own_devices in enumerate(devices):
        own = [*arguments]
        if len(devices) > 1:
            own += [f"--coordinator={address}", f"--processes={len(devices)}"]
            own += [f"--process={number}"]
        started.append(_into_files(("-c", code) if code else _module(program), own, own_devices))
    return started


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _module(program):
    return "-m", f"experiments.{program}"


def _into_files(what, given, devices, folder=ROOT):
    files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115, they outlive this
    return Program(what, given, devices, files, folder)


def _into_pipe(what, given):
    read, write = os.pipe()
    with open(write, "w") as pipe:
        return Program(what, given, 1, (pipe, pipe), ROOT, pipe=read)


class Program:
    """A process that `tests.support.forks` started, with the methods of a `subprocess.Popen`.

    What it says goes into two files, or into one pipe, which is to be read while it runs.
    """

    def __init__(self, what, given, devices, files, folder, pipe=None):
        self.name, self.returncode = what[1], None
        self.said, self._files = pipe, files
        self.pid, self._ending = _server().fork(what, given, environment(devices), files, folder)
        _running.append(self)

    def poll(self, seconds=0):
        """Waits so long for its end; its status, or None where it goes on."""
        if self.returncode is None and _readable(self._ending, seconds):
            self.returncode = int(self._ending.recv(32))
            self._ending.close()
            _running.remove(self)
        return self.returncode

    def wait(self, seconds=TIMEOUT):
        if self.poll(seconds) is None:
            self.kill()
            self.poll(TIMEOUT)
            raise AssertionError(f"{self.name} was not through after {seconds} s")
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=TIMEOUT):
        """What it said, once it and all that it started have let go of its streams."""
        if self.said is None:
            self.wait(timeout)
            said = [file.seek(0) or file.read() for file in self._files]
            self.close()
            return tuple(said)
        said, end = [], time.monotonic() + timeout
        while not said or said[-1]:
            if not _readable(self.said, end - time.monotonic()):
                self.kill()
                raise AssertionError(f"{self.name} or its workers go on after {timeout} s")
            said.append(os.read(self.said, 1 << 16))
        self.wait(timeout)
        self.close()
        return b"".join(said).decode(), None

    def completed(self):
        """As `subprocess.run` returns it."""
        said = self.communicate()
        return subprocess.CompletedProcess(self.name, self.returncode, *said)

    def close(self):
        if self.said is not None:
            os.close(self.said)
            self.said = -1
        for file in self._files:
            file.close()


_running: list[Program] = []


def end_all():
    """Kills what a test that failed has left."""
    for left in [*_running]:
        left.kill()
        left.wait()
        left.close()


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

    With another status it ended for another reason, and says so in the same form.
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
