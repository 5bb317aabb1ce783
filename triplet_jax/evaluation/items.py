"""Items of which there are several embeddings: pictures of one product, frames of one person."""

import functools

import numpy as np
from jaxtyping import Float, Shaped

from triplet_jax import arguments, errors
from triplet_jax.evaluation import exact, neighbours
from triplet_jax.evaluation.computed_distances import Distances

# The most distances that are held at a time.
_VALUES = 2**22


def mean_of_items(
    embeddings: arguments.Embeddings, items: arguments.Labels, *, unit: bool = True
) -> tuple[Float[np.ndarray, "items dim"], Shaped[np.ndarray, "items"]]:
    """One embedding for each item: the mean of its own.

    With `unit`, rows are divided by their lengths before the mean, and so is the mean, as for the
    templates of face verification (Whitelam et al. 2017, https://doi.org/10.1109/CVPRW.2017.87).
    Items may be classes: `retrieval` then looks for the nearest class mean. Rows that are not
    finite are left out; an item without others is not finite.

    Args:
      embeddings: rows `[rows, dim]` of any number type, taken as float32.
      items: which item each row belongs to, whole numbers or strings.
      unit: whether lengths play no part.

    Returns:
      The means in float32, and the items in sorted order.

    Raises:
      InputError: an array has another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> x, shoes = [[0.0, 2.0], [0.0, 8.0], [5.0, 0.0]], ["red", "red", "blue"]
      >>> means, items = evaluation.mean_of_items(x, shoes)
      >>> print(means.tolist(), items.tolist())
      [[1.0, 0.0], [0.0, 1.0]] ['blue', 'red']
    """
    x = arguments.embeddings(embeddings)
    names, of_row = arguments.codes(items, x.shape, name="items")
    finite = np.isfinite(x).all(axis=1)
    rows = x[finite].astype(np.float64)
    if unit:
        rows = exact.directions(rows)
    sums = np.zeros((len(names), x.shape[1]))
    np.add.at(sums, of_row[finite], rows)
    with np.errstate(invalid="ignore"):
        means = sums / np.bincount(of_row[finite], minlength=len(names))[:, None]
    return (exact.directions(means) if unit else means).astype(np.float32), names


def of_items(
    values: arguments.Labels, items: arguments.Labels, *, name: str = "labels"
) -> Shaped[np.ndarray, "items"]:
    """What all rows of an item say of it, such as their label or their group.

    Args:
      values: one for each row, `[rows]`.
      items: which item each row belongs to, `[rows]`.
      name: what messages call the values.

    Returns:
      One value for each item, in the order of `mean_of_items` and `nearest_of_items`.

    Raises:
      InputError: the rows of an item differ, or an array has another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> evaluation.of_items([7, 7, 3], ["red", "red", "blue"]).tolist()
      [3, 7]
    """
    items = np.asarray(arguments.labels(items, np.shape(items), name="items"))
    values = np.asarray(arguments.labels(values, items.shape, name=name, rows="items"))
    names, first, of_row = np.unique(items, return_index=True, return_inverse=True)
    found = values[first]
    other = np.flatnonzero(found[of_row.reshape(-1)] != values)
    if len(other):
        row = other[0]
        item = names.tolist()[of_row[row]]
        raise errors.InputError(
            f"{name}: the rows of {len(np.unique(of_row[other]))} items differ, such as those of"
            f" {item!r} with {found[of_row[row]].item()!r} and {values[row].item()!r}. Give all"
            " rows of an item one value, or make them several items."
        )
    return found


