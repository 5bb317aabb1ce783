"""Sheets of images: rows of small pictures, on as many pages as they need."""

import pathlib
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from triplet_jax.analysis import plots

_ROWS_OF_SHEET = 20


def draw(
    rows: int,
    row: Callable[[int], list[tuple[np.ndarray, str, str]]],
    sheet: pathlib.Path,
) -> None:
    """Draws rows of images; many rows need several pictures.

    Args:
      rows: how many.
      row: makes a row, by its number, as `plots.contact_sheet` takes it.
      sheet: the first picture; the names of further ones end in a number.
    """
    written = []
    for start in range(0, rows, _ROWS_OF_SHEET):
        page = start // _ROWS_OF_SHEET + 1
        written.append(sheet.with_stem(f"{sheet.stem}-{page}") if start else sheet)
        some = range(start, min(start + _ROWS_OF_SHEET, rows))
        figure = plots.contact_sheet([row(number) for number in some])
        plots.write(figure, written[-1])
        plt.close(figure)
    more = f" to {written[-1]}" if len(written) > 1 else ""
    print(f"written to {sheet}{more}")
