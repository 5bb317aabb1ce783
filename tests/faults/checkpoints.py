"""Checkpoints that are damaged on the disk."""

import pathlib
import shutil
from collections.abc import Callable, Iterator

from tests.faults.bench import EVERY, Bench, NotDone, all_of, checkpoints, complaint

# Of a checkpoint, what is read whole: wherever damage is, it shows.
READ = ("digest/metadata", "metrics/metrics")


def cut(bench: Bench, file: pathlib.Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(bench: Bench, file: pathlib.Path) -> None:
    data = bytearray(file.read_bytes())
    data[bench.random.randrange(len(data))] ^= 1 << bench.random.randrange(8)
    file.write_bytes(data)


def lower(bench: Bench, file: pathlib.Path) -> None:
    """One bit flipped, by which the score that the file holds is a smaller one."""
    text = file.read_text()
    at = next(i for i, char in enumerate(text) if char in "123456789")
    largest = 1 << int(text[at]).bit_length() - 1
    file.write_text(text[:at] + chr(ord(text[at]) ^ largest) + text[at + 1 :])


def _files(workdir, step):
    folder = workdir / "checkpoints" / str(step)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return [file.relative_to(workdir) for file in files]


def _newest_damaged(bench, damage: Callable):
    stopped = bench.stopped(after=2 * EVERY)
    *_, before, newest = checkpoints(stopped)
    for file in _files(stopped, newest):
        workdir = bench.fresh() / "run"
        shutil.copytree(stopped, workdir)
        damage(bench, workdir / file)
        done = bench.run(workdir)
        named = f"The checkpoint of step {newest}" in all_of(done)
        words = [f"continuing after step {before if named else newest} of"]
        if str(file).endswith(READ):
            words.append(f"The checkpoint of step {newest}")
        how = ", the damage named" if named else ", from it, whose state is whole"
        yield complaint(all_of(done), done.returncode, 0, *words) or bench.compared(workdir) + how


def newest_cut(bench: Bench) -> Iterator[str]:
    """the newest checkpoint cut to half, each of its files in turn"""
    yield from _newest_damaged(bench, cut)


def newest_flipped(bench: Bench) -> Iterator[str]:
    """one bit of the newest checkpoint flipped, in each of its files in turn"""
    yield from _newest_damaged(bench, flip)


# By which a run soon has a checkpoint that is better than those after it.
UNSTEADY = {
    "train__steps": 80,
    "evaluate__every": 10,
    "optimizer__average_decay": 0.0,
    "optimizer__learning_rate": 3.0,
    "optimizer__decay": "constant",
}


def older_best_damaged(bench: Bench) -> Iterator[str]:
    """one bit flipped in the best checkpoint, in its score too, where newer ones are worse"""
    bench = bench.leave_alone(**UNSTEADY)
    kept = checkpoints(bench.alone)
    if len(kept) < 3:
        raise NotDone(f"here the best of {kept} is among the newest two")
    best, before, _ = kept
    stopped = bench.stopped(after=before)
    files = _files(stopped, best)
    score = next(file for file in files if file.match("metrics/metrics"))
    drawn = bench.random.sample(files, min(bench.few, len(files)))
    for damage, file in [(lower, score), *((flip, file) for file in drawn)]:
        workdir = bench.fresh() / "run"
        shutil.copytree(stopped, workdir)
        damage(bench, workdir / file)
        done = bench.run(workdir)
        said, named = all_of(done), f"The checkpoint of step {best}"
        if done.returncode == 2:
            shutil.copy(stopped / file, workdir / file)
            wrong = complaint(said, done.returncode, 2, named, "Put it back")
            yield wrong or f"{bench.finish(workdir)} once it was put back, as was asked"
            continue
        how = complaint(said, done.returncode, 0) or bench.compared(workdir)
        yield "ended without it, saying so" if how == "DIFFERENT" and named in said else how
