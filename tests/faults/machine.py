"""What a machine does to runs: its disk, its clock, and a second process."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from experiments.run import lock
from tests.faults.bench import EVERY, Bench, NotDone, all_of, checkpoints, complaint
from tests.faults.kills import every, wait_until_it_writes
from tests.support import programs


@contextlib.contextmanager
def _disk(folder, options):
    """A disk in memory, mounted on a folder."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise NotDone("only root can mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _fill(disk):
    with (disk / "another").open("wb") as file:
        while free := shutil.disk_usage(disk).free:
            with contextlib.suppress(OSError):  # where a piece of it was taken meanwhile
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)


FULL = ("could not be saved", "the disk is full", "same command again")


def disk_full(bench: Bench) -> Iterator[str]:
    """a disk without room for a checkpoint; then with room"""
    with _disk(bench.fresh(), "size=500k") as disk:
        done = bench.run(disk / "run")
        wrong = complaint(all_of(done), done.returncode, 3, *FULL)
        _remount(disk, "size=200m")
        yield wrong or bench.finish(disk / "run")


def disk_filled(bench: Bench) -> Iterator[str]:
    """a disk that another process fills while a checkpoint is written; then with room"""
    for number in range(bench.few):
        workdir, step = bench.fresh(), every(bench)[number % len(every(bench))]
        (workdir / "checkpoints").mkdir()
        with _disk(workdir / "checkpoints", "size=8m") as disk:
            process = bench.start(workdir)
            wait_until_it_writes(workdir, process, step)
            _fill(disk)
            said, _ = process.communicate()
            wrong = complaint(said, process.returncode, 3, *FULL)
            if step in checkpoints(workdir):
                wrong = "TOO LATE: it was written before the disk was full"
            (disk / "another").unlink()
            yield wrong or bench.finish(workdir)


def slow_disk(bench: Bench) -> Iterator[str]:
    """a disk where each change of a folder takes 0.1 s, left alone or killed as it saves"""
    if not shutil.which("strace"):
        raise NotDone("strace is not installed, which makes a disk slow")
    slowly = "mkdir,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,ftruncate"
    slow = ["strace", "-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "-e", f"trace={slowly}"]
    slow += ["-e", f"inject={slowly}:delay_exit=100000"]
    for killed in (False, *[True] * bench.few):
        workdir = bench.fresh()
        process = _start(bench, workdir, *slow, sys.executable, "-m", "experiments.train")
        if killed:
            wait_until_it_writes(workdir, process, 2 * EVERY)
            time.sleep(bench.random.uniform(0, 2))
            # Not strace, without which the calls that it slows would fail.
            subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=True)
        said, _ = process.communicate()
        while lock.is_claimed(workdir):
            time.sleep(0.1)
        wrong = complaint(said, process.returncode, -9 if killed else 0)
        yield wrong or (bench.finish if killed else bench.compared)(workdir)


def _start(bench, workdir, *command):
    """Starts a run by another command."""
    return subprocess.Popen(
        [*command, *bench.arguments(workdir)],
        cwd=programs.ROOT,
        env=programs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_only_folder(bench: Bench) -> Iterator[str]:
    """a folder that cannot be written, of a run that starts and of one that goes on; then it can"""
    with _disk(bench.fresh(), "size=200m") as disk:
        shutil.copytree(bench.stopped(after=EVERY), disk / "stopped")
        _remount(disk, "ro")
        for name in ("started", "stopped"):
            done = bench.run(disk / name)
            yield complaint(all_of(done), done.returncode, 2, "cannot be written") or "refused"
        _remount(disk, "rw")
        for name in ("started", "stopped"):
            yield bench.finish(disk / name)


def two_in_one_folder(bench: Bench) -> Iterator[str]:
    """a second process in the folder of a run that goes on"""
    workdir = bench.fresh()
    first = bench.start(workdir)
    programs.wait_until(lambda: workdir.joinpath("config.json").exists(), first)
    second = _start(bench, workdir, sys.executable, "-m", "experiments.train")
    said, _ = second.communicate()
    yield complaint(said, second.returncode, 2, "is working in --workdir") or "refused"
    said, _ = first.communicate()
    yield complaint(said, first.returncode, 0) or bench.compared(workdir)


CLOCK = """
import random, runpy, sys, time
real, drawn, offset = time.time, random.Random({seed}), 0.0
def now():
    global offset
    if drawn.random() < 0.01:
        offset += drawn.choice((-1e6, -3600.0, 3600.0, 1e6))
    return real() + offset
time.time = now
sys.argv[:1] = ["train"]
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


def jumping_clock(bench: Bench) -> Iterator[str]:
    """a clock that jumps by hours and days, either way, at one look of a hundred"""
    for seed in range(bench.few):
        workdir = bench.fresh()
        process = _start(bench, workdir, sys.executable, "-c", CLOCK.format(seed=seed))
        said, _ = process.communicate(timeout=programs.TIMEOUT)
        if not process.returncode:
            yield complaint(said, process.returncode, 0) or bench.compared(workdir)
            continue
        # Orbax measures how long it waits for a write by this clock.
        wrong = complaint(said, process.returncode, 3, "could not be saved", "same command again")
        yield wrong or f"{bench.finish(workdir)} after a save that was refused"
