"""What happens to runs, done to real processes, and a table of how each ended.

    python -m tests.faults --kills=50 --write

Every fault is done to a small run of every part (memory, average, offline mining, streamed data),
which then goes on by the same command until it is through. `same` is written where metrics, the
last parameters and the scores are, bit for bit, those of a run that was left alone. Nothing here is
hidden from the table: a fault that ends otherwise has a row that says so.
"""

import argparse
import collections
import contextlib
import dataclasses
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image
import sklearn.datasets

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import programs

RESULTS = pathlib.Path(__file__).parent / "RESULTS.md"
KILLED = ""  # counted, while how the run ends is still to come
FIELDS = {
    "train__steps": 120,
    "evaluate__every": 30,
    "model__width": 8,
    "optimizer__average_decay": 0.9,
    "memory__size": 200,
    "memory__start": 20,
    "offline__every": 50,
    "dataset__placement": "stream",
    "dataset__workers": 1,
}


@dataclasses.dataclass
class Bench:
    """Where faults are done, and what an undisturbed run ends as."""

    folder: pathlib.Path
    kills: int
    random: random.Random
    expected: tuple = ()

    def fresh(self) -> pathlib.Path:
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    @property
    def few(self) -> int:
        """How often a fault is done that takes longer than a kill."""
        return max(1, self.kills // 12)

    def wait(self, workdir, process, most=100) -> None:
        """Waits for a step that is drawn at random."""
        at = self.random.randrange(5, most)
        programs.wait_until(lambda: programs.last_step(workdir) >= at, process)

    def run(self, workdir, **fields):
        return programs.run("train", f"--workdir={workdir}", **FIELDS | fields)

    def start(self, workdir, **fields):
        return programs.start("train", f"--workdir={workdir}", **FIELDS | fields)

    def finish(self, workdir) -> str:
        """Runs it to its end, by the same command, and compares."""
        done = self.run(workdir)
        if done.returncode:
            return f"LOST: {_last(done.stderr)}"
        return self.compared(programs.outcome(workdir))

    def compared(self, outcome) -> str:
        return "same" if _end(outcome) == _end(self.expected) else "DIFFERENT"


def _end(outcome):
    """Without the checkpoints on the way: that of a stop is one more among them."""
    metrics, steps, digests, scores = outcome
    return metrics, steps[-1], digests[-1], scores


def _last(text):
    return (text.strip().splitlines() or [""])[-1]


def complaint(said: str, status: int, wanted: int, *words: str) -> str | None:
    """What is wrong with how a program ended; None for nothing."""
    if "Traceback" in said:
        return "TRACEBACK"
    if status != wanted:
        return f"EXIT {status}: {_last(said)}"
    missing = [word for word in words if word not in said]
    return f"NO WORD OF {missing[0]!r}" if missing else None


def killed_while_training(bench: Bench) -> Iterator[str]:
    """SIGKILL of a training process, at moments drawn at random"""
    remaining = bench.kills
    while remaining:
        workdir = bench.fresh()
        for _ in range(min(5, remaining)):
            process = bench.start(workdir)
            end = time.monotonic() + bench.random.uniform(0.5, 25.0)
            while time.monotonic() < end and process.poll() is None:
                time.sleep(0.01)
            ended = process.poll() is not None
            process.kill()
            process.communicate()
            if ended:
                break
            remaining -= 1
            yield KILLED
        yield bench.finish(workdir)


def one_of_two_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of one process of a run of two"""
    arguments = programs.arguments("train", **FIELDS | {"offline__every": 0})
    alone = bench.fresh()
    for process in programs.start_together((1, 1), [*arguments, f"--workdir={alone}"]):
        process.communicate()
    for number in range(bench.few):
        workdir = bench.fresh()
        mine = [*arguments, f"--workdir={workdir}"]
        run = programs.start_together((1, 1), mine)
        bench.wait(workdir, run[0])
        run[number % 2].kill()
        other = run[1 - number % 2]
        _, said = other.communicate()
        run[number % 2].communicate()
        wrong = complaint(said, other.returncode, 3, "another process of this run has ended")
        if wrong:
            yield wrong
        ends = [p.communicate() and p.returncode for p in programs.start_together((1, 1), mine)]
        same = ends == [0, 0] and programs.outcome(workdir) == programs.outcome(alone)
        yield "same" if same else "DIFFERENT"


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


def _sweep(bench):
    fields = {name.replace("__", "."): value for name, value in FIELDS.items()}
    path = bench.fresh() / "sweep.py"
    path.write_text(SWEEP.format(fields=programs.TINY | fields))
    workdir = path.parent / "sweep"
    flags = [f"--config={path}", f"--workdir={workdir}"]
    return workdir, lambda: programs.start("sweep", *flags)


def _of_runs(workdir):
    return {
        path.parent.parent.name: _end(programs.outcome(path.parent))
        for path in sorted(workdir.glob("runs/*/*/result.json"))
    }


def _killed_sweeps(bench, victim):
    alone, start = _sweep(bench)
    start().communicate(timeout=600)
    for _ in range(bench.few):
        workdir, start = _sweep(bench)
        process = start()
        bench.wait(workdir / "runs" / "narrow" / "seed0", process, most=90)
        victim(process, workdir)
        process.communicate(timeout=600)
        again = start()
        said, _ = again.communicate(timeout=600)
        wrong = complaint(said, again.returncode, 0)
        same = _of_runs(workdir) == _of_runs(alone)
        yield wrong or ("same" if same else "DIFFERENT")


def launcher_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a sweep's launcher"""
    yield from _killed_sweeps(bench, lambda launcher, _: launcher.kill())


def worker_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a sweep's worker"""

    def victim(_, workdir):
        subprocess.run(
            ["pkill", "-KILL", "-f", "--", f"--workdir={workdir}/runs/narrow"], check=True
        )

    yield from _killed_sweeps(bench, victim)


def asked_to_stop(bench: Bench) -> Iterator[str]:
    """SIGTERM, SIGINT, and the SIGUSR1 and SIGUSR2 that SLURM sends before it takes a machine"""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        workdir = bench.fresh()
        process = bench.start(workdir)
        bench.wait(workdir, process)
        asked = time.monotonic()
        process.send_signal(number)
        said, _ = process.communicate()
        wrong = complaint(said, process.returncode, 0, "and saved at step", number.name)
        if time.monotonic() - asked > 30:
            wrong = "SLOW: more than 30 s of grace"
        yield wrong or bench.finish(workdir)


class NotDone(Exception):
    """A fault that this machine cannot have; the message says why."""


@contextlib.contextmanager
def _disk(bench, options):
    """A disk in memory, mounted on a folder of its own."""
    folder = bench.fresh()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise NotDone("only root can mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disk_full(bench: Bench) -> Iterator[str]:
    """a disk that fills up while a checkpoint is saved"""
    with _disk(bench, "size=500k") as disk:
        done = bench.run(disk / "run")
        wrong = complaint(done.stderr, done.returncode, 3, "the disk is full", "same command again")
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        yield wrong or bench.finish(disk / "run")


def _stopped(bench):
    """A run that was killed after two checkpoints."""
    workdir = bench.fresh()
    process = bench.start(workdir)
    programs.wait_until(lambda: (workdir / "checkpoints" / "60").exists(), process)
    process.kill()
    process.communicate()
    return workdir


def _damaged_checkpoints(bench, damage):
    stopped = _stopped(bench)
    newest = max(
        (p for p in (stopped / "checkpoints").iterdir() if p.name.isdigit()),
        key=lambda p: int(p.name),
    )
    for file in sorted(p for p in newest.rglob("*") if p.is_file()):
        workdir = bench.fresh() / "run"
        shutil.copytree(stopped, workdir)
        damage(workdir / file.relative_to(stopped))
        yield bench.finish(workdir)


def checkpoint_truncated(bench: Bench) -> Iterator[str]:
    """the newest checkpoint cut to half, each of its files in turn"""

    def half(file):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    yield from _damaged_checkpoints(bench, half)


def checkpoint_flipped(bench: Bench) -> Iterator[str]:
    """one bit of the newest checkpoint flipped, in each of its files in turn"""

    def flip(file):
        data = bytearray(file.read_bytes())
        if data:
            data[bench.random.randrange(len(data))] ^= 1 << bench.random.randrange(8)
        file.write_bytes(bytes(data))

    yield from _damaged_checkpoints(bench, flip)


def loader_killed(bench: Bench) -> Iterator[str]:
    """SIGKILL of a process that loads batches"""
    for _ in range(bench.few):
        workdir = bench.fresh()
        process = bench.start(workdir)
        bench.wait(workdir, process)
        programs.kill_loaders(process)
        said, _ = process.communicate()
        wrong = None
        if process.returncode:  # else it had all its batches already
            wrong = complaint(said, process.returncode, 3, "loads batches has ended")
        yield wrong or bench.finish(workdir)


def read_only_folder(bench: Bench) -> Iterator[str]:
    """a folder that cannot be written"""
    with _disk(bench, "ro") as disk:
        done = bench.run(disk / "run")
        yield complaint(done.stderr, done.returncode, 2, "cannot be written") or "refused"


def two_in_one_folder(bench: Bench) -> Iterator[str]:
    """a second process in the folder of a run that goes on"""
    workdir = bench.fresh()
    first = bench.start(workdir)
    programs.wait_until(lambda: programs.last_step(workdir) >= 10, first)
    second = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.train"),
            *programs.arguments("train", f"--workdir={workdir}", **FIELDS),
        ],
        cwd=programs.ROOT,
        env=programs.environment(),
        capture_output=True,
        text=True,
    )
    wrong = complaint(second.stderr, second.returncode, 2, "is working in --workdir")
    first.communicate()
    yield wrong or bench.compared(programs.outcome(workdir))


