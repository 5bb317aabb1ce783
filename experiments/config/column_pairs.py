"""Pairs of columns of a table, as a config field or a flag names them."""

from collections.abc import Sequence

from triplet_jax import errors


def parse(name: str, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Reads pairs such as `camera` or `day=filmed`.

    Args:
      name: of the field or the flag, for messages.
      texts: QUERY_COLUMN=REFERENCE_COLUMN, or one column that serves for both.

    Returns:
      The column of queries and the column of references of each pair.

    Raises:
      InputError: a text names no column, or more than two.
    """
    pairs = []
    for text in texts:
        columns = text.split("=") if isinstance(text, str) else ()
        if len(columns) not in (1, 2) or not all(columns):
            raise errors.InputError(
                f"{name}={','.join(map(str, texts))} holds {text!r}: write COLUMN, or"
                " QUERY_COLUMN=REFERENCE_COLUMN."
            )
        pairs.append((columns[0], columns[-1]))
    return tuple(pairs)
