"""Trackers that show the rows of a run elsewhere, such as TensorBoard."""

import pathlib

from triplet_jax import errors
from triplet_jax.runs.row_files import Row


class TensorBoard:
    """The same rows for TensorBoard.

    Args:
      folder: of the event files.
      last_step: rows after it are hidden; a run that goes on writes them again.

    Raises:
      InputError: tensorboardX is not installed.
    """

    def __init__(self, folder: pathlib.Path, *, last_step: int):
        try:
            import tensorboardX
        except ImportError as error:
            raise errors.InputError(
                "TensorBoard needs tensorboardX: pip install tensorboardX."
            ) from error
        self._writer = tensorboardX.SummaryWriter(
            str(folder), purge_step=last_step + 1 if last_step else None
        )

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()
