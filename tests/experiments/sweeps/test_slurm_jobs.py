"""Jobs of a sweep on SLURM, without a cluster; see test_slurm.py for one."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import types

import ml_collections
import pytest

from configs import digits
from configs.sweeps import base as sweeps
from experiments.run import lock
from experiments.sweeps import slurm
from tests.support import small_sweeps
from triplet_jax import errors


def write_jobs(folder, jobs):
    (folder / "slurm").mkdir()
    (folder / "slurm" / "jobs.json").write_text(json.dumps(jobs))


def test_without_submitit_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[slurm\]'"):
        slurm.check()


@pytest.fixture
def programs_of_slurm(tmp_path, monkeypatch):
    """Makes programs that stand for those of a cluster, by their names and what they run."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()

    def make(**scripts):
        for name, script in scripts.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    return make


def test_a_cluster_that_cannot_be_asked_is_refused(programs_of_slurm, monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="pip install submitit to run this test")
    programs_of_slurm(squeue="echo the controller is away >&2; exit 1")
    with pytest.raises(errors.InputError, match=r"squeue cannot be asked \(the controller is away"):
        slurm.check()
    programs_of_slurm(squeue="exit 1")
    with pytest.raises(errors.InputError, match=r"\(squeue failed\): choose engine='processes'"):
        slurm.check()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.InputError, match=r"needs a SLURM cluster, .*No such file"):
        slurm.check()


def test_jobs_that_wait_or_run_are_in_the_queue(programs_of_slurm):
    lines = r"7_0 RUNNING\n7_1 PENDING\n6_4 COMPLETED\n7_2 COMPLETING\n"
    programs_of_slurm(squeue=f"test $1 = --me && printf '{lines}'")
    assert slurm._queue() == {"7_0", "7_1", "7_2"}


def test_of_a_cluster_that_does_not_answer_no_job_is_taken_for_lost(tmp_path, monkeypatch):
    def silent():
        raise OSError("Socket timed out")

    known, new = small_sweeps.of_one_arm(tmp_path, 2)
    write_jobs(tmp_path, {known.name: {"job": "7_0", "step": 0, "tries": 1}})
    monkeypatch.setattr(slurm, "_queue", silent)
    assert slurm.Book(tmp_path).without_job([known, new]) == [new]
    monkeypatch.setattr(slurm, "_queue", set)
    assert slurm.Book(tmp_path).without_job([known, new]) == [known, new]


def test_a_launcher_ends_with_its_runs_or_leaves_the_jobs_behind(tmp_path, monkeypatch, capsys):
    looks = []

    def look():
        looks.append(True)
        if len(looks) == 1:
            done.fail("it broke")
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    done, going = small_sweeps.of_one_arm(tmp_path, 2)
    write_jobs(tmp_path, {going.name: {"job": "7_1", "step": 0, "tries": 1}})
    monkeypatch.setattr(slurm, "_queue", lambda: {"7_0", "7_1"})
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(slurm.Book, "submit", lambda *_: None)
    sweep = ml_collections.ConfigDict({"slurm": {}})
    slurm.jobs([done], sweep, look)
    assert (len(looks), capsys.readouterr().out) == (1, "")
    slurm.jobs([done, going], sweep, look)
    assert len(looks) == 2
    assert capsys.readouterr().out.startswith("The jobs go on. Run the same command again")


def test_a_run_that_is_tried_again_is_forgotten_by_the_cluster(tmp_path):
    run = small_sweeps.a_run(tmp_path)
    of_another = {"job": "7_1", "step": 0, "tries": 1}
    jobs = {run.name: {"job": "7_0", "step": 0, "tries": 3}, "another": of_another}
    write_jobs(tmp_path, jobs)
    assert not slurm.Book(tmp_path).may_try(run)
    assert run.state == "failed"
    slurm.Book(tmp_path).forget([run])
    assert slurm.Book(tmp_path).may_try(run)
    assert slurm.Book(tmp_path).numbers() == ["7_1"]


def test_a_launcher_that_looks_on_leaves_when_its_jobs_are_cancelled(tmp_path, monkeypatch):
    run, ended = small_sweeps.a_run(tmp_path), []
    write_jobs(tmp_path, {run.name: {"job": "7_0", "step": 0, "tries": 1}})
    monkeypatch.setattr(slurm, "_queue", lambda: {"7_0"} - set(ended))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(slurm.subprocess, "run", lambda command, **_: ended.extend(command[1:]))
    looks = threading.Event()

    def look_on():
        with lock.claimed(tmp_path):
            slurm.jobs([run], ml_collections.ConfigDict({"slurm": {}}), looks.set)
            assert not ended  # so that it cannot give the run another job

    monkeypatch.setattr(slurm.signals.Stop, "listening", contextlib.nullcontext)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        launcher = pool.submit(look_on)
        assert looks.wait(60)
        assert slurm.cancel(tmp_path) == 1
        launcher.result(60)
    assert ended == ["7_0"]
    assert sorted(path.name for path in (tmp_path / "slurm").iterdir()) == ["jobs.json"]


