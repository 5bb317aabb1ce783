"""Takes the figures that need an accelerator, by one command: python -m benchmarks.gpu --write

    python -m benchmarks.gpu --small              # tries every case out, on a CPU too

Triplet and contrastive losses with their gradient in each precision, beside three matrix products
of the same size; InfoNCE of two towers; a step of ten seeds at once beside that of one; and exact
search among a million rows, beside cuVS and faiss if they are installed for the device. Memory is
that of the compiled program: its arguments, its results and what it holds in between. Every case
runs in its own process. A case that fails or takes too long leaves a note, and its turn to the
next. On a CPU, and with --small, nothing is written but that the figures were not measured.
"""

import functools
import json
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.mining import MARGIN

PRECISIONS = ("float32", "tf32", "bfloat16")
SMALL = 64
"""By how much --small divides the rows."""


class Case(NamedTuple):
    """What is measured."""

    kind: str
    name: str
    rows: int
    dim: int
    precision: str = "float32"
    wanted: str = ""
    """The figure to reach."""


def _cases() -> dict[str, Case]:
    cases = [
        Case("triplets", "semi_hard", 32_768, 128, p, "" if p == "float32" else "5 ms")
        for p in PRECISIONS
    ]
    cases += [
        Case("towers", "info_nce", 65_536, 768, p, "" if p == "float32" else "50 ms, 1.5 GB")
        for p in PRECISIONS
    ]
    cases += [Case("floor", "three products", 32_768, 128, p) for p in PRECISIONS]
    cases += [Case("seeds", "one", 128, 64), Case("seeds", "ten", 128, 64, wanted="2 x one")]
    for name in ("batch_hard", "batch_all", "semi_hard_band"):
        cases += [Case("triplets", name, 32_768, 128, p) for p in PRECISIONS]
    for name in ("supervised_contrastive", "multi_similarity", "circle", "pairs"):
        cases += [Case("contrastive", name, 32_768, 128, p) for p in ("float32", "tf32")]
    cases += [Case("search", name, 1_000_000, 128) for name in ("ours", "cuVS", "faiss")]
    return {f"{c.kind} {c.name}, {c.rows:,} x {c.dim}, {c.precision}": c for c in cases}


CASES = _cases()


def unit_rows(seed: int, rows: int, dim: int) -> np.ndarray:
    """Unit vectors in random directions."""
    x = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


class Step(NamedTuple):
    """What is timed."""

    run: Callable[[], Any]
    memory: int | None = None
    """Bytes of the compiled program."""


def compiled(function: Callable, *arrays: Any) -> Step:
    """The compiled function of these arrays."""
    import jax

    arrays = jax.device_put(arrays)
    program = jax.jit(function).lower(*arrays).compile()
    found = program.memory_analysis()
    memory = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return Step(lambda: jax.block_until_ready(program(*arrays)), memory)


def triplets(case: Case) -> Step:
    """A miner's loss, with its gradient."""
    import jax

    from triplet_jax import losses

    settings = {"miner": case.name, "margin": MARGIN, "precision": case.precision}
    loss = functools.partial(losses.triplet_loss, key=jax.random.key(0), **settings)
    labels = np.arange(case.rows) // 4
    return compiled(
        jax.value_and_grad(loss, has_aux=True), unit_rows(0, case.rows, case.dim), labels
    )


def contrastive(case: Case) -> Step:
    """A contrastive loss, with its gradient."""
    import jax

    from triplet_jax import contrastive

    metric = "euclidean" if case.name == "pairs" else "cosine"
    settings = {"loss": case.name, "metric": metric, "precision": case.precision}
    loss = functools.partial(contrastive.contrastive_loss, **settings)
    labels = np.arange(case.rows) // 4
    return compiled(
        jax.value_and_grad(loss, has_aux=True), unit_rows(0, case.rows, case.dim), labels
    )


def towers(case: Case) -> Step:
    """A contrastive loss of two towers, with its gradient in both."""
    import jax

    from triplet_jax import contrastive

    settings = {"loss": case.name, "metric": "cosine", "precision": case.precision}

    def loss(x, y, labels):
        return contrastive.contrastive_loss(
            x, labels, references=y, reference_labels=labels, **settings
        )

    both = (unit_rows(seed, case.rows, case.dim) for seed in (0, 1))
    labels = np.arange(case.rows)
    return compiled(jax.value_and_grad(loss, (0, 1), has_aux=True), *both, labels)


def floor(case: Case) -> Step:
    """The three products that all distances and their gradient take, by tiles of anchors."""
    import jax
    import jax.numpy as jnp

    from triplet_jax.xla import products

    precision = products.PRECISIONS[case.precision]
    tile = min(case.rows, 1024)

    def of_rows(x):
        x = precision.rounded(x)
        columns = x.T

        def of_tile(total, anchors):
            d = precision.rounded(precision.product(anchors, columns))
            return total + precision.product(anchors.T, d), precision.product(d, x)

        tiles = x.reshape(-1, tile, case.dim)
        total, rows = jax.lax.scan(of_tile, jnp.zeros_like(columns), tiles)
        return rows.reshape(x.shape) + total.T

    return compiled(of_rows, unit_rows(0, case.rows, case.dim))


