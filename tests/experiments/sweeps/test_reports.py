"""The reports of a sweep compare arms as scipy does, and all show the same numbers."""

import dataclasses
import html
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.sweeps import arm_comparison, report_page, summary
from experiments.sweeps.outcome import Outcome
from triplet_jax.evaluation import comparison

ARMS = ("semi_hard", "margin", "curriculum")
SETTINGS = ("clean", "noisy")
SEEDS = range(5)


def outcome(raw_pixels=0.6):
    """A finished sweep, in which one run collapsed and failed."""
    random = np.random.default_rng(0)
    sweep = {
        "arms": [[arm, {"loss.margin": 0.1}] for arm in ARMS],
        "settings": [[setting, {}] for setting in SETTINGS],
        "seeds": [*SEEDS],
        "reference": "semi_hard",
        "metric": "map_at_r",
        "best_of": ["margin", "curriculum"],
        "claim": "",
        "source": "",
    }
    rows = [
        {
            "name": f"{setting} {arm} seed {seed}",
            "setting": setting,
            "arm": arm,
            "seed": seed,
            "state": "done",
            "score": 0.8 + 0.02 * ARMS.index(arm) + 0.01 * random.normal(),
            "validation": 0.9,
            "raw_pixels": raw_pixels,
            "steps": 60,
            "collapsed_at": np.nan,
            "seconds": 10.0 + seed,
            "error": "",
        }
        for setting in SETTINGS
        for arm in ARMS
        for seed in SEEDS
    ]
    rows[-1] |= {"state": "failed", "score": np.nan, "collapsed_at": 20.0, "error": "not finite"}
    runs = pd.DataFrame(rows)
    curves = runs[["setting", "arm", "seed"]].assign(step=60, loss=0.5)
    compared, best = (f(runs, sweep) for f in (arm_comparison.compare, arm_comparison.best_of))
    return Outcome(sweep=sweep, runs=runs, curves=curves, summary=compared, best_of=best)


def test_arms_are_compared_by_the_paired_t_test_over_the_seeds_that_both_have():
    found = outcome()
    for row in found.summary.to_dict("records"):
        here = found.runs[(found.runs.setting == row["setting"]) & (found.runs.state == "done")]
        scores = here.pivot(index="seed", columns="arm", values="score")
        own = scores[row["arm"]].dropna()
        assert row["map_at_r"] == pytest.approx(own.mean())
        low, high = scipy.stats.t.interval(0.95, len(own) - 1, own.mean(), scipy.stats.sem(own))
        assert (row["ci95_low"], row["ci95_high"]) == pytest.approx((low, high))
        if row["arm"] == "semi_hard":
            assert np.isnan(row["p_value"])
            continue
        both = scores[[row["arm"], "semi_hard"]].dropna()
        lacks_one = (row["setting"], row["arm"]) == ("noisy", "curriculum")
        assert row["pairs"] == len(both) == (4 if lacks_one else 5)
        expected = scipy.stats.ttest_rel(both[row["arm"]], both["semi_hard"]).pvalue
        assert row["p_value"] == pytest.approx(expected)
        differences = (both[row["arm"]] - both["semi_hard"]).to_numpy()
        assert row["detectable"] == comparison.detectable(differences)


def test_all_p_values_are_corrected_together():
    found = outcome().summary
    p, corrected = found.p_value.dropna(), found.p_holm.dropna()
    assert len(p) == len(corrected) == 4
    assert corrected.min() == pytest.approx(4 * p.min())
    assert (corrected >= p).all()