def nearest_of_items(
    embeddings: arguments.Embeddings,
    items: arguments.Labels,
    *,
    references: arguments.Embeddings | None = None,
    reference_items: arguments.Labels | None = None,
    same_names: bool = False,
    metric: str = "euclidean",
) -> Distances:
    """Distances between items, by which `retrieval` ranks in place of embeddings.

    The distance of two items is that of their nearest rows, as in multi-shot re-identification
    (Farenzena et al. 2010, https://doi.org/10.1109/CVPR.2010.5539926):

        d(a, b) = min d(x, y) over the rows x of a and y of b

    Give `retrieval` one label for each item, from `of_items`. Rows that are not finite are left
    out; an item without others is not finite. Of the counts of `retrieval`,
    `queries_among_references` looks at the first finite row of each item.

    All distances between rows are measured in float64 on the CPU, and in memory for a tile of them.
    Two distances are equal where they differ by less than 1e-12 of themselves.

    Args:
      embeddings: the rows of the queries, `[rows, dim]` of any number type, taken as float32.
      items: which item each row belongs to, whole numbers or strings.
      references: the rows of items to search; None searches the items of the queries, of which none
        is its own neighbour.
      reference_items: which item each of them belongs to; None where each is an item of its own, in
        their order.
      same_names: whether an item of the references is a query itself if it has its name. It is then
        left out of that query's neighbours.
      metric: the name of a metric without parameters in `distances.METRICS`.

    Raises:
      InputError: the metric is not known, `same_names` is set without `reference_items`, or an
        array has another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> rows, shoes = [[0.0], [5.0], [4.0], [9.0]], ["a", "a", "b", "c"]
      >>> found = evaluation.nearest_of_items(rows, shoes)
      >>> labels = evaluation.of_items(["red", "red", "red", "blue"], shoes)
      >>> print(evaluation.retrieval_of_queries(found, labels)["precision_at_1"])
      [ 1.  1. nan]
    """
    exact.check_metric(metric)
    of_queries = _Items(*_sorted(embeddings, items, "embeddings", "items"))
    if references is None:
        if reference_items is not None or same_names:
            raise errors.InputError(
                "reference_items and same_names go with references: give them, or leave all out."
            )
        among, own = of_queries, np.arange(len(of_queries.names))
    else:
        if reference_items is None:
            if same_names:
                raise errors.InputError(
                    "same_names=True needs reference_items: the names of the references' items."
                )
            reference_items = np.arange(len(references))
        among = _Items(*_sorted(references, reference_items, "references", "reference_items"))
        neighbours.check_width(of_queries.rows, among.rows)
        own = np.full(len(of_queries.names), -1)
        if same_names:
            own = _own(of_queries.names, among.names)

    first = of_queries.first
    measured = functools.partial(_measure, of_queries, among, metric)
    return Distances(first, first if among is of_queries else among.first, own, measured)


def _sorted(rows, items, name, name_of_items):
    """Finite rows in the order of their items, where each item starts, and the items' names."""
    x = arguments.embeddings(rows, name=name)
    names, of_row = arguments.codes(items, x.shape, name=name_of_items, rows=name)
    finite = np.isfinite(x).all(axis=1)
    x, of_row = x[finite], of_row[finite]
    order = np.argsort(of_row, kind="stable")
    return x[order], np.searchsorted(of_row[order], np.arange(len(names) + 1)), names


def _own(names, reference_names):
    codes, reference_codes = arguments.common_codes(
        names, reference_names, ("items", "reference_items")
    )
    place = {code: at for at, code in enumerate(reference_codes.tolist())}
    return np.array([place.get(code, -1) for code in codes.tolist()], int)


class _Items:
    """Finite rows that stand together by their items."""

    def __init__(self, rows, starts, names):
        self.rows = rows
        self.names = names
        self.starts = starts
        self.there = starts[1:] > starts[:-1]
        self.first = np.full((len(names), rows.shape[1]), np.nan, np.float32)
        self.first[self.there] = rows[starts[:-1][self.there]]


def _measure(items, among, metric, numbers):
    """The distances from some items to all others, and what makes two of them equal."""
    found = np.full((len(numbers), len(among.names)), np.inf)
    within = found.copy()
    count = (items.starts[1:] - items.starts[:-1])[numbers]
    place = np.repeat(np.arange(len(numbers)), count)
    rows = np.concatenate([np.arange(*items.starts[each : each + 2]) for each in numbers])
    there = np.flatnonzero(among.there)
    size = max(1, _VALUES // max(1, len(among.rows)))
    for at in range(0, len(rows) if len(there) else 0, size):
        part = slice(at, at + size)
        order, apart = exact.ordering(items.rows[rows[part]], among.rows, metric)
        for best, each in ((found, order), (within, order + apart)):
            least = np.minimum.reduceat(each, among.starts[there], axis=1)
            np.minimum.at(best, (place[part, None], there), least)
    with np.errstate(invalid="ignore"):
        return found, np.nan_to_num(within - found)
