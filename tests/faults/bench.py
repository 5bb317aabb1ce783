"""Where faults are done: small runs of every part, started, waited for and compared."""

import dataclasses
import pathlib
import random
import tempfile
import time

from tests.support import programs

KILLED = ""  # counted, while how the run ends is still to come
STEPS, EVERY = 120, 30
FIELDS = {
    "train__steps": STEPS,
    "evaluate__every": EVERY,
    "model__width": 8,
    "optimizer__average_decay": 0.9,
    "memory__size": 200,
    "memory__start": 20,
    "offline__every": 50,
    "dataset__placement": "stream",
    "dataset__workers": 1,
}


class NotDone(Exception):
    """A fault that this machine cannot have; the message says why."""


class NothingToCompare(Exception):
    """What was left alone did not end well."""


@dataclasses.dataclass
class Bench:
    """Where faults are done, and what a run that is left alone ends as.

    Args:
      folder: for all that is written.
      kills: of a training process.
      random: draws moments and places.
      fields: of the config.
    """

    folder: pathlib.Path
    kills: int
    random: random.Random
    fields: dict = dataclasses.field(default_factory=lambda: dict(FIELDS))
    alone: pathlib.Path | None = None  # the run that was left alone
    starting: float = 0.0  # seconds that its start took, and its end
    ending: float = 0.0

    def fresh(self) -> pathlib.Path:
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    @property
    def few(self) -> int:
        """How often a fault is done that takes longer than a kill."""
        return max(1, self.kills // 8)

    @property
    def steps(self) -> int:
        return self.fields["train__steps"]

    def run(self, workdir, **fields):
        return programs.run("train", f"--workdir={workdir}", **self.fields | fields)

    def start(self, workdir):
        return programs.start("train", f"--workdir={workdir}", **self.fields)

    def arguments(self, workdir):
        """To start a run by other means."""
        return programs.arguments("train", f"--workdir={workdir}", **self.fields)

    def leave_alone(self, **fields) -> "Bench":
        """For runs with these fields, of which one was left alone.

        Raises:
          NothingToCompare: it did not end well.
        """
        other = dataclasses.replace(self, fields=self.fields | fields, alone=self.fresh())
        process, began = other.start(other.alone), time.monotonic()
        programs.wait_until(lambda: programs.last_step(other.alone) > 0, process)
        other.starting = time.monotonic() - began
        other.wait(other.alone, process, "steps", first=other.steps)
        trained = time.monotonic()
        said, _ = process.communicate()
        other.ending = time.monotonic() - trained
        if wrong := complaint(said, process.returncode, 0, f"written to {other.alone}"):
            raise NothingToCompare(f"the run that was left alone: {wrong}")
        return other

    def wait(self, workdir, process, stage="steps", first=1, last=None) -> None:
        """Waits for a moment that is drawn at random.

        Args:
          workdir: of the run.
          process: of the run.
          stage: "start", in which it also compiles; "steps"; or "end", in which it saves its last
            step and is evaluated.
          first: the first step that it may be.
          last: the last step that it may be; None for the last of the run.
        """
        if stage == "start":
            time.sleep(self.random.uniform(0, self.starting))
            return
        at = self.random.randint(first, last or self.steps) if stage == "steps" else self.steps
        programs.wait_until(lambda: programs.last_step(workdir) >= at, process)
        if stage == "end":
            time.sleep(self.random.uniform(0, self.ending))

    def stopped(self, after: int) -> pathlib.Path:
        """A run that was killed once it had this checkpoint."""
        workdir = self.fresh()
        process = self.start(workdir)
        programs.wait_until(lambda: after in checkpoints(workdir), process)
        process.kill()
        process.communicate()
        return workdir

    def finish(self, workdir) -> str:
        """Runs it to its end, by the same command, from its newest checkpoint, and compares."""
        newest = checkpoints(workdir)[-1:]
        words = [f"continuing after step {step} of {self.steps}" for step in newest]
        done = self.run(workdir)
        return complaint(all_of(done), done.returncode, 0, *words) or self.compared(workdir)

    def compared(self, workdir) -> str:
        return "same" if end(workdir) == end(self.alone) else "DIFFERENT"


def checkpoints(workdir: pathlib.Path) -> list[int]:
    """The steps of the whole checkpoints of a run, in order."""
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def end(workdir: pathlib.Path):
    """What a run ended as, without the checkpoints on the way: that of a stop is one more."""
    metrics, steps, digests, scores = programs.outcome(workdir)
    return metrics, steps[-1], digests[-1], scores


def all_of(done) -> str:
    """What a program said on both of its streams."""
    return done.stdout + done.stderr


def complaint(said: str, status: int, wanted: int, *words: str) -> str | None:
    """What is wrong with how a program ended; None for nothing."""
    if "Traceback" in said:
        return f"TRACEBACK: {last_line(said)}"
    if status != wanted:
        return f"EXIT {status}: {last_line(said)}"
    missing = [word for word in words if word not in said]
    return f"NO WORD OF {missing[0]!r}" if missing else None


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
