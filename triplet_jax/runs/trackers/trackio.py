"""trackio: its local database, or the server that its own environment variables name."""

import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

from triplet_jax.runs.row_files import Row
from triplet_jax.runs.trackers import interface


class Trackio:
    """Writes a run of trackio, in a project with the name of the run's group.

    trackio finds a run again by its name alone, so that each name ends in a few random letters.
    """

    package = "trackio"

    def __init__(self, place: interface.Place):
        self._module = interface.needed(self.package, "trackio")
        name = place.known.get("run") or f"{place.name}-{secrets.token_hex(3)}"
        project = place.known.get("project") or place.group or interface.PROJECT
        # What `init` sets belongs to the thread, so that a process may have several runs.
        self._run = self._module.init(
            project=project,
            name=name,
            group=place.group or None,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self.known = {"run": name, "project": project}

    def config(self, values: Mapping[str, Any]) -> None:
        """Sets the fields of the run's config, which the next row takes along."""
        self._run.config.update(values)

    def write(self, row: Row) -> None:
        """Logs the numbers of a row at its step."""
        self._run.log(interface.numbers(row), step=row["step"])

    def file(self, path: pathlib.Path) -> None:
        """Logs a picture, or another file as an artifact."""
        if path.suffix in interface.PICTURES:
            self._run.log({path.stem: self._module.Image(str(path))})
        else:
            name = f"{self._run.name}-{path.name}".replace("/", "-")
            self._run.log_artifact(str(path), name=name, type="result")

    def end(self, ending: str) -> None:
        """Waits until trackio has written everything."""
        self._run.finish()
