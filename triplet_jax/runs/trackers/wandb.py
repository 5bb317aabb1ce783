"""Weights & Biases: files in the folder `wandb` of a run, or an account by WANDB_MODE=online."""

import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

from triplet_jax.runs.row_files import Row
from triplet_jax.runs.trackers import interface


class WandB:
    """Writes a run of Weights & Biases, in the project WANDB_PROJECT or "triplet_jax".

    It is offline unless WANDB_MODE says otherwise, since a program without an account would be
    asked for a key. `wandb sync` sends what was written offline; all parts of a run that was
    continued have one id.
    """

    package = "wandb"

    def __init__(self, place: interface.Place):
        self._module = interface.needed(self.package, "wandb")
        number = place.known.get("run") or secrets.token_hex(4)
        self._run = self._module.init(
            project=os.environ.get("WANDB_PROJECT") or interface.PROJECT,
            group=place.group or None,
            name=place.name,
            id=number,
            resume="allow",
            dir=str(place.folder),
            mode=os.environ.get("WANDB_MODE") or "offline",
            reinit="create_new",  # runs of one process that are trained together
            settings=self._module.Settings(silent=True, console="off"),
        )
        self.known = {"run": number}

    def config(self, values: Mapping[str, Any]) -> None:
        """Sets the fields of the run's config."""
        self._run.config.update(dict(values), allow_val_change=True)

    def write(self, row: Row) -> None:
        """Logs the numbers of a row at its step."""
        self._run.log(interface.numbers(row), step=row["step"])

    def file(self, path: pathlib.Path) -> None:
        """Saves a file with the run, and shows a picture."""
        if path.suffix in interface.PICTURES:
            self._run.log({path.stem: self._module.Image(str(path))})
        else:
            # A copy: wandb would link to the original, with a warning.
            copy = shutil.copy(path, self._run.dir)
            self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def end(self, ending: str) -> None:
        """Finishes the run."""
        self._run.finish(exit_code=int(ending == "failed"))
