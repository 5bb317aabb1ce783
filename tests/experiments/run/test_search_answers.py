"""The tables that a search prints, and the pictures that it draws."""

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from experiments.run import search_answers, sheets
from tests.experiments.run.test_galleries import paint
from triplet_jax.data import images


@pytest.fixture
def files(tmp_path):
    """Eight images in two class folders."""
    found = [tmp_path / "images" / ("light" if i > 3 else "dark") / f"{i}.png" for i in range(8)]
    for i, file in enumerate(found):
        paint(file, 30 * i)
    return found


def answers(files, queries, neighbours=2):
    """The first files, as the neighbours of every query."""
    rows = pd.DataFrame(
        {
            "path": list(map(str, files[:neighbours])),
            "label": "$a_b",
            "distance": np.arange(neighbours) / 8,
        }
    )
    return search_answers.as_table(queries, [rows] * len(queries), None)


def test_a_sheet_shows_all_queries_on_several_pictures(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheets, "_ROWS_OF_SHEET", 3)
    sheet = tmp_path / "sheet.png"
    search_answers.draw(answers(files, files), images.ImageForm(size=8, channels=3), sheet)
    heights = []
    for name in ("sheet.png", "sheet-2.png", "sheet-3.png"):
        with PIL.Image.open(tmp_path / name) as picture:
            heights.append(picture.size[1] / 182)
    assert [round(height) for height in heights] == [3, 3, 2]
    assert "sheet-3.png" in capsys.readouterr().out


def test_few_queries_get_a_table_each_and_many_share_one(files, tmp_path, capsys):
    folder = tmp_path / "images"
    assert search_answers.show(answers(files, files[:2]), folder)
    printed = capsys.readouterr().out
    assert printed.count("nearest to") == 2 and "0.125" in printed
    assert not search_answers.show(answers(files, files), folder)
    printed = capsys.readouterr().out
    assert f"nearest to each of 8 queries of {folder} in {folder}" in printed
    assert printed.count("0.125") == 1  # of the query whose nearest image is itself
    assert printed.count("$a_b") == 8