def data_cut_short(bench: Bench) -> Iterator[str]:
    """a file of data cut short, or with a number that is none"""
    bunch = sklearn.datasets.load_digits()
    file = bench.fresh() / "data.npz"
    fields = {
        "dataset__name": "arrays",
        "dataset__path": file,
        "model__name": "mlp",
        "augment__shift": 0.0,
        "augment__rotate": 0.0,
        "augment__scale": 0.0,
    }
    np.savez(file, x=bunch.data, y=bunch.target)
    whole = file.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        file.write_bytes(whole[: int(share * len(whole))])
        done = bench.run(bench.fresh(), **fields)
        yield complaint(done.stderr, done.returncode, 2, "dataset.path") or "refused"
    bunch.data[5, 3] = np.nan
    np.savez(file, x=bunch.data, y=bunch.target)
    done = bench.run(bench.fresh(), **fields)
    yield complaint(done.stderr, done.returncode, 2, "finite") or "refused"


def not_finite(bench: Bench) -> Iterator[str]:
    """a loss that becomes NaN"""
    different = {
        "model__normalize": False,
        "model__norm": "group",
        "optimizer__name": "sgd",
        "optimizer__learning_rate": 1e25,
        "offline__every": 0,
    }
    done = bench.run(bench.fresh(), **different)
    yield complaint(done.stderr, done.returncode, 1, "is not finite") or "ended, saying so"


