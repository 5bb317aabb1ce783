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

from experiments.run import lock
from experiments.sweeps import slurm
from tests.support import small_sweeps
from triplet_jax import errors


def test_without_submitit_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[slurm\]'"):
        slurm.check()


def test_a_run_that_is_tried_again_is_forgotten_by_the_cluster(tmp_path):
    run = small_sweeps.a_run(tmp_path)
    (tmp_path / "slurm").mkdir()
    of_another = {"job": "7_1", "step": 0, "tries": 1}
    jobs = {run.name: {"job": "7_0", "step": 0, "tries": 3}, "another": of_another}
    (tmp_path / "slurm" / "jobs.json").write_text(json.dumps(jobs))
    assert not slurm.Book(tmp_path).may_try(run)
    assert run.state == "failed"
    slurm.Book(tmp_path).forget([run])
    assert slurm.Book(tmp_path).may_try(run)
    assert slurm.Book(tmp_path).numbers() == ["7_1"]


def test_a_launcher_that_looks_on_leaves_when_its_jobs_are_cancelled(tmp_path, monkeypatch):
    run, ended = small_sweeps.a_run(tmp_path), []
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "jobs.json").write_text(
        json.dumps({run.name: {"job": "7_0", "step": 0, "tries": 1}})
    )
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
    some = small_sweeps.planned(tmp_path)[:5]
    slurm.Book(tmp_path).submit(some, None)
    assert submitted == [[3, 3], [3, 3], [3]]
    assert slurm.Book(tmp_path).numbers() == ["1_1", "1_2", "2_1", "2_2", "3_1"]