@pytest.mark.parametrize(
    ("task", "ending", "error"),
    [
        ("0", "exit 2", "the loss is unknown\n"),
        ("0", "exit 1", "the loss is unknown\n"),
        ("0", "exit 3", None),  # it lacks something, and another job may go on
        ("1", "exit 2", None),
    ],
)
def test_the_first_task_of_a_job_writes_why_its_run_failed(
    task, ending, error, tmp_path, monkeypatch
):
    def start(folder, log):
        return subprocess.Popen(
            ["sh", "-c", f"echo error: the loss is unknown; {ending}"], stdout=log
        )

    monkeypatch.setenv("SLURM_PROCID", task)
    monkeypatch.setattr(slurm.child, "start", start)
    slurm.Job(tmp_path)()
    file = tmp_path / "error.txt"
    assert (file.read_text() if file.exists() else None) == error
    assert (tmp_path / "log.txt").exists() == (task == "0")


@pytest.mark.parametrize("task", ["0", "1"])
def test_every_task_of_a_job_waits_for_what_an_earlier_one_left(task, tmp_path, monkeypatch):
    holder, started_while_held = contextlib.ExitStack(), []
    holder.enter_context(lock.claimed(tmp_path))

    def start(folder, log):
        started_while_held.append(lock.is_claimed(folder))
        return subprocess.Popen(["true"])

    monkeypatch.setenv("SLURM_PROCID", task)
    monkeypatch.setattr(slurm.child, "start", start)
    monkeypatch.setattr(slurm.time, "sleep", lambda _: holder.close())
    with holder:
        slurm.Job(tmp_path)()
    assert started_while_held == [False]


def test_a_job_is_preempted_at_any_moment(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="pip install submitit to run this test")
    job, sent, kill = slurm.Job(tmp_path), [], os.kill

    def record(pid, number):
        sent.append((pid, number))
        if pid:  # 0 is all of this test
            kill(pid, number)

    monkeypatch.setattr(slurm.os, "kill", record)
    assert job.checkpoint()  # while it waits for the folder
    assert not sent
    job._process = subprocess.Popen(["sleep", "600"])
    assert job.checkpoint()
    assert sent == [(job._process.pid, signal.SIGTERM)]
    assert job._process.wait() == -signal.SIGTERM
    assert job.checkpoint()  # once it has ended
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("said", "size"),
    [("MaxArraySize            = 4\n", 4), ("MaxArraySize = 0", 1), ("no answer", slurm.ARRAY)],
)
def test_an_array_is_as_long_as_the_cluster_allows(said, size, monkeypatch):
    answer = subprocess.CompletedProcess([], 0, stdout=f"MaxJobCount = 9\n{said}")
    monkeypatch.setattr(slurm.subprocess, "run", lambda *_, **__: answer)
    assert slurm._largest_array() == size


def test_more_runs_than_an_array_takes_are_several_arrays(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="pip install submitit to run this test")
    submitted = []

    class Executor:
        def __init__(self, folder, sweep, arrays):
            self.arrays = arrays

        @contextlib.contextmanager
        def batch(self):
            submitted.append([])
            yield

        def submit(self, job):
            submitted[-1].append(self.arrays)
            return types.SimpleNamespace(job_id=f"{len(submitted)}_{len(submitted[-1])}")

    monkeypatch.setattr(slurm, "_largest_array", lambda: 2)
    monkeypatch.setattr(slurm, "_executor", Executor)
    (tmp_path / "slurm").mkdir()
    some = small_sweeps.of_one_arm(tmp_path, 5)
    slurm.Book(tmp_path).submit(some, None)
    assert submitted == [[3, 3], [3, 3], [3]]
    assert slurm.Book(tmp_path).numbers() == ["1_1", "1_2", "2_1", "2_2", "3_1"]


def test_jobs_that_the_cluster_does_not_take_are_refused(tmp_path, monkeypatch):
    utils = pytest.importorskip(
        "submitit.core.utils", reason="pip install submitit to run this test"
    )

    class Executor:
        @contextlib.contextmanager
        def batch(self):
            yield
            raise utils.FailedJobError("sbatch: error: invalid partition\n")

        def submit(self, job):
            return None

    monkeypatch.setattr(slurm, "_largest_array", lambda: 9)
    monkeypatch.setattr(slurm, "_executor", lambda *_, **__: Executor())
    book = slurm.Book(tmp_path)
    with pytest.raises(
        errors.InputError, match="take the jobs: sbatch: error: invalid partition. C"
    ):
        book.submit(small_sweeps.of_one_arm(tmp_path, 1), None)
    assert not book.numbers()


def test_jobs_ask_the_cluster_for_what_the_config_says(tmp_path, programs_of_slurm):
    pytest.importorskip("submitit", reason="pip install submitit to run this test")
    programs_of_slurm(srun="exit 0")  # submitit looks for it
    c = sweeps.get_config(digits.get_config()).slurm
    few = slurm._executor(tmp_path, c, arrays=2 * c.parallel).parameters
    assert few["array_parallelism"] == 1  # of each array
    assert not {"partition", "gpus_per_node", "mem", "setup"} & few.keys()
    c.update({"partition": "main", "minutes": 90, "memory_gb": 3, "gpus_per_node": 2})
    c.update({"parallel": 9, "setup": ("module load cuda",), "grace_seconds": 45})
    asked = slurm._executor(tmp_path, c, arrays=2).parameters
    expected = {"partition": "main", "time": 90, "mem": "3GB", "gpus_per_node": 2}
    expected |= {"array_parallelism": 4, "setup": ["module load cuda"], "signal_delay_s": 45}
    expected |= {"job_name": "triplet_jax", "additional_parameters": {"requeue": True}}
    assert expected.items() <= asked.items()
