"""The page of a sweep: it opens without a network, and draws and prints all it has."""

import re
import shutil

import pytest

from experiments.sweeps import outcome, report_page
from tests.support import browser, programs


def test_a_folder_without_a_sweep_has_no_report(tmp_path):
    done = programs.run("report", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "holds no sweep" in done.stderr


def test_the_page_needs_no_network(vectorised):
    _, workdir, _ = vectorised
    text = (workdir / "report.html").read_text()
    outside = text[: text.index("<script>")]
    assert not re.search(r"(src|href)=", outside)
    for part in ("Any arm is better", "Scores", "The best of many", "Collapses", "What differs"):
        assert part in text
    assert "loss.margin = 0.5" in text


def test_text_of_a_run_cannot_become_a_script(vectorised):
    found = outcome.read(vectorised[1])
    evil = "</script><script>alert(1)</script>"
    found.sweep["claim"] = evil
    for table in (found.curves, found.runs, found.summary):
        table["arm"] = table.arm.replace("margin", evil)
    found.sweep["arms"] = [
        [evil if name == "margin" else name, fields] for name, fields in found.sweep["arms"]
    ]
    assert "<script>alert" not in report_page.render(found)


@browser.needed
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs pdftotext to read the print")
def test_a_print_of_the_page_has_the_whole_table(vectorised, tmp_path):
    found = outcome.read(vectorised[1])
    long = "a_curriculum_whose_name_is_as_long_as_people_make_them"
    for table in (found.curves, found.runs, found.summary):
        table["arm"] = table.arm.replace("margin", long)
    found.sweep["reference"] = long
    found.sweep["arms"] = [[long if n == "margin" else n, f] for n, f in found.sweep["arms"]]
    found.summary["seconds"] = 12345.6
    text = browser.printed(report_page.render(found), tmp_path)
    assert text.count("12345.6") == len(found.summary)
    assert re.search("seconds a *run|seconds", text)


@browser.needed
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_the_page_draws_every_plot_in_a_browser(vectorised, tmp_path, scheme):
    _, workdir, _ = vectorised
    text = (workdir / "report.html").read_text()
    plots = len(re.findall(r'class="plot"', text))
    assert plots >= 2 * 7
    script = """
  const drawn = [...document.querySelectorAll(".plot")].filter(
    p => p.querySelector("svg.main-svg") && p.getBoundingClientRect().height > 100).length;
  const box = document.querySelector("input[data-arm='margin']");
  box.click();
  const hidden = [...document.querySelectorAll("tr[data-row-arm='margin']")].every(r => r.hidden);
  const ink = getComputedStyle(document.body).color;
  return {drawn, hidden, ink};"""
    found = browser.look(text, script, tmp_path, dark=scheme == "dark")
    assert found["drawn"] == plots
    assert found["hidden"]
    assert found["ink"] == ("rgb(232, 232, 232)" if scheme == "dark" else "rgb(27, 27, 27)")
