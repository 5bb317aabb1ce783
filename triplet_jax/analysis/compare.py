"""Two runs on the same examples: which queries got better, and which worse."""

import pandas as pd

from triplet_jax import arguments, errors, evaluation


def queries(
    before: arguments.Embeddings,
    after: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    score: str = "map_at_r",
) -> pd.DataFrame:
    """A row for each query: `before`, `after`, `change`, sorted from worst change to best.

    Args:
      before: of all examples.
      after: of the same examples, in the same order.
      labels: their classes.
      score: a number of `evaluation.retrieval_of_queries`.

    Raises:
      InputError: the two are not of as many examples, or there is no such number.
    """
    if not len(before) == len(after) == len(labels):
        raise errors.InputError(
            f"Two embeddings of the same examples are needed: {len(before)} and {len(after)} rows,"
            f" {len(labels)} labels."
        )
    found = [evaluation.retrieval_of_queries(x, labels) for x in (before, after)]
    errors.check_known("score", score, found[0])
    table = pd.DataFrame(
        {"label": labels, "before": found[0][score], "after": found[1][score]},
        index=pd.RangeIndex(len(labels), name="example"),
    )
    table["change"] = table.after - table.before
    return table.sort_values("change", kind="stable")
