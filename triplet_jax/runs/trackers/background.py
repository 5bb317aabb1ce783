"""A tracker at work in a thread of its own, where it can neither stop nor slow a run."""

import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from triplet_jax.runs.row_files import Row
from triplet_jax.runs.trackers.interface import Tracker

ROOM = 1000
"""As many rows wait for a tracker that is slower than the run; it misses those that follow."""

Complain = Callable[[str, BaseException | None], None]


class Background:
    """A tracker behind a queue. No method waits, and none raises.

    It complains once, of the first error or of the first row that it leaves out, and then tries to
    show what follows, unless the tracker could not be opened.

    Args:
      make: opens the tracker; it is called in the thread.
      complain: reports an error, by the text that follows the tracker's name and the error.
      room: how many rows may wait.
    """

    def __init__(self, make: Callable[[], Tracker], *, complain: Complain, room: int = ROOM):
        self._make, self._complain, self._room = make, complain, room
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._tracker: Tracker | None = None
        self._once, self._has_complained = threading.Lock(), False
        self._is_over = False
        # A daemon, since the process must be able to end where the tracker hangs.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def config(self, values: Mapping[str, Any]) -> None:
        """Shows the config."""
        self._give("config", values)

    def write(self, row: Row) -> None:
        """Shows the numbers of a row."""
        self._give("write", row)

    def file(self, path: pathlib.Path) -> None:
        """Shows a file."""
        self._give("file", path)

    def end(self, ending: str) -> None:
        """Ends the tracker after what waits; nothing that is given later counts."""
        if not self._is_over:
            self._is_over = True
            self._waiting.put(("end", ending))

    def wait(self, until: float) -> None:
        """Waits until the tracker has ended, at most until a `time.monotonic`."""
        self._thread.join(max(until - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self._say("has not ended in time; what it shows may lack the last rows", None)

    def _give(self, what, value):
        if self._is_over:
            return
        if self._waiting.qsize() < self._room:
            self._waiting.put((what, value))
        else:
            self._say("is slower than the run, and misses rows", None)

    def _work(self):
        try:
            self._tracker = self._make()
        except BaseException as error:
            self._is_over = True
            self._say("could not be opened", error)
            return
        what = ""
        while what != "end":
            what, value = self._waiting.get()
            try:
                getattr(self._tracker, what)(value)
            except BaseException as error:
                at = f" at step {value['step']}" if what == "write" else ""
                self._say(f"failed{at}", error)

    def _say(self, words, error):
        with self._once:
            if self._has_complained:
                return
            self._has_complained = True
        self._complain(words, error)


class Trackers:
    """All trackers of a run, as one."""

    def __init__(self, some: Iterable[Background] = ()):
        self._all = tuple(some)

    def config(self, values: Mapping[str, Any]) -> None:
        """Shows the config."""
        for one in self._all:
            one.config(values)

    def write(self, row: Row) -> None:
        """Shows the numbers of a row."""
        for one in self._all:
            one.write(row)

    def file(self, path: pathlib.Path) -> None:
        """Shows a file."""
        for one in self._all:
            one.file(path)

    def end(self, ending: str) -> None:
        """Ends all, as `interface.Tracker.end` says; only the first call counts."""
        for one in self._all:
            one.end(ending)

    def wait(self, until: float) -> None:
        """Waits until all have ended, at most until a `time.monotonic`."""
        for one in self._all:
            one.wait(until)
