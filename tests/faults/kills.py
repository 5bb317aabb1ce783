"""Processes that are killed, or asked to stop."""

import itertools
import signal
import subprocess
import time
from collections.abc import Iterator

from experiments.run import lock
from tests.faults.bench import KILLED, Bench, NothingToCompare, checkpoints, complaint, end
from tests.support import programs

STAGES = ("steps", "start", "end")
SIGKILLED = -signal.SIGKILL


def training_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a training process as it starts, among its steps, and as it is evaluated"""
    remaining = bench.kills
    while remaining:
        workdir = bench.fresh()
        for stage in ("start", "steps", "steps", "end")[:remaining]:
            first = min(programs.last_step(workdir) + 1, bench.steps)
            process = bench.start(workdir)
            bench.wait(workdir, process, stage, first=first)
            ended = process.poll() is not None
            process.kill()
            said, _ = process.communicate()
            wrong = complaint(said, process.returncode, 0 if ended else SIGKILLED)
            if wrong:
                yield wrong
            if ended:
                break
            remaining -= 1
            yield KILLED
        yield bench.finish(workdir)


def saving_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a training process while it writes a checkpoint"""
    for number in range(bench.few):
        workdir = bench.fresh()
        process = bench.start(workdir)
        wait_until_it_writes(workdir, process, every(bench)[number % len(every(bench))])
        time.sleep(bench.random.uniform(0, 0.1))
        process.kill()
        said, _ = process.communicate()
        yield complaint(said, process.returncode, SIGKILLED) or bench.finish(workdir)


def every(bench: Bench) -> range:
    """The steps that checkpoints are saved of."""
    each = bench.fields["evaluate__every"]
    return range(each, bench.steps + 1, each)


def wait_until_it_writes(workdir, process, step: int) -> None:
    """Until the checkpoint of a step was begun."""
    begun = f"{step}*"  # named otherwise until it is whole
    programs.wait_until(lambda: any((workdir / "checkpoints").glob(begun)), process)


def one_of_two_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of one process of a run of two, at such moments"""
    bench = bench.leave_alone(offline__every=0)
    alone = bench.fresh()
    said, statuses = _ended(_two(bench, alone))
    if statuses != [0, 0]:
        raise NothingToCompare(f"the run of two that was left alone: {statuses}: {said}")
    which = itertools.cycle(itertools.product(STAGES, (0, 1)))
    for stage, victim in itertools.islice(which, bench.few):
        workdir = bench.fresh()
        run = _two(bench, workdir)
        bench.wait(workdir, run[0], stage)
        run[victim].kill()
        said, statuses = _ended(run)
        other = said[1 - victim], statuses[1 - victim]
        wrong = complaint(*other, 3, "another process", "same command again")
        if (workdir / "result.json").exists():  # both were through
            wrong = complaint(*other, 0) and wrong
        if wrong:
            yield wrong
        newest = checkpoints(workdir)[-1:]
        said, statuses = _ended(_two(bench, workdir))
        words = [f"continuing after step {step} of" for step in newest]
        wrong = complaint(said[0], statuses[0], 0, *words) or complaint(said[1], statuses[1], 0)
        yield wrong or ("same" if end(workdir) == end(alone) else "DIFFERENT")


def _two(bench, workdir):
    return programs.start_together((1, 1), bench.arguments(workdir))


def _ended(run):
    """What both said on their two streams, and what they ended with."""
    said = ["".join(process.communicate()) for process in run]
    return said, [process.returncode for process in run]


SWEEP = """
from configs import digits
from configs.base import with_differences
from configs.sweeps import base

def get_config():
    run = digits.get_config("semi_hard")
    with_differences(run, {fields!r})
    sweep = base.get_config(run)
    sweep.arms = (("narrow", {{"loss.margin": 0.1}}), ("wide", {{"loss.margin": 0.5}}))
    sweep.seeds = (0,)
    sweep.reference = "narrow"
    sweep.engine = "processes"
    return sweep