def cells_of_page(page):
    """The cells of each row in the table of the page."""
    rows = re.findall(r"<tr data-row-arm.*?</tr>", page)
    return [[html.unescape(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]


def _expected(p):
    if np.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def test_the_page_the_document_and_the_screen_show_the_same_numbers(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    found = outcome()
    summary.show(found)
    printed, document = capsys.readouterr().out, summary.markdown(found)
    page = report_page.render(found)
    cells = cells_of_page(page)
    assert len(cells) == len(found.summary) == 6
    tables = [row for table in summary.tables(found) for row in table.rows]
    for row, of_page, of_table in zip(found.summary.to_dict("records"), cells, tables, strict=True):
        setting, arm, runs, score, difference, p, p_holm, collapsed, failed, seconds = of_page
        assert (setting, arm, int(runs)) == (row["setting"], row["arm"], row["runs"])
        half = (row["ci95_high"] - row["ci95_low"]) / 2
        assert score == f"{row['map_at_r']:.3f} ± {half:.3f}"
        assert of_table[:4] == [arm, score, difference, p_holm]
        assert f"| {arm} | {score} | {difference} | {p_holm} |" in document
        (line,) = [line for line in printed.splitlines() if score in line]
        assert all(cell in line for cell in (arm, difference, p_holm))
        assert p == _expected(row["p_value"]) and p_holm == _expected(row["p_holm"])
        assert seconds == f"{row['seconds']:.1f}"
        has_failed = (row["setting"], row["arm"]) == ("noisy", "curriculum")
        assert (collapsed, failed) == (
            ("1 of 5 (0.04 to 0.62)", "1 of 5") if has_failed else ("", "")
        )
        assert of_table[4:] == ([collapsed, failed] if row["setting"] == "noisy" else [])
    for text in (page, document, printed):
        assert "raw pixels" in text.lower() and "0.600" in text
        for line in [*summary.power(found), *summary.best_of(found)]:
            assert line in html.unescape(text)
        assert "noisy curriculum seed 4: not finite" in text


def test_a_sweep_on_pairs_has_no_score_of_raw_pixels(capsys):
    found = outcome(raw_pixels=np.nan)
    summary.show(found)
    texts = capsys.readouterr().out, summary.markdown(found)
    assert not any("raw pixels" in text or "nan" in text for text in texts)
    assert "Raw pixels:" not in report_page.render(found)


def test_the_page_of_runs_whose_metrics_are_gone_has_their_scores_and_times():
    found = dataclasses.replace(outcome(), curves=pd.DataFrame())
    plots = report_page._plots(found, "noisy", dict.fromkeys(ARMS, "#000000"))
    titles = [plot.title[:20] for plot in plots]
    assert titles == ["map_at_r on the test", "Paired difference to", "Wall time of a run, "]


def test_names_of_arms_are_whole_on_a_narrow_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found, long = outcome(), "anti_curriculum_of_margins"
    found.summary["arm"] = found.summary.arm.replace("margin", long)
    summary.show(found)
    assert capsys.readouterr().out.count(f"│ {long} │") == len(SETTINGS)


def test_runs_that_have_not_ended_count_in_no_share():
    whole = outcome()
    runs = whole.runs.copy()
    of_margin = (runs.arm == "margin") & (runs.setting == "clean")
    runs.loc[of_margin, ["state", "collapsed_at", "score"]] = ["training", 20.0, np.nan]
    compared = arm_comparison.compare(runs, whole.sweep)
    (arm,) = compared[(compared.arm == "margin") & (compared.setting == "clean")].to_dict("records")
    assert summary.as_text(arm, "map_at_r")["collapsed"] == ""


def test_an_error_is_shown_as_it_is(capsys):
    found = outcome()
    found.runs.loc[found.runs.state == "failed", "error"] = "at [batch, dim]:\nshapes [/x]"
    summary.show(found)
    assert "at [batch, dim]:; shapes [/x]" in capsys.readouterr().out


def test_where_no_arm_has_a_score_there_is_no_best():
    runs = outcome().runs.assign(score=np.nan)
    assert not len(arm_comparison.best_of(runs, outcome().sweep))


def test_power_says_of_which_arms_it_speaks():
    whole = outcome()
    runs = whole.runs.copy()
    few = (runs.arm == "margin") & (runs.seed > 0)
    runs.loc[few, "state"] = "waiting"
    compared = arm_comparison.compare(runs, whole.sweep)
    found = Outcome(whole.sweep, runs, whole.curves, compared, whole.best_of)
    assert all("any arm with two or more seeds" in line for line in summary.power(found))
