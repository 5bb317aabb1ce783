"""Measures retrieval among a million references with ignored groups, beside faiss on a tenth of it.

    make oracle                      # installs faiss
    python -m benchmarks.retrieval_large --write

As in person re-identification, a query ignores the references of its class and its group, and the
scores are P@1, Recall@k, R-precision and MAP@R. faiss finds the neighbours exactly (IndexFlatL2),
as many as a query needs beyond those that it ignores, and numpy makes the same scores of them. Each
case runs once, in a process of its own: a warm-up would take as long as the measurement.
"""

import json
import time

import numpy as np

from benchmarks import common

DIM = 128
PER_CLASS = 20
GROUPS = 6
# library, queries, references
CASES = (
    ("ours", 100_000, 1_000_000),
    ("ours", 10_000, 1_000_000),
    ("faiss", 10_000, 1_000_000),
)
_ROWS = 50_000


def embeddings(queries: int, references: int, noise: float = 1.2) -> tuple[np.ndarray, ...]:
    """Classes as Gaussian clusters on the unit sphere; and the class and group of each row.

    Returns:
      The rows of the queries, their classes and their groups, and those of the references.
    """
    random = np.random.default_rng(0)
    classes = references // PER_CLASS
    centres = random.normal(size=(classes, DIM)).astype(np.float32)
    found = []
    for number, labels in (
        (queries, random.integers(0, classes, queries)),
        (references, np.arange(references) % classes),
    ):
        x = np.empty((number, DIM), np.float32)
        for start in range(0, number, _ROWS):
            rows = slice(start, start + _ROWS)
            of_class = centres[labels[rows]]
            x[rows] = of_class + noise * random.normal(size=of_class.shape).astype(np.float32)
            x[rows] /= np.linalg.norm(x[rows], axis=1, keepdims=True)
        found += [x, labels, random.integers(0, GROUPS, number)]
    return tuple(found)


def ours(x, labels, groups, references, reference_labels, reference_groups) -> dict[str, float]:
    """Our scores."""
    from triplet_jax import evaluation

    return evaluation.retrieval(
        x,
        labels,
        references=references,
        reference_labels=reference_labels,
        ignore=(groups, reference_groups),
    )


def faiss(x, labels, groups, references, reference_labels, reference_groups) -> dict[str, float]:
    """The same scores, of the neighbours that faiss finds."""
    import faiss

    index = faiss.IndexFlatL2(DIM)
    index.add(references)
    # A query has at most PER_CLASS positives, and ignores some of them.
    _, position = index.search(x, PER_CLASS + 8)
    same = reference_labels[position] == labels[:, None]
    ignored = same & (reference_groups[position] == groups[:, None])
    # What is ignored goes to the end, and the others move up.
    order = np.argsort(ignored, axis=1, kind="stable")
    relevant = np.take_along_axis(same & ~ignored, order, axis=1)
    per_class = np.zeros((reference_labels.max() + 1, GROUPS), int)
    np.add.at(per_class, (reference_labels, reference_groups), 1)
    r = per_class.sum(axis=1)[labels] - per_class[labels, groups]
    relevant, r = relevant[r > 0], r[r > 0]
    rank = np.arange(1, relevant.shape[1] + 1)
    within = relevant & (rank <= r[:, None])
    precision = np.cumsum(relevant, axis=1) / rank
    return {
        "precision_at_1": float(relevant[:, 0].mean()),
        "recall_at_8": float(relevant[:, :8].any(axis=1).mean()),
        "map_at_r": float(((within * precision).sum(axis=1) / r).mean()),
        "queries": len(r),
    }


def measure(library: str, queries: int, references: int) -> dict:
    """Measures one case in this process."""
    given = embeddings(queries, references)
    found = common.measured_once(lambda: {"ours": ours, "faiss": faiss}[library](*given))
    return found | {"arrays": sum(x.nbytes for x in given) / 2**30}


def measure_all(options) -> dict:
    found = {"machine": common.machine("jax", "numpy", "faiss-cpu"), "cases": []}
    found["date"] = time.strftime("%Y-%m-%d")
    for case in CASES:
        of_case = common.in_own_process(
            "benchmarks.retrieval_large", "--measure", json.dumps(case), timeout=options.timeout
        )
        print(case, of_case, flush=True)
        found["cases"].append({"case": case, "found": of_case})
        options.output.write_text(json.dumps(found, indent=1))
    return found


def tables(found: dict) -> str:
    header = ["queries", "references", "library", "seconds", "CPU seconds", "peak GiB"]
    header += ["load after", "P@1", "Recall@8", "MAP@R"]
    rows = []
    for each in found["cases"]:
        (library, queries, references), of_case = each["case"], each["found"]
        row = [f"{queries:,}", f"{references:,}", library]
        if "note" in of_case:
            rows.append([*row, of_case["note"], *[""] * 6])
            continue
        row += [f"{of_case[name]:,.0f}" for name in ("seconds", "cpu_seconds")]
        row += [f"{of_case['peak']:.2f}", f"{of_case['load']:.1f}"]
        names = ("precision_at_1", "recall_at_8", "map_at_r")
        rows.append([*row, *(f"{of_case['values'][name]:.4f}" for name in names)])
    return f"{found['machine']}; {found['date']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = common.parser(__doc__, "retrieval_large", rounds=1)
    options.set_defaults(timeout=7200)
    options = options.parse_args()
    if options.measure:
        print(json.dumps(measure(*json.loads(options.measure))))
        return
    common.report(options, measure_all, tables)


if __name__ == "__main__":
    main()