"""
RUNS = 2


def _sweep(bench):
    fields = {name.replace("__", "."): value for name, value in bench.fields.items()}
    path = bench.fresh() / "sweep.py"
    path.write_text(SWEEP.format(fields=programs.TINY | fields))
    workdir = path.parent / "sweep"
    flags = [f"--config={path}", f"--workdir={workdir}"]
    return workdir, lambda: programs.start("sweep", *flags)


def runs_of(sweep) -> dict:
    """What each run of a sweep ended as, by its arm."""
    results = sweep.glob("runs/*/*/result.json")
    return {result.parent.parent.name: end(result.parent) for result in results}


def compared(sweep, alone) -> str:
    """Whether all runs of a sweep are done, and ended as those of the other."""
    found, expected = runs_of(sweep), runs_of(alone)
    if len(found) != RUNS:
        return f"LOST: {len(found)} of {RUNS} runs are done"
    return "same" if found == expected else "DIFFERENT"


def _complaint_of_runs(sweep, *words):
    """What is wrong with what the run that was disturbed said, and the others."""
    logs = {log.parent.parent.name: log.read_text() for log in sweep.glob("runs/*/*/log.txt")}
    said = complaint("".join(logs.values()), 0, 0)
    return said or complaint(logs.get("narrow", ""), 0, 0, *words)


def _killed_sweeps(bench, kill, status, *words):
    alone, start = _sweep(bench)
    process = start()
    said, _ = process.communicate()
    if wrong := complaint(said, process.returncode, 0) or _complaint_of_runs(alone):
        raise NothingToCompare(f"the sweep that was left alone: {wrong}")
    if len(runs_of(alone)) != RUNS:
        raise NothingToCompare(f"the sweep that was left alone did {len(runs_of(alone))} runs")
    for stage in itertools.islice(itertools.cycle(STAGES), bench.few):
        sweep, start = _sweep(bench)
        run = sweep / "runs" / "narrow" / "seed0"
        process = start()
        wanted = (status, *words) if kill(process, run, stage) else (0,)
        said, _ = process.communicate()
        if wrong := complaint(said, process.returncode, *wanted):
            yield wrong
        while lock.is_claimed(run):  # one without a launcher saves
            time.sleep(0.1)
        newest = [] if (run / "result.json").exists() else checkpoints(run)[-1:]
        process = start()
        said, _ = process.communicate()
        wrong = complaint(said, process.returncode, 0)
        wrong = wrong or _complaint_of_runs(sweep, *(f"continuing after step {s}" for s in newest))
        yield wrong or compared(sweep, alone)


def launcher_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a sweep's launcher, at such moments"""

    def kill(launcher, run, stage):
        bench.wait(run, launcher, stage)
        launcher.kill()
        return True

    yield from _killed_sweeps(bench, kill, SIGKILLED)


def worker_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a sweep's worker, at such moments"""

    def kill(launcher, run, stage):
        worker = ["-f", "--", f"--workdir={run}"]
        started = ["pgrep", *worker]
        programs.wait_until(
            lambda: not subprocess.run(started, capture_output=True).returncode, launcher
        )
        bench.wait(run, launcher, stage)
        return not subprocess.run(["pkill", "-KILL", *worker]).returncode  # or it is through

    yield from _killed_sweeps(bench, kill, 0, "ended by SIGKILL", "same command again")


def loader_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a process that loads batches"""
    for _ in range(bench.few):
        workdir = bench.fresh()
        process = bench.start(workdir)
        bench.wait(workdir, process, last=90)
        programs.kill_loaders(process)
        said, _ = process.communicate()
        wrong = complaint(said, process.returncode, 3, "loads batches has ended", "same command")
        if wrong and process.returncode == 0:  # it had all its batches already
            wrong = complaint(said, process.returncode, 0)
        yield wrong or bench.finish(workdir)


def asked_to_stop(bench: Bench) -> Iterator[str]:
    """SIGTERM, SIGINT, and the SIGUSR1 and SIGUSR2 that SLURM sends before it takes a machine"""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        workdir = bench.fresh()
        process = bench.start(workdir)
        bench.wait(workdir, process, last=100)
        asked = time.monotonic()
        process.send_signal(number)
        said, _ = process.communicate()
        wrong = complaint(said, process.returncode, 0, "and saved at step", number.name)
        if time.monotonic() - asked > 30:
            wrong = "SLOW: more than 30 s of grace"
        yield wrong or bench.finish(workdir)
