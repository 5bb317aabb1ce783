"""Measures what a lower precision of distances changes: picks, losses and gradients.

    python -m benchmarks.precision --write

Products of rounded numbers are exact in float32 on every device, so that a CPU shows what a GPU
gives but for the order of sums. Rows are unit vectors, in random directions or in clusters of their
class, where distances within a class are about 0.7 of those between classes. Triplets are penalised
by the soft margin, which is never 0. Errors are those
beside float64: of the loss relative to its value, of the gradient as the length of the difference
relative to its length. Picks, for miners that take all pairs the triplets, are compared as sets:
what is in one and not in the other, over what float64 has.
"""

import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common

PRECISIONS = ("float32", "tf32", "bfloat16")
ROWS, PER_CLASS = 1024, 4
DIMS = (32, 128, 768)
KINDS = ("random", "clusters")
MINERS = ("batch_hard", "semi_hard", "semi_hard_band", "batch_all")
LOSSES = ("info_nce", "multi_similarity", "smooth_ap")


def batch(dim: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in float32, and their classes."""
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) // PER_CLASS
    x = random.normal(size=(ROWS, dim))
    if kind == "clusters":
        x = x + random.normal(size=(ROWS // PER_CLASS, dim))[labels]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    # Zeros change no distance, and one program then serves all dimensions.
    return np.pad(x, [(0, 0), (0, max(DIMS) - dim)]).astype(np.float32), labels


def triplets(miner: str, precision: str, x, labels: np.ndarray) -> set[tuple[int, int, int]]:
    """The triplets of a miner, whose distances are in this precision and in the type of `x`."""
    import jax
    import jax.numpy as jnp

    from triplet_jax import distances, mining

    metric = distances.in_precision(precision, "euclidean")
    positives = np.array([_others(labels, i) for i in range(len(labels))])
    is_negative = labels[:, None] != labels[None, :]

    @jax.jit
    def mine(x, positives, is_negative):
        a, b = distances.prepared(metric, x, x)
        d = metric.finish(metric.pairwise(a, b.T))
        d_ap = jnp.take_along_axis(d, positives, axis=1)

        def of_anchor(d_ap, d, is_negative):
            is_positive = jnp.ones(len(d_ap), bool)
            found = mining.MINERS[miner](d_ap, is_positive, d, is_negative)
            if found.weight.ndim == 2:
                return found.weight > 0
            picked_ap, picked_an, weight = (jnp.atleast_1d(x) for x in found)
            of_positive = picked_ap[:, None, None] == d_ap[:, None]
            of_negative = (picked_an[:, None, None] == d) & is_negative
            return jnp.any(of_positive & of_negative & (weight > 0)[:, None, None], axis=0)

        return jax.vmap(of_anchor)(d_ap, d, is_negative)

    anchor, positive, negative = np.nonzero(np.asarray(mine(x, positives, is_negative)))
    return set(zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True))


def _others(labels, i):
    return [j for j in np.flatnonzero(labels == labels[i]) if j != i]


def value_and_gradient(name: str, precision: str, x, labels) -> tuple[float, np.ndarray]:
    """The loss of a miner's triplets, or a contrastive loss; and its gradient."""
    import jax

    found, slope = _program(name, precision)(x, labels)
    return float(found), np.asarray(jax.device_get(slope), np.float64)


@functools.cache
def _program(name: str, precision: str) -> Callable:
    import jax

    from triplet_jax import contrastive, losses

    def value(x, labels):
        if name in MINERS:
            settings = {"miner": name, "penalty": "soft_margin", "average": "valid"}
            return losses.triplet_loss(x, labels, precision=precision, **settings)[0]
        settings = {"loss": name, "metric": "cosine"}
        return contrastive.contrastive_loss(x, labels, precision=precision, **settings)[0]

    return jax.jit(jax.value_and_grad(value))


def measure(name: str, dim: int, kind: str) -> list[dict[str, Any]]:
    """Compares each precision with float64."""
    import jax
    import jax.numpy as jnp

    x, labels = batch(dim, kind)
    found = []
    with jax.enable_x64(True):
        exact = jnp.asarray(x, jnp.float64)
        value, slope = value_and_gradient(name, "float32", exact, labels)
        picks = triplets(name, "float32", exact, labels) if name in MINERS else None
    for precision in PRECISIONS:
        low, low_slope = value_and_gradient(name, precision, jnp.asarray(x), labels)
        record = {"name": name, "dim": dim, "kind": kind, "precision": precision}
        if value:  # else there is no triplet
            record["loss"] = abs(low - value) / abs(value)
            record["gradient"] = float(np.linalg.norm(low_slope - slope) / np.linalg.norm(slope))
        if picks is not None:
            own = triplets(name, precision, jnp.asarray(x), labels)
            record["picks"] = len(own ^ picks) / 2 / max(1, len(picks))
        found.append(record)
    return found


def measure_all(options) -> dict[str, Any]:
    """Measures every loss, with every dimension and kind of rows."""
    found = {"machine": common.machine("jax"), "records": []}
    for name, dim, kind in itertools.product((*MINERS, *LOSSES), options.dims, KINDS):
        found["records"] += measure(name, dim, kind)
        print(json.dumps(found["records"][-1]), flush=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    header = ["rows", "miner or loss", "dim"]
    header += [f"{what}, {name}" for what in ("picks", "loss", "gradient") for name in PRECISIONS]
    rows = []
    records = {(r["kind"], r["name"], r["dim"], r["precision"]): r for r in found["records"]}
    for kind, name, dim in dict.fromkeys(key[:3] for key in sorted(records, key=_in_order)):
        row = [kind, name, str(dim)]
        for what in ("picks", "loss", "gradient"):
            for precision in PRECISIONS:
                value = records[kind, name, dim, precision].get(what)
                row.append(
                    "" if value is None else _percent(value) if what == "picks" else f"{value:.0e}"
                )
        rows.append(row)
    return f"{found['machine']}.\n\n{common.table(header, rows)}"


def _in_order(key):
    kind, name, dim, precision = key
    return KINDS.index(kind), (*MINERS, *LOSSES).index(name), dim, PRECISIONS.index(precision)


def _percent(share):
    return "0" if share == 0 else f"{100 * share:.2g}%"


def main() -> None:
    parser = common.parser(__doc__, "precision", rounds=1)
    parser.add_argument("--dims", nargs="+", type=int, default=DIMS, help="values of a row")
    common.report(parser.parse_args(), measure_all, tables)


if __name__ == "__main__":
    main()
