"""How queries change from one run to another: which got better, and which got worse."""

import numpy as np
import pandas as pd

from triplet_jax import arguments, errors, evaluation


def changes(
    before: arguments.Embeddings,
    after: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    score: str = "map_at_r",
) -> pd.DataFrame:
    """Scores every example as a query of either run, and how its score changes.

    Args:
      before: the embeddings of one run, `[examples, dim]`.
      after: those of the other run, of the same examples in the same order.
      labels: the classes of the examples.
      score: one of the scores of `evaluation.retrieval_of_queries`.

    Returns:
      A row for each example with `label`, `before`, `after` and `change`, sorted from the worst
      change to the best.

    Raises:
      InputError: the runs have different numbers of examples, the labels have the wrong shape or
        type, or there is no such score.
    """
    if not len(before) == len(after) == len(labels):
        raise errors.InputError(
            f"Two embeddings of the same examples are needed: {len(before)} and {len(after)} rows,"
            f" {len(labels)} labels."
        )
    labels = np.asarray(arguments.labels(labels, (len(before),)))
    found = [evaluation.retrieval_of_queries(x, labels) for x in (before, after)]
    errors.check_known("score", score, found[0])
    table = pd.DataFrame(
        {"label": labels, "before": found[0][score], "after": found[1][score]},
        index=pd.RangeIndex(len(labels), name="example"),
    )
    table["change"] = table.after - table.before
    return table.sort_values("change", kind="stable")
