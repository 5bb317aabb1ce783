"""Measures a gallery after many changes, beside one made at once: size, files and search time.

python -m benchmarks.galleries
"""

import pathlib
import tempfile
import time

import numpy as np

from triplet_jax.evaluation import gallery

DIM = 128


def main() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        updates = [(range(len(x)), x + change) for change in range(31)]
        report("31 updates of 2,000 rows", root / "a", updates, x)
        singles = [([i], x[i : i + 1]) for i in range(300)]
        report("300 single additions", root / "b", singles, x)


def report(title: str, folder: pathlib.Path, changes, queries: np.ndarray) -> None:
    """Measures a gallery after the changes, after `compact`, and a fresh gallery of its rows."""
    found = gallery.Gallery(folder / "changed", dim=DIM)
    for rows, embeddings in changes:
        put(found, rows, embeddings)
    print(title)
    describe("  after the changes", found, folder / "changed", queries)
    found.compact()
    describe("  after compact()", found, folder / "changed", queries)
    table = found.table()
    fresh = gallery.Gallery(folder / "fresh", dim=DIM)
    put(fresh, table.path, np.stack(table.vector))
    fresh.compact()
    describe("  made at once", fresh, folder / "fresh", queries)


def put(found: gallery.Gallery, rows, embeddings: np.ndarray) -> None:
    """Puts the embeddings into a gallery, with the numbers of their rows as paths."""
    paths = [str(row) for row in rows]
    found.put(paths, ["label"] * len(paths), ["mark"] * len(paths), embeddings)


def describe(when: str, found: gallery.Gallery, folder: pathlib.Path, queries: np.ndarray) -> None:
    """Prints the number of files, their size and the time of a search."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    found.nearest(queries[:5], 5)
    start = time.perf_counter()
    found.nearest(queries[:50], 5)
    milliseconds = (time.perf_counter() - start) / 50 * 1000
    print(f"{when}: {len(files)} files, {size:.2f} MB, {milliseconds:.1f} ms a search", flush=True)


if __name__ == "__main__":
    main()
