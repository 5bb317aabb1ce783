"""Times exact retrieval metrics, beside PyTorch Metric Learning with faiss.

    make oracle                      # installs the peers
    .venv/bin/python -m benchmarks.evaluation

Both compute P@1, R-precision and MAP@R of the same embeddings of clustered classes, one after the
other, each in its own process. The table gives medians after one warm-up, which compiles.
"""

import json
import statistics
import subprocess
import sys
import time

import numpy as np

from benchmarks import common

SIZES = ((13_180, 64, 20), (60_000, 64, 20))  # examples, dim, examples a class
REPEATS = 5


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


def measure(library: str, *size: int) -> None:
    """Measures one library in this process: prints seconds of each repeat, peak memory, values."""
    x, labels = embeddings(*size)
    run = {"ours": ours, "pml": pml}[library]
    values = run(x, labels)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(x, labels)
        seconds.append(time.perf_counter() - start)
    peak = common.peak_memory() / 2**30
    print(json.dumps({"seconds": seconds, "peak_gib": peak, "values": values}))


def main() -> None:
    print(f"{common.machine('jax', 'torch', 'pytorch-metric-learning', 'faiss-cpu')}\n")
    print("| examples | library | seconds (median of 5) | peak GiB | P@1 | MAP@R |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in SIZES:
        for library in ("ours", "pml"):
            line = [sys.executable, "-m", "benchmarks.evaluation", library, *map(str, size)]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds = statistics.median(found["seconds"])
            values = found["values"]
            print(
                f"| {size[0]:,} | {library} | {seconds:.2f} | {found['peak_gib']:.2f} |"
                f" {values['precision_at_1']:.4f} | {values['map_at_r']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        main()
