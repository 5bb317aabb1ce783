"""Times exact retrieval metrics, beside PyTorch Metric Learning with faiss.

    make oracle                      # installs the peers
    .venv/bin/python -m benchmarks.evaluation --write

Both compute P@1, R-precision and MAP@R of the same embeddings of clustered classes. In each round
every case runs in a process of its own, once to warm up, which compiles, and once on the clock. The
cases take turns, so that what else the machine does burdens all of them.

On several cores faiss and torch wait for each other by spinning, so that beside other work their
time says little. On one core they do not, and CPU seconds compare the work.
"""

import json
import os
import statistics
import time

import numpy as np

from benchmarks import common

SIZES = ((13_180, 64, 20), (60_000, 64, 20))  # examples, dim, examples a class
LIBRARIES = {"ours": "ours", "pml": "PML with faiss"}


def embeddings(examples: int, dim: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes as Gaussian clusters on the unit sphere."""
    random = np.random.default_rng(0)
    labels = np.arange(examples) // per_class
    x = random.normal(size=(labels.max() + 1, dim))[labels] + random.normal(size=(examples, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), labels


def ours(x: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Our scores."""
    from triplet_jax import evaluation

    found = evaluation.retrieval(x, labels, ks=(1,))
    return {name: found[name] for name in ("precision_at_1", "r_precision", "map_at_r")}


def pml(x: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The same scores by PML, under our names."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    found = calculator.get_accuracy(torch.tensor(x), torch.tensor(labels))
    found["map_at_r"] = found.pop("mean_average_precision_at_r")
    return found


def measure(library: str, cores: int, *size: int) -> dict:
    """Measures one library in this process, on the last `cores` that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    os.environ["OMP_NUM_THREADS"] = str(cores)
    x, labels = embeddings(*size)
    run = {"ours": ours, "pml": pml}[library]
    run(x, labels)
    start, busy = time.perf_counter(), time.process_time()
    values = run(x, labels)
    return {
        "seconds": [time.perf_counter() - start],
        "cpu_seconds": time.process_time() - busy,
        "peak": common.peak_memory() / 2**30,
        "values": values,
    }


def measure_all(options) -> dict:
    packages = ("jax", "torch", "pytorch-metric-learning", "faiss-cpu")
    found = {"machine": common.machine(*packages), "date": time.strftime("%Y-%m-%d"), "cases": []}
    every = len(os.sched_getaffinity(0))
    for size, cores in [(size, cores) for size in SIZES for cores in sorted({1, every})]:
        rounds = {library: [] for library in LIBRARIES}
        for _ in range(options.rounds):
            for library, of_library in rounds.items():
                case = ",".join(map(str, (library, cores, *size)))
                arguments = ("benchmarks.evaluation", "--measure", case)
                of_library.append(common.in_own_process(*arguments, timeout=options.timeout))
                print(case, of_library[-1], flush=True)
        of_size = {library: common.pooled(of_library) for library, of_library in rounds.items()}
        for library, of_library in rounds.items():
            busy = [one.get("cpu_seconds", np.nan) for one in of_library]
            of_size[library]["cpu_seconds"] = statistics.median(busy)
        found["cases"].append({"examples": size[0], "cores": cores, **of_size})
    options.output.write_text(json.dumps(found, indent=1))
    return found


def tables(found: dict) -> str:
    header = ["examples", "cores", "library", "seconds (least to most)", "ours / PML"]
    header += ["CPU seconds", "ours / PML", "peak GiB", "P@1", "MAP@R"]
    rows = []
    for case in found["cases"]:
        for library, name in LIBRARIES.items():
            one, other = case[library], case["pml"]
            row = [f"{case['examples']:,}", str(case["cores"]), name]
            if "note" in one:
                rows.append([*row, one["note"], *[""] * 6])
                continue
            ratios = ["", ""]
            if library == "ours" and "note" not in other:
                ratios = [common.ratio(one[x] / other[x]) for x in ("median", "cpu_seconds")]
            spread = f"{min(one['seconds']):.2f} to {max(one['seconds']):.2f}"
            row += [f"{one['median']:.2f} ({spread})", ratios[0]]
            row += [f"{one['cpu_seconds']:.2f}", ratios[1], f"{one['peak']:.2f}"]
            row += [f"{one['values'][score]:.4f}" for score in ("precision_at_1", "map_at_r")]
            rows.append(row)
    return f"{found['machine']}; {found['date']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = common.parser(__doc__, "evaluation", rounds=5)
    options.set_defaults(timeout=1200)
    options = options.parse_args()
    if options.measure:
        library, *size = options.measure.split(",")
        print(json.dumps(measure(library, *map(int, size))))
        return
    common.report(options, measure_all, tables)


if __name__ == "__main__":
    main()
