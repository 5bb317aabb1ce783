"""Forward and backward of the contrastive losses, beside PyTorch Metric Learning.

    make oracle                      # installs the peers
    .venv/bin/python -m benchmarks.contrastive

Unit vectors of 128 values in random directions, 4 of each class.
Each case runs in a process of its own, in rounds.
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common, mining

SIZES = (1024, 8192)
PER_CLASS = 4
# Of ours: how PML makes the same, and the most rows that its memory allows here.
CASES = {
    "pairs": ("ContrastiveLoss", {}, 8192),
    "info_nce": ("NTXentLoss", {"temperature": 0.1}, 1024),
    "supervised_contrastive": ("SupConLoss", {"temperature": 0.1}, 8192),
    "lifted": ("GeneralizedLiftedStructureLoss", {}, 8192),
    "multi_similarity": ("MultiSimilarityLoss", {"alpha": 2, "beta": 50, "base": 0.5}, 8192),
    "circle": ("CircleLoss", {"m": 0.25, "gamma": 256}, 8192),
}


def ours(name: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """The loss and its gradient, compiled."""
    import jax

    from triplet_jax import contrastive

    loss = contrastive.LOSSES[name]
    if name == "pairs":
        loss = functools.partial(loss, power=1)
    metric = "euclidean" if name in ("pairs", "lifted") else "cosine"
    run = functools.partial(contrastive.contrastive_loss, loss=loss, metric=metric)
    step = jax.value_and_grad(run, has_aux=True)
    return mining.compiled(step, lambda found: found[0][0], x, labels)


def theirs(name: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """The same in PML."""
    from pytorch_metric_learning import distances, losses

    made, options, _ = CASES[name]
    if name in ("pairs", "lifted"):
        options = options | {"distance": distances.LpDistance(normalize_embeddings=False)}
    return mining.torch_step(getattr(losses, made)(**options), x, labels)


def measure(case: str, n: int) -> dict[str, Any]:
    """One case in this process: seconds of each repeat, MiB above the inputs, and the loss."""
    library, name = case.split()
    if library == "ours":
        from experiments import command

        command.use_xla_flags()  # as a run does
    x, labels = mining.batch(n, PER_CLASS)
    step = (ours if library == "ours" else theirs)(name, x, labels)
    common.forget_peak_memory()
    before = common.peak_memory()
    loss = step()
    seconds = common.times(step)
    return {"seconds": seconds, "peak": (common.peak_memory() - before) / 2**20, "loss": loss}


def measure_all(options) -> dict[str, Any]:
    """Every loss of both libraries."""
    found = {"machine": common.machine("jax", "torch", "pytorch-metric-learning"), "records": []}
    for n in options.sizes:
        for name, (_, _, most) in CASES.items():
            for library in ("ours", "PML"):
                case, so_far = f"{library} {name}", []
                if library == "PML" and n > most:
                    so_far = [{"note": "not run: all pairs of pairs, more memory than there is"}]
                for _ in range(0 if so_far else options.rounds):
                    so_far.append(
                        common.in_own_process(
                            *("benchmarks.contrastive", "--measure", case, "--sizes", n),
                            timeout=options.timeout,
                        )
                    )
                record = {"n": n, "case": case} | common.pooled(so_far)
                print(n, case, record.get("note") or f"{record['median']:.5f} s", flush=True)
                found["records"].append(record)
                options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """Everything that was found, as Markdown."""
    header = ("n", "loss", "ours, s", "PML, s", "PML / ours", "ours, MiB", "PML, MiB", "values")
    by_case = {(r["n"], r["case"]): r for r in found["records"]}
    rows = []
    for n in dict.fromkeys(r["n"] for r in found["records"]):
        for name in CASES:
            own, peer = (by_case[n, f"{library} {name}"] for library in ("ours", "PML"))
            row = [f"{n:,}", name, f"{own['median']:.4g}"]
            if "median" in peer:
                row += [f"{peer['median']:.4g}", common.ratio(peer["median"] / own["median"])]
                row += [f"{own['peak']:.0f}", f"{peer['peak']:.0f}"]
                row.append(f"{own['loss']:.5f}, {peer['loss']:.5f}")
            else:
                row += [peer["note"], "", f"{own['peak']:.0f}", "", f"{own['loss']:.5f}"]
            rows.append(row)
    return f"{found['machine']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(options.measure, options.sizes[0])))
        return
    common.report(options, measure_all, tables)


def _options():
    parser = common.parser(__doc__, "contrastive", rounds=1)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="rows of a batch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
