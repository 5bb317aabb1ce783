"""A sweep on a real SLURM of one machine, as the programs that a cluster runs are started."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.support import programs

TIMEOUT = 900
pytestmark = pytest.mark.slow
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=5
MaxArraySize={most}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES GraceTime=60
PartitionName=urgent Nodes={host} PriorityTier=2 MaxTime=INFINITE State=UP
"""
MOST = 4  # jobs of an array
SWEEP = """
from configs import digits
from configs.base import with_differences
from configs.sweeps import base

def get_config():
    run = digits.get_config("semi_hard")
    with_differences(run, {fields!r})
    sweep = base.get_config(run)
    sweep.arms = {arms!r}
    sweep.seeds = {seeds!r}
    sweep.reference = {arms!r}[0][0]
    sweep.engine = "slurm"
    sweep.slurm.tasks_per_node = {tasks}
    sweep.slurm.grace_seconds = 30
    return sweep
"""
# Without pytest's own pipes, which daemons would keep open.
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
LONG = {"train.steps": 1200, "evaluate.every": 100}  # for what takes a second to reach a run
FIELDS = programs.TINY | {"train.steps": 60, "evaluate.every": 20, "model.width": 8}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a cluster of this machine, with two processors."""
    if not all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "squeue")):
        pytest.skip("install slurm-wlm and munge to run this test")
    if os.geteuid():
        pytest.skip("only root can start the SLURM that this test asks")
    pytest.importorskip("submitit", reason="pip install submitit to run this test")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, most=MOST))
    os.makedirs("/run/munge", exist_ok=True)
    shutil.chown("/run/munge", "munge")
    if not os.path.exists("/etc/munge/munge.key"):
        subprocess.run(["mungekey", "-c"], check=True)
    if subprocess.run(["pgrep", "-x", "munged"], **QUIET).returncode:
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True, **QUIET)
    environment = programs.environment() | {"SLURM_CONF": str(conf)}
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon], env=environment, check=True, **QUIET)
    try:
        wait(lambda: "idle" in ask(environment, "sinfo", "--noheader", "--format=%T"), 60)
        yield environment
    finally:
        ask(environment, "scancel", "--user=root")
        for daemon in ("slurmd", "slurmctld"):
            os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)


def ask(environment, *command):
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def wait(condition, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def sweep(environment, config, workdir, *flags):
    """Starts the launcher."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.sweep"),
            *(f"--config={config}", f"--workdir={workdir}", *flags),
        ],
        cwd=programs.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write_sweep(path, *, arms, seeds, tasks=1, **fields):
    path.write_text(SWEEP.format(fields=FIELDS | fields, arms=arms, seeds=seeds, tasks=tasks))
    return path


def ended(launcher):
    said, _ = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, said
    assert "Traceback" not in said
    return said


def test_a_run_of_two_tasks_requeued_in_the_middle_ends_like_an_undisturbed_one(cluster, tmp_path):
    config = write_sweep(tmp_path / "two.py", arms=(("only", {}),), seeds=(0,), tasks=2)
    launcher = sweep(cluster, config, tmp_path / "sweep")
    run = tmp_path / "sweep" / "runs" / "only" / "seed0"
    wait(lambda: programs.last_step(run) >= 20)
    (job,) = json.loads((tmp_path / "sweep" / "slurm" / "jobs.json").read_text()).values()
    ask(cluster, "scancel", "--signal=USR2", job["job"])  # as before the time limit
    ended(launcher)
    log = (run / "log.txt").read_text()
    assert "and saved at step" in log
    assert "continuing after step" in log
    (after,) = json.loads((tmp_path / "sweep" / "slurm" / "jobs.json").read_text()).values()
    assert after["job"] == job["job"]  # the same job, which went back into the queue

    flags = [f"--config=configs/saved.py:{run / 'config.json'}", f"--workdir={tmp_path / 'alone'}"]
    undisturbed = programs.start_together((1, 1), flags)
    for process in undisturbed:
        _, complaint = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, complaint
    metrics, _, digests, scores = programs.outcome(run)
    expected, _, digests_alone, scores_alone = programs.outcome(tmp_path / "alone")
    assert (metrics, digests[-1], scores) == (expected, digests_alone[-1], scores_alone)


def test_a_sweep_whose_launcher_and_one_of_its_tasks_are_killed_ends_complete(cluster, tmp_path):
    arms = (("soft", {"loss.margin": 0.1}), ("wide", {"loss.margin": 0.5}))
    config = write_sweep(tmp_path / "six.py", arms=arms, seeds=(0, 1, 2))
    launcher = sweep(cluster, config, tmp_path / "sweep")
    victim = tmp_path / "sweep" / "runs" / "soft" / "seed0"
    wait(lambda: programs.last_step(victim) >= 10)
    launcher.kill()
    launcher.communicate()
    found = ask(cluster, "pgrep", "-f", f"experiments.train.*--workdir={victim}$").split()
    for pid in found:
        os.kill(int(pid), signal.SIGKILL)
    assert found
    again = sweep(cluster, config, tmp_path / "sweep")
    ended(again)
    results = sorted((tmp_path / "sweep" / "runs").glob("*/*/result.json"))
    assert len(results) == 6
    assert not list((tmp_path / "sweep" / "runs").glob("*/*/error.txt"))
    jobs = json.loads((tmp_path / "sweep" / "slurm" / "jobs.json").read_text())
    assert len({job["job"].partition("_")[0] for job in jobs.values()}) > 1  # arrays have a limit
    assert jobs["soft seed 0"]["tries"] + jobs["soft seed 0"]["step"] > 1  # it had another
    assert (tmp_path / "sweep" / "report.html").exists()


