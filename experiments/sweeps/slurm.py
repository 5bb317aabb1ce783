"""Carries out the runs of a sweep as jobs of a SLURM cluster, through submitit.

A file keeps the number of each job, and the folder of each run tells how far it has come. So a
sweep that is killed loses nothing: its jobs go on, and the same command finds them again.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from experiments import command
from experiments.run import config_json, lock
from experiments.sweeps import child, runs
from triplet_jax import errors
from triplet_jax.devices import signals
from triplet_jax.runs import files

# A run fails after this many jobs in a row have ended without getting it any further.
TRIES = 3
POLL_SECONDS = 2.0
# The most jobs of an array where the cluster does not tell its limit: SLURM's default.
ARRAY = 1001
# The seconds that --cancel waits for a sweep that watches its jobs: it may be submitting more.
PATIENCE_SECONDS = 60.0


def check() -> None:
    """Refuses the engine where no job can be submitted.

    Raises:
      InputError: submitit or SLURM is missing.
    """
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise errors.InputError(
            "engine='slurm' needs submitit: pip install 'triplet_jax[slurm]', or pip install"
            " submitit"
        ) from error
    try:
        _queue()
    except OSError as error:
        raise errors.InputError(
            f"engine='slurm' needs a SLURM cluster, and squeue cannot be asked ({error}): choose"
            " engine='processes', 'here' or 'vectorised'."
        ) from error


def jobs(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Submits the runs that have no job, and watches until all runs have ended.

    A job that SLURM preempts saves, and goes back into the queue by itself. A run whose job was
    killed gets another one.
    """
    workdir = planned[0].workdir
    book = Book(workdir)
    absent: set[str] = set()
    stop = signals.Stop()
    _leave_file(workdir).unlink(missing_ok=True)  # a --cancel that was killed may have left it
    with stop.listening():
        while stop.signal is None:
            if _leave_file(workdir).exists():
                print("The jobs are being cancelled.")
                return
            waiting = [run for run in planned if not run.has_ended]
            if not waiting:
                return
            alone = book.without_job(waiting)
            # Absent twice: a job may leave the queue before its last file can be seen.
            again = [run for run in alone if run.name in absent or not book.knows(run)]
            absent = {run.name for run in alone}
            book.submit([run for run in again if book.may_try(run)], sweep.slurm)
            show()
            time.sleep(POLL_SECONDS)
    print("The jobs go on. Run the same command again to watch them, or with --cancel to end them.")


def cancel(workdir: pathlib.Path) -> int:
    """Ends all jobs of a sweep.

    A process that watches the jobs leaves first; otherwise it would submit the runs again.

    Returns:
      How many jobs there were.

    Raises:
      InputError: another process works in the folder, and does not leave.
    """
    leave = _leave_file(workdir)
    leave.parent.mkdir(exist_ok=True)
    leave.touch()
    try:
        with lock.claimed(workdir, patience=PATIENCE_SECONDS):
            alive = sorted(set(Book(workdir).numbers()) & _queue())
            if alive:
                subprocess.run(["scancel", *alive], check=True)
    finally:
        leave.unlink(missing_ok=True)
    return len(alive)


def _leave_file(workdir):
    """The file that asks a process that watches the jobs to leave."""
    return workdir / "slurm" / "leave"


