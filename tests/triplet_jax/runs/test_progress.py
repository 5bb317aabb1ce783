"""The plain lines of progress where there is no terminal, and the bar where there is one."""

import functools

import rich.console

from triplet_jax.runs.progress import Progress


def test_plain_lines_tell_the_numbers_the_speed_and_what_is_said(capsys):
    progress = Progress(steps=100, first_step=0, batch=10, seconds_between_lines=0.0)
    progress.update({"step": 50, "loss": 0.25, "active_fraction": 0.5})
    progress.say("a line")
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("step 50/100  loss 0.2500  active 50.0%")
    assert "img/s" in lines[1]
    assert "ETA" in lines[1]
    assert lines[2] == "a line"


def test_there_is_no_speed_where_no_step_was_timed(capsys):
    progress = Progress(steps=100, first_step=0, batch=10, seconds_between_lines=0.0)
    progress.restart_clock(1)
    assert progress.update({"step": 1, "loss": 0.25}) == {}
    assert progress.update({"step": 2, "loss": 0.25})["images_per_second"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "step 1/100  loss 0.2500"
    assert lines[2].startswith("step 2/100  loss 0.2500  ")


def test_nothing_is_compiled_where_no_step_is_left(capsys, monkeypatch):
    Progress(steps=100, first_step=100, batch=10, is_over=True).close()
    assert capsys.readouterr().out == ""
    terminal = functools.partial(rich.console.Console, force_terminal=True, width=99)
    monkeypatch.setattr(rich.console, "Console", terminal)
    Progress(steps=100, first_step=100, batch=10, is_over=True).close()
    said = capsys.readouterr().out
    assert "step 100/100" in said and "compiling" not in said


def test_a_terminal_has_a_bar_below_what_is_said(capsys, monkeypatch):
    terminal = functools.partial(rich.console.Console, force_terminal=True, width=99)
    monkeypatch.setattr(rich.console, "Console", terminal)
    progress = Progress(steps=100, first_step=25, batch=10)
    assert "step 25/100  compiling" in capsys.readouterr().out
    progress.update({"step": 50, "loss": 0.25})
    progress.say("a line of 7 words, none of them red")
    progress.close()
    said = capsys.readouterr().out
    assert "a line of 7 words, none of them red" in said  # in one colour
    assert "step 50/100  loss 0.2500" in said.partition("none of them red")[2]
    assert not progress._bar.live.is_started
