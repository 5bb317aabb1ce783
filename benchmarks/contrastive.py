"""Times forward and backward of the contrastive losses, beside PyTorch Metric Learning.

    make oracle                      # installs the peers
    .venv/bin/python -m benchmarks.contrastive

Embeddings are unit vectors of 128 values in random directions. Losses with a proxy for each class
also take the gradient of the proxies. Each case runs in its own process, in rounds.
"""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common, mining

SIZES = (1024, 8192)


class Case(NamedTuple):
    """A loss of ours, and the same loss of PML."""

    ours: str
    theirs: str
    options: dict[str, Any] = {}
    """Options of PML's loss."""
    knobs: dict[str, Any] = {}
    """Knobs of our loss that are not its defaults."""
    metric: str = "cosine"
    beside: str = "batch"
    """What rows are compared with: "batch", "partners" (the other row of the class), or "proxies".
    With "anchors" the proxies are compared with the batch."""
    per_class: int = 4
    most: int = 8192
    """The most rows for which PML's loss fits into memory."""


CASES = {
    "pairs": Case("pairs", "ContrastiveLoss", knobs={"power": 1}, metric="euclidean"),
    # Two rows of a class, as with two views of an image.
    "nt_xent": Case("info_nce", "NTXentLoss", {"temperature": 0.1}, per_class=2, most=1024),
    "supervised_contrastive": Case("supervised_contrastive", "SupConLoss", {"temperature": 0.1}),
    "lifted": Case("lifted", "GeneralizedLiftedStructureLoss", metric="euclidean"),
    "multi_similarity": Case(
        "multi_similarity", "MultiSimilarityLoss", {"alpha": 2, "beta": 50, "base": 0.5}
    ),
    "circle": Case("circle", "CircleLoss", {"m": 0.25, "gamma": 256}),
    "n_pairs": Case("n_pairs", "NPairsLoss", metric="dot", beside="partners", per_class=2),
    "proxy_nca": Case(
        "info_nce",
        "ProxyNCALoss",
        {"softmax_scale": 9},
        knobs={"temperature": 1 / 18},  # for unit vectors 9 d^2 = 18 - 18 cos
        beside="proxies",
    ),
    "proxy_anchor": Case(
        "proxy_anchor", "ProxyAnchorLoss", {"margin": 0.1, "alpha": 32}, beside="anchors"
    ),
    "softmax": Case(
        "info_nce",
        "NormalizedSoftmaxLoss",
        {"temperature": 0.05},
        knobs={"temperature": 0.05},
        beside="proxies",
    ),
    "arcface": Case(
        "arcface", "ArcFaceLoss", {"margin": np.degrees(0.5), "scale": 64}, beside="proxies"
    ),
}


def of_classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A random proxy for each class, and the numbers of the classes."""
    classes = np.arange(labels[-1] + 1)
    drawn = np.random.default_rng(1).normal(size=(len(classes), mining.DIM))
    return drawn.astype(np.float32), classes


def ours(case: Case, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Our loss and its gradient, compiled."""
    import jax

    from triplet_jax import contrastive

    loss = functools.partial(contrastive.LOSSES[case.ours], **case.knobs)
    run = functools.partial(contrastive.contrastive_loss, loss=loss, metric=case.metric)
    proxies, classes = of_classes(labels)

    def value(x, proxies, labels, classes):
        if case.beside == "anchors":
            return run(proxies, classes, references=x, reference_labels=labels)
        if case.beside == "proxies":
            return run(x, labels, references=proxies, reference_labels=classes)
        if case.beside == "partners":
            beside = {"references": x[1::2], "reference_labels": labels[1::2]}
            return run(x[0::2], labels[0::2], **beside)
        return run(x, labels)

    step = jax.value_and_grad(value, (0, 1), has_aux=True)
    return mining.compiled(step, lambda found: found[0][0], x, proxies, labels, classes)


def theirs(case: Case, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """PML's loss and its gradient."""
    import torch
    from pytorch_metric_learning import distances, losses

    options = dict(case.options)
    if case.metric == "euclidean":
        options["distance"] = distances.LpDistance(normalize_embeddings=False)
    if case.metric == "dot":
        options["distance"] = distances.DotProductSimilarity(normalize_embeddings=False)
    if case.beside in ("proxies", "anchors"):
        proxies, classes = of_classes(labels)
        options |= {"num_classes": len(classes), "embedding_size": mining.DIM}
    loss = getattr(losses, case.theirs)(**options)
    for parameter in loss.parameters():  # a weight has a column for each class
        parameter.data = torch.tensor(proxies if len(parameter) == len(classes) else proxies.T)
    return mining.torch_step(loss, x, labels)


def measure(case: str, n: int) -> dict[str, Any]:
    """Measures one case in this process: seconds of each repeat, MiB above the inputs, the loss."""
    library, name = case.split()
    of_case = CASES[name]
    if library == "ours":
        from experiments import command

        command.use_xla_flags()  # as in a run
    x, labels = mining.batch(n, of_case.per_class)
    step = (ours if library == "ours" else theirs)(of_case, x, labels)
    common.forget_peak_memory()
    before = common.peak_memory()
    loss = step()
    seconds = common.times(step)
    return {"seconds": seconds, "peak": (common.peak_memory() - before) / 2**20, "loss": loss}


def measure_all(options) -> dict[str, Any]:
    """Measures every loss of both libraries."""
    found = {"machine": common.machine("jax", "torch", "pytorch-metric-learning"), "records": []}
    for n in options.sizes:
        for name, of_case in CASES.items():
            for library in ("ours", "PML"):
                case, so_far = f"{library} {name}", []
                if library == "PML" and n > of_case.most:
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
    """What was measured, as Markdown."""
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
