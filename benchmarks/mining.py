"""Times forward and backward of the triplet loss with every miner, beside other libraries.

    make oracle                      # installs the peers
    .venv/bin/python -m benchmarks.mining

It runs on the CPU, or on a GPU if jax and torch find one. Embeddings are unit vectors of 128 values
in random directions. Every case runs in its own process, in rounds, so that a disturbance of the
machine hits all libraries. The floor is the three matrix products that all distances and their
gradient take: D = X X', D X and D' X.

    --sizes=128,4 1024,4  --miners semi_hard batch_hard     # these miners and their peers
    --cases "floor, tiled 4096" semi_hard "PML semihard"    # these cases
    --one-core                                              # the CPU time of one core
    --again --plot --write                                  # the tables of the last measurement

By --one-core other programs change little.
"""

import functools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.peers import DIM, HAS_SENTENCE_TRANSFORMERS, MARGIN, PEERS

SIZES = ((128, 4), (1024, 4), (1800, 40), (8192, 4), (32768, 4))  # batch, examples a class
TILES = (64, 128, 256, 512, 1024, 4096)
FLOOR, FLOOR_PLAIN = "floor, tiled", "floor, plain"
# For larger batches nobody would run the plain floor: its matrix alone takes gibibytes.
MOST_PLAIN = 8192
MAIN_CASES = (
    FLOOR,
    "semi_hard",
    "torch sort semi-hard",
    "PML semihard",
    "batch_hard",
    "PML BatchHardMiner",
    "batch_all",
    "PML all triplets",
)


