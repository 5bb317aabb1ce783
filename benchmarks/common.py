"""What the benchmarks share: one process for each case, its times and memory, and the tables."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "RESULTS.md"

# A step is repeated until its repeats have taken this long together. So a short step has enough of
# them for a median, and a long one is not waited for.
_LEAST_REPEATS, _MOST_REPEATS = 3, 200
_SECONDS, _MOST_SECONDS = 1.0, 20.0


def times(step: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The seconds of each repeat of `step` by a clock; the caller has warmed it up."""
    seconds: list[float] = []
    while not _enough(len(seconds), sum(seconds)):
        start = clock()
        step()
        seconds.append(clock() - start)
    return seconds


def _enough(repeats: int, seconds: float) -> bool:
    if repeats < _LEAST_REPEATS:
        return seconds > _MOST_SECONDS
    return repeats >= _MOST_REPEATS or seconds > _SECONDS


def in_own_process(module: str, *arguments: Any, timeout: float) -> dict[str, Any]:
    """Runs `python -m module arguments`, and returns the JSON of its last line.

    If it fails, is killed or takes longer than `timeout` seconds, the result is a `note` of that.
    """
    line = [sys.executable, "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"note": f"stopped after {timeout:.0f} s"}
    if done.returncode < 0:
        return {"note": f"killed by signal {-done.returncode}"}
    if done.returncode:
        return {"note": f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:100]}"}
    return json.loads(done.stdout.splitlines()[-1])


def forget_peak_memory() -> None:
    """Lowers the process's peak of memory to what it holds now, where Linux allows it.

    Importing and compiling take memory that a step does not need.
    """
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most bytes that the process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured_once(call: Callable[[], Any]) -> dict[str, Any]:
    """What a call of minutes returns, and what it takes: seconds, and the most memory in GiB."""
    forget_peak_memory()
    start, busy = time.perf_counter(), time.process_time()
    values = call()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - busy,
        "peak": peak_memory() / 2**30,
        "load": os.getloadavg()[0],
        "values": values,
    }


def machine(*packages: str) -> str:
    """The processor, how busy it is, and the versions of the packages that are installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {found}" for name in packages if (found := _version(name))]
    # Torch's threads wait for each other by spinning. Beside another busy process a step can take a
    # hundred times as long, so readers should see that there was none.
    load = f"load {os.getloadavg()[0]:.1f} before the first case"
    hardware = f"{_processor()}, {_cores()} cores, {memory:.0f} GiB, {load}"
    return f"{hardware}; {', '.join(versions)}"


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pooled(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Joins what several processes measured of one case; a note of one of them stands for all."""
    for found in rounds:
        if "note" in found:
            return found
    seconds = [s for found in rounds for s in found["seconds"]]
    medians = [statistics.median(found["seconds"]) for found in rounds]
    peak = max(found.get("peak", 0.0) for found in rounds)
    median = statistics.median(seconds)
    return {**rounds[0], "seconds": seconds, "median": median, "medians": medians, "peak": peak}


def with_spread(record: dict[str, Any], show: Callable[[float], str]) -> str:
    """The median time of a case, and the least and the largest median of its rounds in brackets."""
    median, medians = show(record["median"]), record.get("medians", ())
    if len(medians) < 2:
        return median
    return f"{median} ({show(min(medians))} to {show(max(medians))})"


def ratio(value: float) -> str:
    """A ratio as text: two decimals, or none if it is large."""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(name: str, text: str, path: pathlib.Path = RESULTS) -> None:
    """Puts `text` between the marks `<!-- name:begin -->` and `<!-- name:end -->` of a file.

    Raises:
      ValueError: the file lacks these marks.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = path.read_text().partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise ValueError(f"{path} has no {begin} followed by {end}.")
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def parser(doc: str, section: str, rounds: int) -> argparse.ArgumentParser:
    """The options of every benchmark.

    Args:
      doc: the docstring of the benchmark; its first line describes the program.
      section: the section of RESULTS.md, and the name of the file of results.
      rounds: the default number of processes for each case.
    """
    output = RESULTS.with_name(f"{section}.json")
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--rounds", type=int, default=rounds, help="processes for each case")
    made.add_argument("--timeout", type=float, default=300, help="seconds for a process")
    made.add_argument("--output", type=pathlib.Path, default=output)
    made.add_argument("--again", action="store_true", help="only print the tables of --output")
    made.add_argument("--write", action="store_true", help="write the tables into RESULTS.md")
    made.add_argument("--section", default=section, help="the section of RESULTS.md")
    made.add_argument("--measure", help=argparse.SUPPRESS)
    return made


def report(
    options, measure_all: Callable, tables: Callable[[dict], str], document: pathlib.Path = RESULTS
) -> dict[str, Any]:
    """Measures, or reads what was measured before, and prints the tables.

    Args:
      options: from `parser`.
      measure_all: measures every case, by the options.
      tables: makes Markdown of what was measured.
      document: the file that `--write` puts the tables into.

    Returns:
      What was measured.
    """
    found = json.loads(options.output.read_text()) if options.again else measure_all(options)
    text = tables(found)
    print(f"\n{text}")
    if options.write:
        write_section(options.section, text, document)
    return found
