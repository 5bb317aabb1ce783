"""The nearest references of queries, in tiles: no matrix of all distances ever exists."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from triplet_jax import arguments, distances, errors
from triplet_jax.evaluation import exact

TILE = 256
# The most values that a tile of queries and all references have, where they are many.
_VALUES = 2**26
# This many more than are asked for are measured as differences, so that rounding loses none.
_SPARE = 8
# The most queries whose distances are measured in float64 at a time.
EXACT_AT_ONCE = 64


def nearest(
    queries: arguments.Embeddings,
    references: arguments.Embeddings | None,
    *,
    neighbours: int,
    metric: str = "euclidean",
    own: Any = None,
) -> tuple[Float[np.ndarray, "queries neighbours"], Int[np.ndarray, "queries neighbours"]]:
    """The nearest references of every query, nearest first.

    The distances of those found are measured as differences. So they are exact for near duplicates,
    never negative, and the same for every number of neighbours.

    Args:
      queries: rows `[queries, dim]` of any number type, taken as float32.
      references: rows `[references, dim]` to search; None searches the queries, of which none is
        its own neighbour.
      neighbours: how many to find, at most the number of references, or one less where a query is
        one of them.
      metric: the name of a metric without parameters in `distances.METRICS`.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.

    Returns:
      Distances `[queries, neighbours]` in float32, in the units of the metric, and positions among
      the references. Of equally near references the one with the smaller position comes first.

    Raises:
      InputError: the metric is not known, there are not that many references, a row has NaN or
        infinite values, or `own` does not hold positions.

    Example:
      >>> from triplet_jax import evaluation
      >>> queries, references = [[0.0], [3.0]], [[1.0], [2.5], [9.0]]
      >>> distance, position = evaluation.nearest(queries, references, neighbours=2)
      >>> print(distance.tolist(), position.tolist())
      [[1.0, 2.5], [0.5, 2.0]] [[0, 1], [1, 0]]
    """
    exact.check_metric(metric)
    queries = arguments.finite_rows(queries, name="queries")
    own = own_positions(own, queries, references)
    if references is None:
        references = queries
    else:
        references = arguments.finite_rows(references, name="references")
        check_width(queries, references)
    among = len(references) - int((own >= 0).any())
    if not 1 <= neighbours <= among:
        raise errors.InputError(
            f"neighbours={neighbours} must be in [1, {among}]: there are no more references."
        )
    if not len(queries):
        return np.zeros((0, neighbours), np.float32), np.zeros((0, neighbours), np.int32)
    found = _nearest(
        jnp.asarray(queries),
        jnp.asarray(references),
        jnp.asarray(own),
        neighbours=neighbours,
        shown=min(neighbours + _SPARE, among),
        metric=metric,
    )
    distance, position, unsure = (np.array(x) for x in found)
    for rows in in_parts(np.flatnonzero(unsure)):
        position[rows] = _exactly(queries[rows], references, own[rows], neighbours, metric)
        distance[rows] = _measure(
            jnp.asarray(queries[rows]), jnp.asarray(references[position[rows]]), metric
        )
    return distance, position


def searched(
    embeddings: arguments.Embeddings, references: arguments.Embeddings | None, own: Any
) -> tuple[
    Float[np.ndarray, "queries dim"],
    Float[np.ndarray, "references dim"],
    Int[np.ndarray, "queries"],
]:
    """The queries, the rows that they search, and the position of each query among these.

    Args:
      embeddings: the queries, `[queries, dim]` of any number type, taken as float32.
      references: the rows to search; None for the queries themselves.
      own: as in `nearest`.

    Raises:
      InputError: an array has another shape or type, or `own` is not one position for each query.
    """
    queries = arguments.embeddings(embeddings)
    among = queries
    if references is not None:
        among = arguments.embeddings(references, name="references")
        check_width(queries, among)
    return queries, among, own_positions(own, queries, references)


def own_positions(
    own: Any, queries: Float[np.ndarray, "queries dim"], references: Any
) -> Int[np.ndarray, "queries"]:
    """The position of each query among the references; -1 where it is not one of them.

    Raises:
      InputError: `own` is given without references, or is not one position for each query.
    """
    if references is None:
        if own is not None:
            raise errors.InputError(
                "own is given together with references: without them each query is left out of its"
                " own neighbours. Leave own out, or give references."
            )
        return np.arange(len(queries), dtype=np.int32)
    if own is None:
        return np.full(len(queries), -1, np.int32)
    found = np.asarray(arguments.labels(own, queries.shape, name="own", rows="queries"))
    if found.dtype.kind not in "iu" or (
        len(found) and not -1 <= found.min() <= found.max() < len(references)
    ):
        raise errors.InputError(
            f"own must be whole numbers in [-1, {len(references) - 1}]: for each query its position"
            " among the references, or -1."
        )
    return found.astype(np.int32)


def check_width(
    queries: Float[np.ndarray, "queries dim"], references: Float[np.ndarray, "references width"]
) -> None:
    """Refuses references with another number of columns than the queries.

    Raises:
      InputError: naming both shapes.
    """
    if queries.shape[1] != references.shape[1]:
        raise errors.InputError(
            f"queries have the shape {queries.shape} and references {references.shape}: both must"
            " have the same number of columns."
        )


def in_parts(rows: Int[np.ndarray, "rows"]) -> list[np.ndarray]:
    """`rows` in parts of at most `EXACT_AT_ONCE`."""
    return [rows[at : at + EXACT_AT_ONCE] for at in range(0, len(rows), EXACT_AT_ONCE)]


def _exactly(queries, references, own, neighbours, metric):
    """The nearest references by float64; equally near ones in order of position."""
    order, _ = exact.ordering(queries, references, metric)
    here = np.flatnonzero(own >= 0)
    order[here, own[here]] = np.inf
    return np.argsort(order, axis=1, kind="stable")[:, :neighbours]


@functools.partial(jax.jit, static_argnames="metric")
def _measure(rows, found, metric):
    """Distances from rows `[rows, dim]` to the references found for each, `[rows, found, dim]`."""
    made = distances.make(metric)
    return made.finish(made.between(made.prepare(rows)[:, None], jax.vmap(made.prepare)(found)))


@functools.partial(jax.jit, static_argnames=("neighbours", "shown", "metric"))
def _nearest(queries, references, own, *, neighbours, shown, metric):
    ranking = make_ranking(references, metric)

    def of_tile(rows, some):
        mine = own.at[rows].get(mode="clip")
        value, position = ranking.first(some, mine, shown)
        measured = _measure(some, references[position], metric)
        distance, by_distance, value = jax.lax.sort(
            (measured, position, value), dimension=1, num_keys=2
        )
        # Rounding may have hidden a reference that is as near as the last one asked for.
        certain = jnp.min(value[:, :neighbours], axis=1) - jnp.min(value, axis=1)
        hides = shown < len(references) - (mine >= 0)
        unsure = hides & ~(certain > 2 * ranking.doubt(some, jnp.min(value, axis=1)))
        return distance[:, :neighbours], by_distance[:, :neighbours], unsure

    return by_tiles(of_tile, queries, tile=tile_size(len(references)))


class Ranking(NamedTuple):
    """Values by which references are ranked, from one matrix product."""

    values: Callable
    """Takes queries `[queries, dim]`; returns `[queries, references]`, larger where nearer."""
    doubt: Callable
    """Takes queries and the least value of each that was looked at, `[queries]`; returns how far
    rounding may have moved this value, or any above it."""

    def first(
        self,
        queries: Float[Array, "queries dim"],
        own: Int[Array, "queries"],
        number: int,
        hidden: Bool[Array, "queries references"] | None = None,
    ) -> tuple[Float[Array, "queries number"], Int[Array, "queries number"]]:
        """The largest values of each query and their positions, without the query itself.

        References that are `hidden` from a query come last, with the value minus infinity.
        """
        value = self.values(queries)
        if hidden is not None:
            value = jnp.where(hidden, -jnp.inf, value)
        if number == value.shape[1]:
            value, position = jax.lax.top_k(value, number)
            return value, position
        # One more than asked for, of which the query itself is dropped, or else the last.
        value, position = jax.lax.top_k(value, number + 1)
        others = jnp.argsort(position == own[:, None], axis=1, stable=True)[:, :number]
        return tuple(jnp.take_along_axis(x, others, axis=1) for x in (value, position))


def make_ranking(references: Float[Array, "references dim"], metric: str) -> Ranking:
    """Ranks references by their nearness to queries.

    For the Euclidean distance the values are `q.r - |r|^2 / 2` from the references' centre, and for
    the cosine `q.r / |r|`. One matrix product, with the second summand as one more dimension, is
    half the work of the distances. References that are not finite come last.

    Args:
      references: rows `[references, dim]`.
      metric: the name of a metric without parameters in `distances.METRICS`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import evaluation
      >>> ranking = evaluation.make_ranking(jnp.array([[1.0], [2.5], [9.0]]), "euclidean")
      >>> value, position = ranking.first(jnp.array([[3.0]]), jnp.array([-1]), 2)
      >>> print(position)
      [[1 0]]
    """
    finite = jnp.all(jnp.isfinite(references), axis=1)
    references = jnp.where(finite[:, None], references, 0.0)
    # The errors of a sum of many products mostly cancel. Of 10^6 measured sums of 64 and of 512
    # products the largest error was 0.6 of this times |q||r| + |r|^2 / 2; `doubt` is above that.
    unit_of_error = float(np.sqrt(references.shape[1] + 1) * np.finfo(np.float32).eps / 2)

    def hide(values):
        return jnp.where(finite, values, -jnp.inf)

    if metric in ("euclidean", "squared_euclidean"):
        centre, columns, bias = _about_centre(references, finite)
        columns = jnp.concatenate([columns, bias[:, None]], axis=1)
        overflows = ~jnp.all(jnp.isfinite(bias))

        def values(q):
            q = jnp.pad(q - centre, ((0, 0), (0, 1)), constant_values=1.0)
            return distances.product(q, columns.T)

        def doubt(q, least):
            squared = jnp.sum((q - centre) ** 2, axis=1)
            farthest = jnp.sqrt(jnp.maximum(squared - 2 * least, 0.0))
            # Nothing that is as near is farther than this from the centre.
            reach = jnp.sqrt(squared) + farthest
            return jnp.where(overflows, jnp.inf, unit_of_error * reach**2)

        return Ranking(values, doubt)
    if metric == "cosine":
        # Divided by the largest value first, or the squared length may overflow.
        largest = jnp.max(jnp.abs(references), axis=1, keepdims=True)
        columns = distances.unit(references / jnp.where(largest > 0, largest, 1.0)).T
        return Ranking(
            lambda q: hide(distances.product(q, columns)),
            lambda q, least: unit_of_error * jnp.linalg.norm(q, axis=1),
        )
    if metric == "dot":
        longest = jnp.max(jnp.linalg.norm(references, axis=1))
        return Ranking(
            lambda q: hide(distances.product(q, references.T)),
            lambda q, least: unit_of_error * jnp.linalg.norm(q, axis=1) * longest,
        )
    if metric == "signal_to_noise":
        # A query's variance divides all of its distances alike.
        centred = distances.make(metric).prepare
        by_noise = make_ranking(centred(references), "euclidean")
        longest = jnp.max(jnp.linalg.norm(references, axis=1))
        return Ranking(
            lambda q: hide(by_noise.values(centred(q))),
            lambda q, least: unit_of_error * (jnp.linalg.norm(q, axis=1) + longest) ** 2,
        )
    return Ranking(
        lambda q: hide(-distances.pairwise(q, references, metric)),
        lambda q, least: unit_of_error * jnp.abs(least),
    )


@jax.jit
def euclidean_form(
    references: Float[Array, "references dim"],
) -> tuple[Float[Array, "references dim"], Float[Array, "references"]]:
    """Columns r and biases b, so that `q.r + b` are the values of `make_ranking`.

    Here q is the column of a query. A reference that is not finite has the bias -1e37.
    """
    finite = jnp.all(jnp.isfinite(references), axis=1)
    return _about_centre(jnp.where(finite[:, None], references, 0.0), finite)[1:]


def _about_centre(references, finite):
    """The centre of references, the references from there, and minus half their squared lengths."""
    centre = _centre(references)
    references = references - centre
    bias = -0.5 * jnp.sum(references**2, axis=1)
    # Far behind all others, but finite: a product that is split into parts makes infinity NaN.
    return centre, references, jnp.where(finite, bias, -1e37)


def tile_size(references: int) -> int:
    """How many queries are compared with so many references at a time."""
    return max(1, min(TILE, _VALUES // references))


def by_tiles(
    of_tile: Callable[[Int[Array, "tile"], Float[Array, "tile dim"]], PyTree],
    queries: Float[Array, "queries dim"],
    tile: int = TILE,
) -> PyTree:
    """Applies `of_tile(rows, some)` to every tile of queries and joins the results.

    `rows` holds the numbers of the queries `some`. Those of the last tile may go past the end, and
    their results are dropped.

    Args:
      of_tile: takes `rows`, `[tile]`, and `some`, `[tile, dim]`, and returns arrays whose first
        dimension is `[tile]`.
      queries: rows `[queries, dim]`, at least one.
      tile: the most queries of a tile.

    Returns:
      The arrays, with a first dimension of `[queries]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import evaluation
      >>> evaluation.by_tiles(lambda rows, some: rows + some.sum(axis=1), jnp.ones((3, 2))).tolist()
      [2.0, 3.0, 4.0]
    """
    tile = min(tile, len(queries))
    tiles = -(-len(queries) // tile)
    padded = jnp.pad(queries, ((0, tiles * tile - len(queries)), (0, 0)))

    def of_number(number_and_queries):
        number, some = number_and_queries
        return of_tile(number * tile + jnp.arange(tile), some)

    whole = padded.reshape(tiles, tile, padded.shape[1])
    parts = jax.lax.map(of_number, (jnp.arange(tiles), whole))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(queries)], parts)


def _centre(x):
    """The mean, rounded to a multiple of a power of two near the spread.

    Whole numbers less this centre stay whole, and ties stay ties.
    """
    mean = jnp.mean(x, axis=0)
    spread = jnp.std(x - mean)
    step = jnp.exp2(jnp.floor(jnp.log2(jnp.where(spread > 0, spread, 1.0))))
    centre = jnp.round(mean / step) * step
    return jnp.where(jnp.isfinite(centre), centre, 0.0)
