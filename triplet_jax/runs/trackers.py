"""Trackers, which show the metrics of a run elsewhere: TensorBoard."""

import pathlib

from triplet_jax import errors
from triplet_jax.runs.row_files import Row


class TensorBoard:
    """Writes rows of metrics for TensorBoard.

    Args:
      folder: the folder of the event files.
      last_step: TensorBoard hides earlier rows after this step, since a run that goes on writes
        them again.

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
        """Adds the numbers of a row at its step."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._writer.close()
