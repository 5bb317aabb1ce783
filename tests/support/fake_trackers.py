"""Trackers that record, fail or hang, in place of real ones."""

import threading

from triplet_jax.runs.trackers import opening


class Recorder:
    """Keeps what it is shown; `made` has all that were opened."""

    def __init__(self, place):
        self.place, self.shown = place, []
        self.known = {"run": place.known.get("run", f"run {len(self.made)}")}
        self.made.append(self)

    def config(self, values):
        self.shown.append(("config", values))

    def write(self, row):
        self.shown.append(("write", row))

    def file(self, path):
        self.shown.append(("file", path.name))

    def end(self, ending):
        self.shown.append(("end", ending))

    def of(self, what):
        return [value for kind, value in self.shown if kind == what]


class Failing(Recorder):
    """Fails at every row."""

    def write(self, row):
        raise ConnectionError("no route to host\nmore lines")


class Hanging(Recorder):
    """Hangs at the first row until it is let go."""

    def write(self, row):
        self.gate.wait(60)
        super().write(row)


def put(monkeypatch, kind, name="tensorboard"):
    """Has a fake stand for one of the trackers; its class."""
    fake = type(kind.__name__, (kind,), {"made": [], "gate": threading.Event()})
    fake.package = "json"
    monkeypatch.setitem(opening.TRACKERS, name, fake)
    return fake
