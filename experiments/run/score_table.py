"""The table of scores that an evaluation prints."""

import pathlib

import rich.console
import rich.table

# The rows of the table: where result.json holds each number.
SHOWN = {
    "MAP@R": ("retrieval", "map_at_r"),
    "R-precision": ("retrieval", "r_precision"),
    "P@1": ("retrieval", "precision_at_1"),
    "Recall@8": ("retrieval", "recall_at_8"),
    "1-shot": ("few_shot_1", "accuracy"),
    "5-shot": ("few_shot_5", "accuracy"),
    "1-shot within group": ("few_shot_1_within_group", "accuracy"),
    "ROC AUC": ("verification", "roc_auc"),
    "EER": ("verification", "eer"),
    "TAR at FAR 1e-3": ("verification", "tar_at_far_1e-3"),
    "NMI": ("clustering", "nmi"),
    "AMI": ("clustering", "ami"),
}
# And of whole rankings, which a protocol with queries and gallery asks for.
SHOWN_OF_RANKINGS = {"mAP": ("retrieval", "map"), "mINP": ("retrieval", "minp")}
# The k of each Recall@k in the table of a run on pairs.
SHOWN_OF_PAIRS = (1, 5, 10)


def show(result: dict, workdir: pathlib.Path) -> None:
    """Prints the scores beside those of the raw inputs; for pairs, beside chance.

    Args:
      result: what `result.json` holds.
      workdir: of the run.
    """
    names, scores = rows(result)
    table = rich.table.Table("", *names, title=result["protocol"]["test"])
    for row in scores:
        table.add_row(*row)
    rich.console.Console().print(table)
    print(f"{result['protocol']['checkpoint']}; written to {workdir / 'result.json'}")


def rows(result: dict) -> tuple[list[str], list[tuple[str, ...]]]:
    """The names of the columns, and rows of a score's name and its values in them.

    Args:
      result: what `result.json` holds.
    """
    names, found = _of_pairs(result) if "chance" in result else _of_examples(result)
    for dim, short in result.get("nested", {}).items():
        # Of the embedding, which stands first.
        found.append((f"MAP@R, {dim} values", _number(short, "map_at_r")))
    return names, found


def report_queries(counts: dict[str, int | float]) -> None:
    """Prints what a reader of the scores has to know about the queries."""
    if ignored := counts["references_ignored"]:
        pairs, were = ("pair", "was") if ignored == 1 else ("pairs", "were")
        print(
            f"{ignored:,} {pairs} of a query and a reference of its label and group {were} left out"
        )
    if alone := counts["queries_without_positives"]:
        queries, have, do = ("query", "has", "does") if alone == 1 else ("queries", "have", "do")
        print(f"{alone:,} {queries} {have} no match and {do} not count")
    if counts["queries_among_references"]:
        print(
            f"{counts['queries_among_references']:,} of {counts['queries']:,} queries found"
            " themselves: an equal row with their label is among the references, which every"
            " embedding finds first. Take these rows out of the references, or leave them out by"
            " groups."
        )


def _of_pairs(result):
    ways = {way.replace("_", " "): result["embedding"][way] for way in result["embedding"]}
    del ways["retrieval"]
    parts = (*ways.values(), result["chance"])
    scores = [
        (f"Recall@{k}", *(_number(part, f"recall_at_{k}") for part in parts))
        for k in SHOWN_OF_PAIRS
    ]
    return [*ways, "chance"], scores


def _of_examples(result):
    columns = [x for x in ("embedding", "frozen_features", "raw_pixels") if x in result]
    scores = []
    shown = SHOWN
    if "map" in result["embedding"]["retrieval"]:
        shown = SHOWN_OF_RANKINGS | SHOWN
    for name, (part, metric) in shown.items():
        if part in result["embedding"]:
            found = [result[column].get(part, {}) for column in columns]
            if part.startswith("few_shot"):
                name = f"{found[0]['ways']}-way {name}"
            scores.append((name, *(_number(of_column, metric) for of_column in found)))
    return [column.replace("_", " ") for column in columns], scores


def _number(part, metric):
    if part.get(metric) is None:  # the examples could not tell it
        return "-"
    interval = f" ± {part['ci95']:.3f}" if "ci95" in part else ""
    return f"{part[metric]:.3f}{interval}"