def batch(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in random directions, with classes of one size."""
    x = np.random.default_rng(0).normal(size=(n, DIM))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), np.arange(n) // k


def ours(miner: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """Our loss with this miner and its gradient, compiled."""
    import jax

    from triplet_jax import losses

    loss = functools.partial(losses.triplet_loss, miner=miner, margin=MARGIN, key=jax.random.key(0))
    step = jax.value_and_grad(loss, has_aux=True)
    return compiled(step, lambda found: found[0][0], x, labels)


def floor_plain(x: np.ndarray) -> Callable[[], float]:
    """The three products with the whole matrix of distances."""

    def products(x):
        d = _product(x, x.T)
        return _product(d, x) + _product(d.T, x)

    return compiled(products, lambda found: found[0, 0], x)


def floor_tiled(tile: int, x: np.ndarray) -> Callable[[], float]:
    """The three products, a tile of anchors at a time.

    The third is X_tile' D_tile, which needs no transposed copy of the tile.
    """
    import jax
    import jax.numpy as jnp

    def products(x):
        columns = x.T

        def of_tile(total, anchors):
            d = _product(anchors, columns)
            return total + _product(anchors.T, d), _product(d, x)

        total, rows = jax.lax.scan(of_tile, jnp.zeros_like(columns), x.reshape(-1, tile, DIM))
        return rows.reshape(-1, DIM) + total.T

    return compiled(products, lambda found: found[0, 0], x)


def _product(a, b):
    import jax

    return jax.numpy.matmul(a, b, precision=jax.lax.Precision.HIGHEST)  # as for our distances


def compiled(function: Callable, value: Callable, *arrays: np.ndarray) -> Callable[[], float]:
    """Compiles `function` for the arrays; the result runs it and takes a number of its output."""
    import jax

    arrays = jax.device_put(arrays)
    program = jax.jit(function).lower(*arrays).compile()
    return lambda: float(value(jax.block_until_ready(program(*arrays))))


def peer(name: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """The loss of another library, and its gradient."""
    return torch_step(PEERS[name].make(), x, labels)


def torch_step(loss: Callable, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """A loss of torch, and its gradient by the embeddings and the loss's own parameters."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.tensor(x, device=device, requires_grad=True)
    labels = torch.tensor(labels, device=device)

    parameters = list(loss.parameters()) if isinstance(loss, torch.nn.Module) else []

    def step(x=x, labels=labels):
        value = loss(x, labels)
        torch.autograd.grad(value, [x, *parameters])
        return value.item()

    # Torch sets itself up at its first use; that memory does not belong to the step.
    some = 2 * int((labels == 0).sum())
    step(x[:some].detach().requires_grad_(), labels[:some])
    return step


def measure(case: str, n: int, k: int, one_core: bool) -> dict[str, Any]:
    """Measures one case in this process: seconds of each repeat, MiB above the inputs, the loss."""
    if one_core:  # before threads are started
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if case not in PEERS:
        from experiments import command

        command.use_xla_flags()  # as in a run
    x, labels = batch(n, k)
    if case in PEERS:
        step = peer(case, x, labels)
    elif case == FLOOR_PLAIN:
        step = floor_plain(x)
    elif case.startswith(FLOOR):
        step = floor_tiled(int(case.split()[-1]), x)
    else:
        step = ours(case, x, labels)
    device, peak = _device(case)
    before = peak()
    loss = step()
    seconds = common.times(step, time.process_time if one_core else time.perf_counter)
    memory = (peak() - before) / 2**20
    return {"seconds": seconds, "peak": memory, "loss": loss, "device": device}


def _device(case: str) -> tuple[str, Callable[[], int]]:
    """The name of the accelerator, if there is one, and a function that reads its peak of memory.

    For jax it reads NaN, since jax's peak includes compiling.
    """
    if case in PEERS:
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated
    else:
        import jax

        device = jax.local_devices()[0]
        if device.platform != "cpu":
            return device.device_kind, lambda: math.nan
    common.forget_peak_memory()
    return "", common.peak_memory


def cases(n: int, miners: list[str] | None) -> list[str]:
    """The floors, then our miners, each followed by the peers that have the same rule."""
    from triplet_jax import mining

    chosen = [name for name in mining.MINERS if miners is None or name in miners]
    names = [FLOOR_PLAIN, *(f"{FLOOR} {tile}" for tile in _tiles(n))]
    for name in chosen:
        names += [name, *(p for p, peer in PEERS.items() if _partner(peer, chosen) == name)]
    if miners is None:
        names += [p for p, peer in PEERS.items() if _partner(peer, chosen) is None]
    return names


def _partner(peer, chosen):
    return next((name for name in peer.like if name in chosen), None)


def _tiles(n):
    """The divisors of the batch nearest to the tile sizes to try."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return sorted({min(divisors, key=lambda d: abs(d - tile)) for tile in TILES})


def refusal(case: str, n: int, k: int, options) -> str | None:
    """Why a case is not run; None if it is."""
    if case == FLOOR_PLAIN and n > MOST_PLAIN:
        return "not run, the matrix is too large"
    if case not in PEERS:
        return None
    peer = PEERS[case]
    gib, seconds = peer.memory(n, k) / 2**30, peer.seconds(n, k)
    if gib > options.most_gib:
        return f"{peer.grows}, not run: {gib:,.0f} GiB expected"
    if seconds > options.most_seconds:
        return f"{peer.grows}, not run: {seconds:,.0f} s expected"
    return None


def measure_all(options) -> dict[str, Any]:
    """Measures every case of every size, and writes the file after each, so that none is lost."""
    packages = ("jax", "torch", "pytorch-metric-learning", "sentence-transformers")
    found = {"machine": common.machine(*packages), "records": []}
    found["time"] = "CPU seconds, on one core" if options.one_core else "seconds"
    for n, k in options.sizes:
        rounds = {case: [] for case in options.cases or cases(n, options.miners)}
        for number in range(options.rounds):
            for case, so_far in rounds.items():
                if so_far and "note" in so_far[-1]:
                    continue  # it would fail again
                note = refusal(case, n, k, options)
                so_far.append({"note": note} if note else _in_own_process(case, n, k, options))
                print(f"{n} {k} round {number + 1} {case}: {_brief(so_far[-1])}", flush=True)
                keep = [r for r in found["records"] if (r["n"], r["k"], r["case"]) != (n, k, case)]
                record = {"n": n, "k": k, "case": case} | common.pooled(so_far)
                found["records"] = [*keep, record]
                options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _in_own_process(case, n, k, options):
    return common.in_own_process(
        *("benchmarks.mining", "--measure", case, f"--sizes={n},{k}"),
        *["--one-core"] * options.one_core,
        timeout=options.timeout,
    )


def _brief(record):
    return record.get("note") or f"{np.median(record['seconds']):.6f} s, {record['peak']:.0f} MiB"


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    sizes = dict.fromkeys((r["n"], r["k"]) for r in found["records"])
    devices = {r["device"] for r in found["records"] if r.get("device")}
    parts = [f"{found['machine']}{''.join(f'; {name}' for name in sorted(devices))}."]
    if not HAS_SENTENCE_TRANSFORMERS and not any("ST " in r["case"] for r in found["records"]):
        parts.append("sentence-transformers was not installed and is left out.")
    for n, k in sizes:
        records = [r for r in found["records"] if (r["n"], r["k"]) == (n, k)]
        parts.append(
            f"### n = {n:,}, {k} a class\n\n{_table(_with_best_floor(records), found['time'])}"
        )
    return "\n\n".join(parts)


def _with_best_floor(records):
    """The records by the names of their cases; only the fastest floor is kept."""
    floors = [r for r in records if r["case"].startswith(FLOOR)]
    floors = floors or [r for r in records if r["case"] == FLOOR_PLAIN]
    rest = {r["case"]: r for r in records if r not in floors}
    if not floors:  # --cases names none
        return rest
    return {FLOOR: min(floors, key=lambda r: r.get("median", np.inf))} | rest


def _table(by_case, time_of):
    header = ("case", f"{time_of} (least to most)", "/ floor", "peer / ours", "peak MiB", "loss")
    floor = by_case.get(FLOOR, {}).get("median")
    rows = []
    for name, record in by_case.items():
        title = record["case"] if name == FLOOR else name
        if "median" not in record:
            rows.append((title, record["note"], "", "", "", ""))
            continue
        seconds = record["median"]
        loss = "" if name.startswith("floor") else f"{record['loss']:.5f}"
        of_floor = common.ratio(seconds / floor) if floor else ""
        of_ours = _of_ours(name, seconds, by_case)
        peak = "" if math.isnan(record["peak"]) else f"{record['peak']:.0f}"
        shown = common.with_spread(record, "{:.3g}".format)
        rows.append((title, shown, of_floor, of_ours, peak, loss))
    return common.table(header, rows)


def _of_ours(name, seconds, by_case):
    """The time of a peer over the time of each of our miners that it is compared with."""
    like = PEERS[name].like if name in PEERS else ()
    ratios = {miner: seconds / by_case[miner]["median"] for miner in like if _timed(miner, by_case)}
    return ", ".join(f"{common.ratio(ratio)} ({miner})" for miner, ratio in ratios.items())


def _timed(case, by_case):
    return "median" in by_case.get(case, {})


def plot(found: dict[str, Any], path: pathlib.Path) -> None:
    """Draws time over the batch, for the main cases with four examples of each class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    by_size = {
        n: _with_best_floor([r for r in found["records"] if (r["n"], r["k"]) == (n, 4)])
        for n in sorted({r["n"] for r in found["records"] if r["k"] == 4})
    }
    for case in MAIN_CASES:
        line = {n: by[case]["median"] for n, by in by_size.items() if _timed(case, by)}
        if not line:
            continue
        color = "black" if case == FLOOR else _colors()[case]
        style = {"floor,": ":", "PML": "s--", "torch": "^-."}.get(case.split()[0], "o-")
        axes.plot(line.keys(), line.values(), style, color=color, label=case)
    axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="seconds, forward and backward")
    axes.set_xticks(list(by_size), [f"{n:,}" for n in by_size], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _colors():
    """A colour for each of our miners and its peers."""
    colors = {}
    for number, miner in enumerate(("semi_hard", "batch_hard", "batch_all")):
        same = [miner, *(name for name, peer in PEERS.items() if miner in peer.like)]
        colors |= dict.fromkeys(same, f"C{number}")
    return colors


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(options.measure, *options.sizes[0], options.one_core)))
        return
    found = common.report(options, measure_all, tables)
    if options.plot:
        plot(found, options.output.with_suffix(".png"))


def _options():
    parser = common.parser(__doc__, "mining", rounds=2)
    parser.add_argument("--sizes", nargs="+", type=_size, default=SIZES, help="such as 1024,4")
    parser.add_argument("--miners", nargs="+", help="our miners; all by default")
    parser.add_argument("--cases", nargs="+", help="cases by name, in place of --miners")
    parser.add_argument("--most-gib", type=float, default=12, help="memory that a peer may take")
    parser.add_argument("--most-seconds", type=float, default=60, help="time that a peer may take")
    parser.add_argument("--one-core", action="store_true", help="count the CPU time of one core")
    parser.add_argument("--plot", action="store_true", help="draw a plot beside --output")
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    n, k = map(int, text.split(","))
    return n, k


if __name__ == "__main__":
    main()
