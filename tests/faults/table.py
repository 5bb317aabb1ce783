"""The table of faults, in RESULTS.md: a row each, and what it was made by."""

import collections
import importlib.metadata
import pathlib
import platform
import subprocess

from tests.faults.bench import KILLED
from tests.support import programs

RESULTS = pathlib.Path(__file__).parent / "RESULTS.md"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def made_with(seed: int, kills: int) -> str:
    """What all rows of a table have in common."""
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    python = f"Python {platform.python_version()} on {platform.system()}"
    return f"Seed {seed}, {kills} kills; {python}; {', '.join(versions)}."


def commit() -> str:
    """Of the code, and whether it was changed since."""

    def git(*words):
        done = subprocess.run(
            ["git", *words], cwd=programs.ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    others = f":(exclude){RESULTS.relative_to(programs.ROOT)}"
    changed = git("status", "--porcelain", "--", ".", others)
    return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")


def row(fault: str, outcomes: list[str], commit: str) -> str:
    """How often a fault was done, how the runs ended, and with which code."""
    times = outcomes.count(KILLED) or len(outcomes)
    counts = collections.Counter(outcome for outcome in outcomes if outcome != KILLED)
    how = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f"| {fault} | {times} | {how.replace('|', '/')} | {commit} |"


def read(made: str) -> dict[str, str]:
    """The rows by their faults; none where they were made with something else."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    if made not in text:
        return {}
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def write(rows: dict[str, str], faults: list[str], made: str) -> None:
    """Those of these faults, in this order."""
    RESULTS.write_text(
        "# Faults\n\n"
        "Made by `python -m tests.faults --write`; `--kills` says how often. Each run goes on by\n"
        "the same command. *same* is bit for bit: its metrics, its last parameters and\n"
        "its scores are those of a run that was left alone. In the first row several kills fall\n"
        "on one run, whose end is counted once. Capitals say that a run did not end as it has to.\n"
        f"\n{made}\n\n"
        "| fault | times | ends | commit |\n| --- | --- | --- | --- |\n"
        + "\n".join(rows[fault] for fault in faults if fault in rows)
        + "\n"
    )