class Book:
    """The job of each run of a sweep, kept in `slurm/jobs.json` of the sweep's folder."""

    def __init__(self, workdir: pathlib.Path):
        self._folder = workdir / "slurm"
        self._path = self._folder / "jobs.json"
        self._jobs = _read(self._path) if self._path.exists() else {}

    def numbers(self) -> list[str]:
        """The numbers of all jobs."""
        return [entry["job"] for entry in self._jobs.values()]

    def knows(self, run: runs.Run) -> bool:
        """Whether the run ever had a job."""
        return run.name in self._jobs

    def forget(self, some: Sequence[runs.Run]) -> None:
        """Forgets the jobs of runs that are tried as if for the first time."""
        forgotten = {run.name for run in some} & self._jobs.keys()
        if forgotten:
            self._jobs = {name: job for name, job in self._jobs.items() if name not in forgotten}
            files.write_json(self._path, self._jobs)

    def without_job(self, some: Sequence[runs.Run]) -> list[runs.Run]:
        """The runs with no job in the queue; if SLURM does not answer, those that never had one."""
        try:
            queue = _queue()
        except OSError:
            queue = set(self.numbers())
        return [r for r in some if not self.knows(r) or self._jobs[r.name]["job"] not in queue]

    def may_try(self, run: runs.Run) -> bool:
        """Whether the run may get another job; if not, marks it as failed."""
        entry = self._jobs.get(run.name)
        if entry is None or run.last_step > entry["step"] or entry["tries"] < TRIES:
            return True
        run.fail(
            f"{TRIES} jobs ended without getting beyond step {entry['step']}; the last was"
            f" {entry['job']}, and wrote {self._folder}/{entry['job']}_0_log.err; the run said:"
            f" {child.last_word(run.folder, command.LOST)}"
        )
        return False

    def submit(self, some: Sequence[runs.Run], c) -> None:
        """Submits a job for each run, in one array, or in several where the cluster has a limit.

        Raises:
          InputError: SLURM rejects it.
        """
        if not some:
            return
        from submitit.core.utils import FailedJobError

        for run in some:
            run.folder.mkdir(parents=True, exist_ok=True)
            config_json.remember(run.folder, run.config)
        size = _largest_array()
        arrays = [some[first : first + size] for first in range(0, len(some), size)]
        executor = _executor(self._folder, c, arrays=len(arrays))
        for array in arrays:
            try:
                with executor.batch():
                    submitted = [executor.submit(Job(run.folder)) for run in array]
            except FailedJobError as error:
                raise errors.InputError(
                    f"SLURM does not take the jobs: {str(error).strip()}. Correct slurm.partition"
                    " or whatever else it names, and run the same command again; jobs that it has"
                    " go on."
                ) from error
            self._note(array, [job.job_id for job in submitted])

    def _note(self, some: Sequence[runs.Run], numbers: Sequence[str]) -> None:
        """Writes down which job each run has."""
        for run, number in zip(some, numbers, strict=True):
            before = self._jobs.get(run.name, {"step": -1, "tries": 0})
            at = run.last_step
            tries = 1 if at > before["step"] else before["tries"] + 1
            self._jobs[run.name] = {"job": number, "step": at, "tries": tries}
        files.write_json(self._path, self._jobs)


def _read(path):
    jobs = files.read_json(path)
    for run, entry in jobs.items():
        values = map(entry.get, ("job", "step", "tries")) if isinstance(entry, dict) else ()
        if [type(value) for value in values] != [str, int, int]:
            raise errors.InputError(
                f"{path} is damaged: {run!r} has no job, step and tries. Put it back as it was;"
                " or remove it, end the jobs of the sweep with scancel, and run the same command"
                " again."
            )
    return jobs


def _executor(folder, c, *, arrays):
    import submitit

    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=10_000)
    parameters = {
        "job_name": "triplet_jax",
        "partition": c.partition or None,
        "time": c.minutes,
        "nodes": c.nodes,
        "ntasks_per_node": c.tasks_per_node,
        "cpus_per_task": c.cpus_per_task,
        "gpus_per_node": c.gpus_per_node or None,
        "mem": f"{c.memory_gb}GB" if c.memory_gb else None,
        "array_parallelism": max(1, c.parallel // arrays),
        "signal_delay_s": c.grace_seconds,
        "setup": list(c.setup) or None,
        "additional_parameters": {"requeue": True},
    }
    executor.update_parameters(**{k: v for k, v in parameters.items() if v is not None})
    return executor


def _largest_array() -> int:
    """The most jobs that the cluster takes as one array; 1 where it takes none."""
    asked = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", asked.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else ARRAY


def _queue() -> set[str]:
    """The numbers of this user's jobs that wait or run."""
    asked = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--format=%i %T"],
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        raise OSError(asked.stderr.strip() or "squeue failed")
    lines = (line.split() for line in asked.stdout.splitlines())
    return {job for job, state in lines if state != "COMPLETED"}


class Job:
    """Trains one run; submitit calls it in every task of a job."""

    def __init__(self, folder: pathlib.Path):
        self._folder = str(folder)
        self._process: subprocess.Popen | None = None

    def __call__(self) -> None:
        folder = pathlib.Path(self._folder)
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        # An earlier job may have left processes that still hold the folder. Every task waits for
        # them: a run starts once all its tasks are there, and early ones would not wait for late
        # ones.
        while lock.is_claimed(folder):
            time.sleep(1)
        with (folder / "log.txt").open("a") if is_first else open(os.devnull, "w") as log:
            self._process = child.start(folder, log)
            status = self._process.wait()
        if is_first and status in (command.REFUSED, command.FAILED):
            message = child.last_word(folder, status)
            files.write_text(folder / "error.txt", message + "\n")

    def checkpoint(self):
        """Saves, to go on later; submitit calls it when SLURM is about to take the machine."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)  # no effect if it has ended
            with contextlib.suppress(ChildProcessError):  # it had ended
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Job(pathlib.Path(self._folder)))
