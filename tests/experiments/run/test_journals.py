import ml_collections

from configs import digits
from experiments.run import journals
from triplet_jax.runs import row_files


def make(**fields):
    config = digits.get_config("semi_hard")
    config.update_from_flattened_dict({"log.every": 2, "evaluate.every": 4} | fields)
    return ml_collections.FrozenConfigDict(config)


def write(path, rows):
    file = row_files.RowFile(path, last_step=0)
    for row in rows:
        file.write(row)
    file.close()


def reopened(workdir, name, **settings):
    settings = {"first_step": 4, "validates": True} | settings
    file = journals.open_rows(make(), workdir, name, **settings)
    file.close()
    return [row["step"] for row in file.rows]


def test_rows_after_the_step_that_a_run_goes_on_from_are_written_again(tmp_path, capsys):
    rows = [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 1.0, "validation/map_at_r": 0.5}]
    write(tmp_path / "metrics.jsonl", [*rows, {"step": 6, "loss": 1.0}])
    assert reopened(tmp_path, "metrics") == [2, 4]
    assert "damaged" not in capsys.readouterr().out


def test_rows_that_a_file_has_lost_are_reported(tmp_path, capsys):
    write(tmp_path / "metrics.jsonl", [{"step": 4, "loss": 1.0}])
    reopened(tmp_path, "metrics")
    said = capsys.readouterr().out
    assert "lost the row with 'loss' of step 2" in said
    assert "lost the row with 'validation/map_at_r' of step 4" in said
    reopened(tmp_path, "metrics", validates=False)
    assert "map_at_r" not in capsys.readouterr().out


def test_a_file_of_telemetry_has_a_row_of_every_so_many_steps(tmp_path, capsys):
    write(tmp_path / "telemetry.jsonl", [{"step": 50}])
    assert reopened(tmp_path, "telemetry", first_step=100) == [50]
    assert "lost the row with 'step' of step 100" in capsys.readouterr().out
