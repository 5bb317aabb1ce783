"""The table of scores, and what it reports about the queries."""

from experiments.run import score_table

COUNTS = {"references_ignored": 0, "queries_without_positives": 0, "queries_among_references": 0}


def scores(map_at_r, **more):
    retrieval = dict.fromkeys(("r_precision", "precision_at_1", "recall_at_8"), 0.5)
    return {"retrieval": retrieval | {"map_at_r": map_at_r} | more}


def test_first_values_are_scored_below_and_whole_rankings_above():
    result = {
        "embedding": scores(0.75, map=0.625, minp=0.25),
        "raw_pixels": scores(0.5, map=0.375, minp=0.125),
        "nested": {"2": {"map_at_r": 0.25}, "4": {"map_at_r": 0.5}},
    }
    names, rows = score_table.rows(result)
    assert names == ["embedding", "raw pixels"]
    assert rows[:3] == [
        ("mAP", "0.625", "0.375"),
        ("mINP", "0.250", "0.125"),
        ("MAP@R", "0.750", "0.500"),
    ]
    assert rows[-2:] == [("MAP@R, 2 values", "0.250"), ("MAP@R, 4 values", "0.500")]


def test_queries_that_do_not_count_are_said(capsys):
    score_table.report_queries(COUNTS)
    assert capsys.readouterr().out == ""
    score_table.report_queries(COUNTS | {"queries_without_positives": 1234})
    assert capsys.readouterr().out == "1,234 queries have no match and do not count\n"
    score_table.report_queries({**dict.fromkeys(COUNTS, 1), "queries_among_references": 0})
    assert capsys.readouterr().out == (
        "1 pair of a query and a reference of its label and group was left out\n"
        "1 query has no match and does not count\n"
    )