def image_that_is_none(bench: Bench) -> Iterator[str]:
    """an image of a folder that is none, before the run and during it"""
    root = bench.fresh() / "images"
    bunch = sklearn.datasets.load_digits()
    for i, (image, label) in enumerate(zip(bunch.images[:400], bunch.target, strict=False)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray((image * 15).astype(np.uint8)).save(root / str(label) / f"{i}.png")
    fields = {
        "config": "configs/folder.py",
        "dataset__path": root,
        "dataset__image_size": 16,
        "dataset__placement": "stream",
        "batch__classes": 5,
        "batch__per_class": 4,
    }
    broken = root / "0" / "0.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    done = bench.run(bench.fresh(), **fields)
    yield complaint(done.stderr, done.returncode, 2, "0.png") or "refused"
    done = bench.run(bench.fresh(), **fields, dataset__bad_images="skip")
    yield complaint(done.stderr, done.returncode, 0) or "left out, as asked"
    broken.write_bytes(whole)
    workdir = bench.fresh()
    process = bench.start(workdir, **fields)
    programs.wait_until(lambda: programs.last_step(workdir) >= 10, process)
    for file in root.glob("*/*.png"):
        file.write_bytes(b"no image")
    said, _ = process.communicate()
    yield complaint(said, process.returncode, 2, ".png") or "ended, saying so"


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
        done = subprocess.run(
            [
                *(sys.executable, "-c", CLOCK.format(seed=seed)),
                *programs.arguments("train", f"--workdir={workdir}", **FIELDS),
            ],
            cwd=programs.ROOT,
            env=programs.environment(),
            capture_output=True,
            text=True,
            timeout=programs.TIMEOUT,
        )
        if not done.returncode:
            yield bench.compared(programs.outcome(workdir))
            continue
        # Orbax measures how long it waits for a write by this clock.
        wrong = complaint(
            done.stderr, done.returncode, 3, "could not be saved", "same command again"
        )
        yield wrong or f"{bench.finish(workdir)} after a save that was refused"


FAULTS: tuple[Callable[[Bench], Iterator[str]], ...] = (
    killed_while_training,
    one_of_two_killed,
    launcher_killed,
    worker_killed,
    loader_killed,
    asked_to_stop,
    disk_full,
    checkpoint_truncated,
    checkpoint_flipped,
    read_only_folder,
    two_in_one_folder,
    data_cut_short,
    not_finite,
    image_that_is_none,
    jumping_clock,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of a training process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="names of faults; keeps other rows")
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}")
    given = parser.parse_args()
    known = {fault.__name__: fault for fault in FAULTS}
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        bench = Bench(pathlib.Path(folder), given.kills, random.Random(given.seed))
        undisturbed = bench.fresh()
        done = bench.run(undisturbed)
        assert done.returncode == 0, done.stderr
        bench.expected = programs.outcome(undisturbed)
        if given.write and not given.only:
            RESULTS.unlink(missing_ok=True)
        for name in given.only or known:
            outcomes = list(_outcomes(known[name], bench))
            times = outcomes.count(KILLED) or len(outcomes)
            counts = collections.Counter(filter(None, outcomes))
            how = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            row = f"| {known[name].__doc__} | {times} | {how} |"
            print(row, flush=True)
            if given.write:
                _write(_rows() | {known[name].__doc__: row})


def _rows():
    """What stands in the table, by fault."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}


def _outcomes(fault, bench):
    try:
        yield from fault(bench)
    except NotDone as why:
        yield f"not done: {why}"
    except AssertionError as error:  # of a wait: it ended too early, or hangs
        yield f"HANGS OR ENDS: {_last(str(error))}"


def _write(rows):
    ordered = [rows[fault.__doc__] for fault in FAULTS if fault.__doc__ in rows]
    RESULTS.write_text(
        "# Faults\n\n"
        "Made by `python -m tests.faults --write`; `--kills` says how often. Each run goes on by\n"
        "the same command. *same* is bit for bit: its metrics, its last parameters and\n"
        "its scores are those of a run that was left alone. In the first row several kills fall\n"
        "on one run, whose end is counted once.\n\n"
        "| fault | times | ends |\n| --- | --- | --- |\n" + "\n".join(ordered) + "\n"
    )


if __name__ == "__main__":
    main()
