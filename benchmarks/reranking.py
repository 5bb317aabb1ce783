"""Measures re-ranking and query expansion of 10,000 queries among 20,000 references.

    python -m benchmarks.reranking --write

Each case makes mAP and all other scores of whole rankings, with ignored groups, once and in a
process of its own. Re-ranking searches all 30,000 rows for the neighbours of each.
"""

import json
import time

from benchmarks import common, retrieval_large

QUERIES, REFERENCES = 10_000, 20_000
NOISE = 2.2
CASES = ("plain", "expanded", "re-ranked", "expanded and re-ranked")


def measure(case: str) -> dict:
    """Measures one case in this process."""
    from triplet_jax import evaluation

    given = retrieval_large.embeddings(QUERIES, REFERENCES, noise=NOISE)
    x, labels, groups, references, reference_labels, reference_groups = given

    def score():
        queries = x
        if "expanded" in case:
            queries = evaluation.expand_queries(x, references, count=5, alpha=3.0)
        if "re-ranked" in case:
            search = {"embeddings": evaluation.k_reciprocal(queries, references)}
        else:
            search = {"embeddings": queries, "references": references}
        return evaluation.retrieval(
            **search,
            labels=labels,
            reference_labels=reference_labels,
            ignore=(groups, reference_groups),
            whole_ranking=True,
        )

    return common.measured_once(score)


def measure_all(options) -> dict:
    found = {"machine": common.machine("jax", "numpy", "scipy"), "date": time.strftime("%Y-%m-%d")}
    found["cases"] = {}
    for case in CASES:
        arguments = ("benchmarks.reranking", "--measure", case)
        found["cases"][case] = common.in_own_process(*arguments, timeout=options.timeout)
        print(case, found["cases"][case], flush=True)
    options.output.write_text(json.dumps(found, indent=1))
    return found


def tables(found: dict) -> str:
    header = ["case", "seconds", "CPU seconds", "peak GiB", "load after", "mAP", "P@1"]
    rows = []
    for case, of_case in found["cases"].items():
        if "note" in of_case:
            rows.append([case, of_case["note"], *[""] * 5])
            continue
        numbers = [f"{of_case[name]:,.0f}" for name in ("seconds", "cpu_seconds")]
        numbers += [f"{of_case['peak']:.2f}", f"{of_case['load']:.1f}"]
        numbers += [f"{of_case['values'][name]:.4f}" for name in ("map", "precision_at_1")]
        rows.append([case, *numbers])
    return f"{found['machine']}; {found['date']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = common.parser(__doc__, "reranking", rounds=1)
    options.set_defaults(timeout=3600)
    options = options.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    common.report(options, measure_all, tables)


if __name__ == "__main__":
    main()
