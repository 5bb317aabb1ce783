"""TensorBoard: event files in the folder `tensorboard` of a run."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from triplet_jax.runs import files
from triplet_jax.runs.row_files import Row
from triplet_jax.runs.trackers import interface


class TensorBoard:
    """Writes event files. It hides earlier rows after the step from which a run goes on."""

    package = "tensorboardX"

    def __init__(self, place: interface.Place):
        self._module = interface.needed(self.package, "tensorboard")
        self._folder, self._last_step = place.folder / "tensorboard", place.last_step
        self._made = None
        self.known: dict[str, str] = {}

    @property
    def _writer(self):
        # Made late, so that a folder for which there is nothing to write gets no empty file.
        if self._made is None:
            purge = self._last_step + 1 if self._last_step else None
            self._made = self._module.SummaryWriter(str(self._folder), purge_step=purge)
        return self._made

    def config(self, values: Mapping[str, Any]) -> None:
        """Shows the fields as a text."""
        lines = "".join(f"    {name}: {files.as_json(value)}\n" for name, value in values.items())
        self._writer.add_text("config", lines, self._last_step)

    def write(self, row: Row) -> None:
        """Adds the numbers of a row at its step."""
        for name, value in interface.numbers(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def file(self, path: pathlib.Path) -> None:
        """Shows a picture; TensorBoard has no place for other files."""
        if path.suffix in interface.PICTURES:
            import PIL.Image

            with PIL.Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image(path.name, pixels, self._last_step, dataformats="HWC")

    def end(self, ending: str) -> None:
        """Writes what is left and closes the files."""
        if self._made is not None:
            self._made.close()
