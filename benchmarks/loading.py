"""Times how fast photographs are decoded for training, beside what a step consumes.

    SHARED_DATA=FOLDER .venv/bin/python -m benchmarks.loading --write

FOLDER/grocery holds photographs in class folders. They are read as they are, of about 160 x 160
pixels, and a part of them again after they were enlarged to 1200 x 900, as a phone might save
them. A stream gives batches of 32, by threads of the run's own process, one worker process or two;
nothing else runs, so that this is the most that a step can be given. Each case runs in its own
process, in rounds.
"""

import functools
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import PIL.Image

from benchmarks import common

SIZE, BATCH, STEPS, WARM_UP = 160, 32, 20, 4
LARGE, MANY = (1200, 900), 320
PICTURES = ("160 x 160", "1200 x 900")
WORKERS = (0, 1, 2)


def enlarged(folder: pathlib.Path) -> None:
    """Writes some of the photographs at the size of a phone's."""
    for number, path in enumerate(_photographs()[:: max(1, len(_photographs()) // MANY)]):
        target = folder / str(number % 8) / f"{number}.jpg"
        target.parent.mkdir(exist_ok=True)
        with PIL.Image.open(path) as image:
            image.convert("RGB").resize(LARGE).save(target, quality=90)


def _photographs():
    folder = pathlib.Path(os.environ["SHARED_DATA"], "grocery", "train")
    return sorted(folder.rglob("*.jpg"))


def measure(pictures: pathlib.Path, workers: int) -> dict[str, Any]:
    """The seconds of each batch after some to warm up."""
    from triplet_jax import data
    from triplet_jax.data import batch_loading, images

    files = [str(path) for path in sorted(pictures.rglob("*.jpg"))]
    form = images.ImageForm(size=SIZE, channels=3)
    dataset = data.Dataset(
        images.Images(files, form),
        np.zeros(len(files), np.int32),
        np.full(len(files), "train"),
        ("any",),
    )

    draw = functools.partial(_batch, len(files))
    batches = batch_loading.stream(
        dataset, draw, first_step=0, steps=STEPS + WARM_UP, workers=workers
    )
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(STEPS):
        next(batches)
    seconds = time.perf_counter() - start
    batches.close()
    return {"seconds": [seconds / STEPS]}


def _batch(examples: int, step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, examples, BATCH)


def measure_all(options) -> dict[str, Any]:
    """Measures every number of workers on both kinds of photographs."""
    found = {"machine": common.machine("pillow", "grain")}
    with tempfile.TemporaryDirectory() as made:
        enlarged(pathlib.Path(made))
        folders = {PICTURES[0]: str(_photographs()[0].parents[2]), PICTURES[1]: made}
        cases = [(p, w) for p in PICTURES for w in WORKERS]
        rounds: dict[tuple, list] = {case: [] for case in cases}
        for _ in range(options.rounds):
            for (pictures, workers), so_far in rounds.items():
                so_far.append(
                    common.in_own_process(
                        *("benchmarks.loading", "--measure", folders[pictures]),
                        *("--workers", workers),
                        timeout=options.timeout,
                    )
                )
                print(pictures, workers, so_far[-1], flush=True)
    found["records"] = [
        {"pictures": p, "workers": w} | common.pooled(so_far) for (p, w), so_far in rounds.items()
    ]
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    rows = []
    for record in found["records"]:
        speed = record.get("note") or f"{BATCH / record['median']:,.0f}"
        by = {0: "threads", 1: "1 process"}.get(record["workers"], f"{record['workers']} processes")
        rows.append((record["pictures"], by, speed))
    header = ("photographs", "loaded by", "images/s")
    return f"{found['machine']}.\n\n{common.table(header, rows)}"


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(pathlib.Path(options.measure), options.workers)))
        return
    common.report(options, measure_all, tables)


def _options():
    parser = common.parser(__doc__, "loading", rounds=3)
    parser.add_argument("--workers", type=int, default=0, help="of --measure")
    return parser.parse_args()


if __name__ == "__main__":
    main()
