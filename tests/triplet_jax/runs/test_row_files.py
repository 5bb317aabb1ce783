"""Files of rows: what a run that goes on keeps, and what damage has lost."""

import json

import pytest

from triplet_jax.runs import row_files


def test_rows_after_the_checkpoint_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = row_files.RowFile(path, last_step=0)
    for step in (10, 20, 30):
        rows.write({"step": step, "loss": step / 100})
    rows.close()
    again = row_files.RowFile(path, last_step=20)
    again.write({"step": 30, "loss": 0.3})
    again.close()
    assert [row["step"] for row in row_files.read_rows(path)] == [10, 20, 30]
    assert again.rows == row_files.read_rows(path)


EVERY = {"loss": 10, "validation/score": 30}


def whole_file(path):
    rows = [{"step": step, "loss": 0.1} for step in range(10, 71, 10)]
    rows += [{"step": step, "validation/score": 0.5} for step in (30, 60)]
    rows.sort(key=lambda row: row["step"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_of_a_whole_file_nothing_is_said(tmp_path, capsys):
    path = whole_file(tmp_path / "metrics.jsonl")
    for last_step in (65, 30, 0):
        row_files.RowFile(path, last_step=last_step, every=EVERY).close()
        assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: text.index("30")], "has lost 4 rows with 'loss', of steps 30 to 60"),
        (
            lambda text: text.replace("validation", "valid", 1),
            "has lost the row with 'validation/score' of step 30.",
        ),
        (lambda text: "", "has lost 6 rows with 'loss', of steps 10 to 60"),
    ],
)
def test_rows_that_a_damaged_file_has_lost_are_said(change, words, tmp_path, capsys):
    path = whole_file(tmp_path / "metrics.jsonl")
    path.write_text(change(path.read_text()))
    row_files.RowFile(path, last_step=60, every=EVERY).close()
    said = capsys.readouterr().out
    assert said.startswith(f"warning: {path} is damaged: ")
    assert words in said


def test_a_half_written_last_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in row_files.read_rows(path)] == [1, 2]
