import json

from triplet_jax import logging


def test_rows_after_the_checkpoint_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = logging.RowFile(path, last_step=0)
    for step in (10, 20, 30):
        rows.write({"step": step, "loss": step / 100})
    rows.close()
    again = logging.RowFile(path, last_step=20)
    again.write({"step": 30, "loss": 0.3})
    again.close()
    assert [row["step"] for row in logging.read_rows(path)] == [10, 20, 30]
    assert again.rows == logging.read_rows(path)


def test_a_half_written_last_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in logging.read_rows(path)] == [1, 2]


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "result.json"
    logging.write_json(path, {"a": 1})
    logging.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_tensorboard_gets_the_rows(tmp_path):
    writer = logging.TensorBoard(tmp_path, last_step=0)
    writer.write({"step": 1, "loss": 0.5})
    writer.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 50


def test_progress_prints_plain_lines_where_there_is_no_terminal(capsys):
    progress = logging.Progress(steps=100, first_step=0, batch=10, seconds_between_lines=0.0)
    progress.update({"step": 50, "loss": 0.25, "active_fraction": 0.5})
    progress.say("a line")
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("step 50/100  loss 0.2500  active 50.0%")
    assert "img/s" in lines[1]
    assert "ETA" in lines[1]
    assert lines[2] == "a line"