def seeds(case: Case) -> Step:
    """A step of conv4 on images of 28 x 28, of one seed or of ten by `vmap`, as sweeps take it."""
    import dataclasses

    import jax

    from configs import base
    from experiments.config import encoders, stepping
    from triplet_jax.training import data_parallel

    shape = (28, 28, 1)
    config = base.get_config()
    config.batch.update(classes=case.rows // 4, per_class=4)
    config.model.update(name="conv4", width=64, dim=case.dim)
    config.log.telemetry_every = 0
    encoder = encoders.encoder(config, shape)
    state = stepping.initial_state(config, encoder, shape)
    step = stepping.step(config, encoder, augment=None)
    inputs = np.random.default_rng(0).random((case.rows, *shape), np.float32)
    labels, places = np.arange(case.rows) // 4, np.arange(case.rows)
    batch = (inputs, labels, places)
    if case.name == "ten":
        fields = [f.name for f in dataclasses.fields(state) if getattr(state, f.name) is not None]
        axes = state.replace(**dict.fromkeys(fields, 0) | {"step": None})
        count = state.step
        state = jax.tree.map(lambda x: np.stack([x] * 10), state.replace(step=None))
        state = state.replace(step=count)
        batch = tuple(np.stack([x] * 10) for x in batch)
        step = jax.vmap(step, in_axes=(axes, 0, 0, 0), out_axes=(axes, 0))
    take = data_parallel.streamed(step)
    state, batch = data_parallel.replicate(state), [jax.device_put(x[None]) for x in batch]

    def run():
        nonlocal state
        state, metrics = jax.block_until_ready(take(state, *batch))
        return metrics

    return Step(run)


def search(case: Case) -> Step:
    """The ten nearest of 10,000 queries."""
    queries = unit_rows(1, max(1, case.rows // 100), case.dim)
    references = unit_rows(0, case.rows, case.dim)
    if case.name == "ours":
        from triplet_jax import evaluation

        return Step(lambda: evaluation.nearest(queries, references, neighbours=10))
    if case.name == "cuVS":
        import cupy
        from cuvs.neighbors import brute_force

        index = brute_force.build(cupy.asarray(references), metric="sqeuclidean")

        def run():
            distance, position = brute_force.search(index, cupy.asarray(queries), 10)
            return cupy.asnumpy(cupy.asarray(distance)), cupy.asnumpy(cupy.asarray(position))

        return Step(run)
    import faiss

    index = faiss.IndexFlatL2(case.dim)
    if hasattr(faiss, "StandardGpuResources"):
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(references)
    return Step(lambda: index.search(queries, 10))


KINDS = {
    "triplets": triplets,
    "contrastive": contrastive,
    "towers": towers,
    "floor": floor,
    "seeds": seeds,
    "search": search,
}


def measure(name: str, small: bool) -> dict[str, Any]:
    """Measures one case in this process."""
    from experiments import command

    command.use_xla_flags()  # as in a run
    import jax

    case = CASES[name]
    if small and case.kind != "seeds":
        case = case._replace(rows=case.rows // SMALL)
    step = KINDS[case.kind](case)
    step.run()
    seconds = common.times(step.run)
    device = jax.local_devices()[0].device_kind
    return {"seconds": seconds, "memory": step.memory, "device": device}


def measure_all(options) -> dict[str, Any]:
    """Measures every case."""
    found = {"machine": common.machine("jax", "cuvs-cu13", "cuvs-cu12", "faiss-cpu", "faiss-gpu")}
    found |= {"small": options.small, "records": {}}
    for name in CASES:
        arguments = ["--measure", name, *["--small"] * options.small]
        of_case = common.in_own_process("benchmarks.gpu", *arguments, timeout=options.timeout)
        print(name, of_case.get("note") or f"{_milliseconds(of_case)} ms", flush=True)
        found["records"][name] = of_case
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _milliseconds(record):
    return f"{1e3 * statistics.median(record['seconds']):.3g}"


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown; the cases alone where that was no accelerator."""
    records = found["records"]
    devices = sorted({r["device"] for r in records.values() if "device" in r})
    is_measured = not found["small"] and devices not in ([], ["cpu"])
    rows = []
    for name, case in CASES.items():
        record = records.get(name, {"note": "not run"})
        row = [case.kind, case.name, f"{case.rows:,} x {case.dim}", case.precision, case.wanted]
        if not is_measured:
            row += ["not measured", "", ""]
        elif "note" in record:
            row += [record["note"], "", ""]
        else:
            low, high = 1e3 * min(record["seconds"]), 1e3 * max(record["seconds"])
            memory = record["memory"]
            row += [_milliseconds(record), f"{low:.3g} to {high:.3g}"]
            row += [f"{memory / 1e9:.2f}" if memory else ""]
        rows.append(row)
    header = ["", "case", "rows", "precision", "wanted", "median ms", "range", "GB"]
    on = f"{found['machine']}; {', '.join(devices)}." if is_measured else "Not measured on a GPU."
    return f"{on}\n\n{common.table(header, rows)}"


def main() -> None:
    parser = common.parser(__doc__, "gpu", rounds=1)
    parser.add_argument("--small", action="store_true", help="few rows, to try the cases out")
    parser.set_defaults(timeout=60)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.small)))
        return
    common.report(options, measure_all, tables)


if __name__ == "__main__":
    main()