def test_jobs_that_slurm_does_not_take_are_said(cluster, tmp_path):
    config = write_sweep(tmp_path / "one.py", arms=(("only", {}),), seeds=(0,))
    launcher = sweep(cluster, config, tmp_path / "sweep", "--config.slurm.partition=nowhere")
    said, _ = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 2, said
    assert "SLURM does not take the jobs" in said
    assert "Traceback" not in said


def started(cluster, tmp_path):
    """A sweep of one long run that has saved: its launcher, its folder, that of the run."""
    config = write_sweep(tmp_path / "one.py", arms=(("only", {}),), seeds=(0,), **LONG)
    launcher, folder = sweep(cluster, config, tmp_path / "sweep"), tmp_path / "sweep"
    run = folder / "runs" / "only" / "seed0"
    wait(lambda: programs.last_step(run) >= 200)
    return launcher, folder, run


def job_of(folder):
    """The number of the job of a sweep's only run."""
    (job,) = json.loads((folder / "slurm" / "jobs.json").read_text()).values()
    return job["job"]


def submit(cluster, *arguments):
    """The number of a job that `sbatch` takes."""
    done = subprocess.run(
        ["sbatch", "--parsable", *map(str, arguments)],
        cwd=programs.ROOT,
        env=cluster | {"PATH": f"{os.path.dirname(sys.executable)}:{cluster['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_batch_script_of_a_run_queues_again_after_a_signal(cluster, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log.txt"
    fields = [f"--config.{name}={value}" for name, value in (FIELDS | LONG).items()]
    job = submit(
        cluster,
        *("--ntasks-per-node=1", f"--output={log}", "docs/cluster/train.sbatch", run),
        *("--config=configs/digits.py:semi_hard", *fields),
    )
    wait(lambda: programs.last_step(run) >= 200)
    ask(cluster, "scancel", "--signal=USR1", job)  # as before the time limit
    wait(lambda: (run / "result.json").exists())
    assert "stopped by SIGUSR1 and saved at step" in log.read_text()
    assert "continuing after step" in log.read_text()
    wait(lambda: not ask(cluster, "squeue", "--noheader"))


def test_the_jobs_of_an_array_share_a_study_of_which_one_is_requeued(cluster, tmp_path):
    pytest.importorskip("optuna", reason="pip install optuna to run this test")
    study = tmp_path / "study"
    tune = [
        *("python", "-m", "experiments.tune", "--config=configs/tune/digits.py"),
        *(f"--workdir={study}", "--config.trials=4", "--config.seeds=(0,)", "--config.engine=here"),
        *(f"--config.run.{name}={value}" for name, value in FIELDS.items()),
    ]
    settings = ("--array=1-2", "--requeue", f"--output={tmp_path}/%a.txt")
    job = submit(cluster, *settings, f"--wrap={shlex.join(tune)}")
    wait(lambda: list(study.glob("runs/*/*/metrics.jsonl")))
    ask(cluster, "scontrol", "requeue", f"{job}_1")
    wait(lambda: not ask(cluster, "squeue", "--noheader"))
    budget = json.loads((study / "result.json").read_text())["budget"]
    assert (budget["trials"], budget["complete"]) == (4, 4)


def test_a_job_that_is_preempted_saves_in_its_time_of_grace_and_goes_on(cluster, tmp_path):
    launcher, folder, run = started(cluster, tmp_path)
    job = job_of(folder)
    ask(cluster, "srun", "--partition=urgent", "--exclusive", "true")
    ended(launcher)
    log = (run / "log.txt").read_text()
    assert "stopped by SIGTERM and saved at step" in log
    assert "continuing after step" in log
    # To SLURM the job had ended in time, so that the launcher submitted another.
    assert job_of(folder) != job


def test_a_job_that_is_requeued_by_hand_goes_on(cluster, tmp_path):
    launcher, folder, run = started(cluster, tmp_path)
    job = job_of(folder)
    ask(cluster, "scontrol", "requeue", job)
    ended(launcher)
    log = (run / "log.txt").read_text()
    assert "stopped by SIGTERM and saved at step" in log
    assert "continuing after step" in log
    assert job_of(folder) == job


def test_a_job_whose_node_dies_goes_on_from_its_last_checkpoint(cluster, tmp_path):
    launcher, folder, run = started(cluster, tmp_path)
    job = job_of(folder)
    for pid in processes_of_the_node(cluster):
        os.kill(pid, signal.SIGKILL)
    wait(lambda: "down" in ask(cluster, "sinfo", "--noheader", "--format=%T"))
    subprocess.run(["slurmd"], env=cluster, check=True, **QUIET)
    ended(launcher)
    log = (run / "log.txt").read_text()
    assert "and saved at step" not in log
    assert "continuing after step" in log
    assert job_of(folder) == job


def processes_of_the_node(cluster):
    """All that a dead node takes with it: slurmd, the steps of jobs and what these have started."""
    conf = pathlib.Path(cluster["SLURM_CONF"])
    lines = ask(cluster, "scontrol", "listpids").splitlines()[1:]
    tasks = {int(line.split()[0]) for line in lines}
    above = {int(ask(cluster, "ps", "--no-headers", "--format=ppid", str(pid))) for pid in tasks}
    return {int((conf.parent / "slurmd.pid").read_text())} | tasks | above - {1}


def test_jobs_are_cancelled(cluster, tmp_path):
    config = write_sweep(tmp_path / "one.py", arms=(("only", {}),), seeds=(0, 1))
    launcher = sweep(cluster, config, tmp_path / "sweep")
    wait(lambda: (tmp_path / "sweep" / "slurm" / "jobs.json").exists())
    launcher.send_signal(signal.SIGINT)
    assert "The jobs go on." in ended(launcher)
    assert "cancelled 2 jobs" in ended(sweep(cluster, config, tmp_path / "sweep", "--cancel"))
