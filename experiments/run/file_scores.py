"""Scores embeddings that are in files, anybody's, each beside those of the first file."""

import pathlib
from collections.abc import Sequence

import numpy as np
import rich.console
import rich.table

from experiments.config import column_pairs, naming
from experiments.run import score_table
from experiments.run.rankings import Ranking
from triplet_jax import errors, evaluation
from triplet_jax.evaluation import comparison, embedding_files, retrieval_metrics
from triplet_jax.evaluation.embedding_files import Embedded
from triplet_jax.runs import files

# The rows of the table: where the result holds each number.
SHOWN = {
    "MAP@R": ("retrieval", "map_at_r"),
    "mAP": ("retrieval", "map"),
    "mAP, classes alike": ("retrieval_over_classes", "map"),
    "P@1": ("retrieval", "precision_at_1"),
    "Recall@4": ("retrieval", "recall_at_4"),
    "Recall@8": ("retrieval", "recall_at_8"),
    "nDCG@8": ("retrieval", "ndcg_at_8"),
    "MRR": ("retrieval", "mrr"),
    "mINP": ("retrieval", "minp"),
    "ROC AUC": ("verification", "roc_auc"),
    "TAR at FAR 1e-3": ("verification", "tar_at_far_1e-3"),
    "NMI": ("clustering", "nmi"),
}
COMPARED = ("MAP@R", "mAP", "P@1")


def evaluate_files(
    paths: list[str],
    split: str,
    output: pathlib.Path | None,
    *,
    table: str = "",
    ignore: Sequence[str] = (),
    ranking: Ranking | None = None,
) -> dict:
    """Scores the embeddings of each file, and compares each with the first, query by query.

    Prints a table, and writes all numbers into `output`.

    Args:
      paths: of .npz and .parquet files, which `embedding_files.read` describes.
      split: which rows to score, where a file tells splits apart.
      output: a .json file; None for none.
      table: a file that says more of the rows of all files; "" for none.
      ignore: the columns of the table, as `column_pairs.parse` reads them, by which a query leaves
        out references of its label.
      ranking: how references are ranked; None by their distances.

    Returns:
      What the file holds.

    Raises:
      InputError: a file cannot be read, the files hold other examples, or they do not fit the
        ranking.
    """
    if len(set(paths)) < len(paths):
        raise errors.InputError(f"--embeddings names a file twice: {', '.join(paths)}.")
    flags = {"path": "--embeddings", "table": "--table", "ignore": "--ignore"}
    columns = column_pairs.parse("--ignore", ignore)
    with naming.rewriting(lambda message: errors.renamed(message, flags)):
        read = {
            path: embedding_files.read(path, split=split, table=table, ignore=columns)
            for path in paths
        }
    first = paths[0]
    for path in paths[1:]:
        embedding_files.check_comparable(read[first], read[path], (first, path))
    ranking = ranking or Ranking()
    of_queries, scores = {}, {}
    for path, embedded in read.items():
        search = ranking.search(embedded, path)
        of_queries[path], labels = _of_queries(search), search["labels"]
        scores[path] = _scores(embedded, search, of_queries[path], ranking)
    result = {
        "protocol": protocol(read[first], split, ranking, ignore),
        "files": scores,
        "less_the_first": {
            path: {
                score: comparison.over_classes(
                    of_queries[path][score] - of_queries[first][score], labels
                )._asdict()
                for score in (SHOWN[name][1] for name in COMPARED)
            }
            for path in paths[1:]
        },
    }
    if output is not None:
        files.write_json(output, result)
    _show(result, output)
    return result


def _of_queries(search):
    return evaluation.retrieval_of_queries(**search, whole_ranking=True)


def _scores(embedded, search, of_queries, ranking):
    retrieval = evaluation.retrieval(**search, whole_ranking=True)
    found = {
        "retrieval": retrieval,
        "retrieval_over_classes": retrieval | _over_classes(search["labels"], of_queries),
    }
    # Pairs and clusters are of rows, as they are.
    if embedded.has_gallery or ranking != Ranking():
        return found
    return found | {
        "verification": evaluation.verification(embedded.embeddings, embedded.labels),
        "clustering": evaluation.clustering(embedded.embeddings, embedded.labels),
    }


def _over_classes(labels, of_queries):
    counted = ~np.isnan(of_queries["map"])
    if not counted.any():
        return {}
    scores = {name: score[counted] for name, score in of_queries.items()}
    return retrieval_metrics.mean_of_queries(scores, labels[counted], "classes")


def protocol(
    embedded: Embedded, split: str, ranking: Ranking | None = None, ignore: Sequence[str] = ()
) -> dict[str, str]:
    """Describes, for a reader of the result, what each number was measured on."""
    ranking = ranking or Ranking()
    what, names = "rows", np.arange(len(embedded.labels))
    if ranking.items:
        what, names = "items", embedded.items
    queries, references = (
        len(np.unique(names[rows])) for rows in (embedded.is_query, embedded.is_gallery)
    )
    searched = (
        f"{queries} queries search {references} references"
        if embedded.has_gallery
        else f"each of {queries} {what} searches all others"
    )
    classes = len(np.unique(embedded.labels[embedded.is_query]))
    left_out = "the query itself"
    if embedded.groups is not None:
        agree = f" that agree with it in {', '.join(ignore)}" if ignore else " and group"
        left_out += f", and references of its own label{agree}"
    measured = "; ".join(("Euclidean", *ranking.steps()))
    return {
        "retrieval": f"{searched}; {measured}; ties count against the query",
        "classes": f"{classes} classes of queries",
        "left_out": left_out,
        "split": f"rows of the split {split!r}, where the file tells splits apart",
        "intervals": "95%, by 2,000 draws of whole classes",
    }


def _show(result, output):
    scores = result["files"]
    table = rich.table.Table("", *scores, title=result["protocol"]["retrieval"])
    for name, (part, score) in SHOWN.items():
        cells = [found.get(part, {}).get(score) for found in scores.values()]
        if any(cell is not None for cell in cells):
            table.add_row(name, *("-" if cell is None else f"{cell:.3f}" for cell in cells))
    rich.console.Console().print(table)
    for path, less_the_first in result["less_the_first"].items():
        for name in COMPARED:
            found = less_the_first[SHOWN[name][1]]
            print(
                f"{name} of {path} less that of {next(iter(scores))}: {found['mean']:+.3f}"
                f" ({found['low']:+.3f} to {found['high']:+.3f})"
            )
    score_table.report_queries(next(iter(scores.values()))["retrieval"])
    if output is not None:
        print(f"written to {output}")
