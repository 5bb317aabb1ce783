"""Tables of results, as .csv or .parquet by the ending of their name."""

import pathlib

import pandas as pd

from experiments import command
from triplet_jax.runs import files


def file_to_write() -> pathlib.Path | None:
    """The file of --output; None where none is asked for.

    Raises:
      InputError: it has another ending, or its folder does not exist.
    """
    if not command.OUTPUT.value:
        return None
    return command.file_to_write(command.OUTPUT, ".csv", ".parquet")


def write(path: pathlib.Path, table: pd.DataFrame) -> None:
    """Writes a table, whole or not at all.

    Raises:
      OSError: the file cannot be written.
    """
    with files.whole_file(path) as file:
        if path.suffix == ".parquet":
            table.to_parquet(file, index=False)
        else:
            table.to_csv(file, index=False)
