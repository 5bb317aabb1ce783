"""Evaluates the best checkpoint of a run on its test split.

    python -m experiments.evaluate --workdir=runs/digits

Several processes share the work, started as those of `experiments.train` are, where each can read
the folder.
"""

import hashlib
import importlib.metadata
import pathlib
import platform
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import rich.console
import rich.table

from experiments import build, changes, command, components, record
from triplet_jax import (
    data,
    embedding,
    errors,
    evaluation,
    hosts,
    images,
    logging,
    models,
    train_step,
)
from triplet_jax.checkpoint import Checkpoints

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")

# What the table shows, of what result.json holds.
SHOWN = {
    "MAP@R": ("retrieval", "map_at_r"),
    "R-precision": ("retrieval", "r_precision"),
    "P@1": ("retrieval", "precision_at_1"),
    "Recall@8": ("retrieval", "recall_at_8"),
    "1-shot": ("few_shot_1", "accuracy"),
    "5-shot": ("few_shot_5", "accuracy"),
    "1-shot within group": ("few_shot_1_within_group", "accuracy"),
    "ROC AUC": ("verification", "roc_auc"),
    "EER": ("verification", "eer"),
    "TAR at FAR 1e-3": ("verification", "tar_at_far_1e-3"),
    "NMI": ("clustering", "nmi"),
    "AMI": ("clustering", "ami"),
}
# The k of Recall at k that it shows of pairs.
SHOWN_OF_PAIRS = (1, 5, 10)


def main() -> None:
    workdir = pathlib.Path(
        command.required(command.WORKDIR, "the folder of a trained run")
    ).absolute()
    command.start_processes()
    of_run(workdir, command.DATA.value)


def of_run(workdir: pathlib.Path, moved_to: str | None = None) -> dict:
    """Evaluates the run of a folder; see `evaluate`.

    Args:
      workdir: of the run.
      moved_to: where the data are now, if they were moved.

    Raises:
      InputError: the run, its checkpoints or its data cannot be read, or do not belong together.
    """
    config = record.read_config(workdir)
    everything = record.open_data(workdir, config, moved_to)
    build.check_test(config, everything)
    encoder, state, checkpoints = load_run(
        config, workdir, everything.input_shape, everything.pair_shapes
    )
    embed = embedding.make_embed(encoder, batch=config.evaluate.batch)
    return evaluate(config, workdir, everything, embed, state, checkpoints)


def load_run(
    config: ml_collections.FrozenConfigDict,
    workdir: pathlib.Path,
    input_shape: tuple[int, ...],
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> tuple[nn.Module, train_step.TrainState, Checkpoints]:
    """The encoder of a run, a state of its structure, and its checkpoints.

    Raises:
      InputError: the checkpoints belong to another config, or hold other arrays.
    """
    components.warn_of_changes(workdir, config)
    encoder = build.encoder(config, input_shape, pair_shapes)
    like = jax.eval_shape(lambda: build.initial_state(config, encoder, input_shape))

    def opened():
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        # Before the state is made, which of an edited config may not fit into memory.
        record.check_checkpoints(config, checkpoints)
        checkpoints.check_arrays(like)
        return checkpoints

    checkpoints = hosts.first_does(opened)
    return encoder, build.initial_state(config, encoder, input_shape), checkpoints


def restore(
    config: ml_collections.FrozenConfigDict, checkpoints: Checkpoints, state: train_step.TrainState
) -> tuple[int, train_step.TrainState]:
    """The step and the state that a run is judged by, as `evaluate.checkpoint` says."""

    def read():
        if config.evaluate.checkpoint == "best":
            return checkpoints.restore_best(state)
        return checkpoints.restore_last(state)

    step, judged = hosts.first_reads(read, like=(np.int64(0), state))
    return int(step), judged


def evaluate(
    config: ml_collections.FrozenConfigDict,
    workdir: pathlib.Path,
    everything: data.Dataset,
    embed,
    state: train_step.TrainState,
    checkpoints: Checkpoints,
    extra: dict | None = None,
) -> dict:
    """Evaluates the best checkpoint; writes result.json and embeddings.npz, prints a table.

    Args:
      config: of the run.
      workdir: of the run.
      everything: all examples.
      embed: from `embedding.make_embed`.
      state: any state of the run, for its structure.
      checkpoints: of the run.
      extra: what else to put into the result.

    Returns:
      What result.json holds.
    """
    started = time.perf_counter()
    step, best = restore(config, checkpoints, state)
    everything_embedded = embed(train_step.replicate(best.variables), everything.inputs)
    test = everything.split == "test"
    tested, ours = everything.only("test"), everything_embedded[test]
    judged = judge_pairs if everything.pair_shapes else judge
    result = {
        **judged(config, tested, ours),
        "protocol": protocol(config, everything, step),
        "seed": config.seed,
        "checkpoint_step": step,
        "trained_steps": hosts.first_does(lambda: checkpoints.steps[-1]),
        "device": devices(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "evaluation_seconds": time.perf_counter() - started,
    } | (extra or {})
    changed = hosts.first_does(lambda: changes.history(workdir))
    if changed:
        result["changes"] = changed
    if config.loss.nested_dims:
        result["nested"] = nested(config, tested, ours)
    hosts.first_does(lambda: write(workdir, everything, everything_embedded, result))
    return result


def write(workdir: pathlib.Path, everything, embeddings: np.ndarray, result: dict) -> None:
    """The files of an evaluation, and a table on the screen."""
    # The result last, since it says that the run is done; each file whole or not at all.
    logging.write_arrays(
        workdir / "embeddings.npz",
        embeddings=embeddings,
        labels=everything.labels,
        split=everything.split,
    )
    logging.write_json(workdir / "result.json", result)
    show(result, workdir)


def devices() -> str:
    """How many of what kind, and of how many processes."""
    count = jax.process_count()
    processes = f" in {count} processes" if count > 1 else ""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}{processes}"


def retrieval(examples: data.Dataset, embeddings: np.ndarray) -> dict[str, float]:
    """Retrieval among examples, or from one array of pairs to the other."""
    if examples.pair_shapes:
        return evaluation.retrieval_of_pairs(embeddings[0::2], embeddings[1::2])["retrieval"]
    return evaluation.retrieval(embeddings, examples.labels)


def judge(config, test: data.Dataset, embeddings: np.ndarray) -> dict[str, dict]:
    """The metrics of the embeddings, and of the inputs themselves."""
    groups = None if test.groups is None else test.groups[test.labels]
    return {
        "embedding": scores(config, embeddings, test.labels, groups),
        "raw_pixels": scores_of_raw_inputs(config, test),
    }


def judge_pairs(config, test: data.Dataset, embeddings: np.ndarray) -> dict[str, dict]:
    """Retrieval from one array to the other, and what guessing reaches."""
    del config
    pairs = len(test) // 2
    return {
        "embedding": evaluation.retrieval_of_pairs(embeddings[0::2], embeddings[1::2]),
        "chance": {f"recall_at_{k}": min(1.0, k / pairs) for k in SHOWN_OF_PAIRS},
    }


def scores_of_raw_inputs(config, test: data.Dataset) -> dict[str, dict]:
    """The floor for any embedding; measured once for the runs of a sweep, which share it."""
    mark = hashlib.sha256(f"{config.evaluate.ways} {config.evaluate.episodes}".encode())
    raw = raw_inputs(test)
    for array in (raw, test.labels):
        mark.update(np.ascontiguousarray(array).tobytes())
    if mark.digest() not in _RAW:
        groups = None if test.groups is None else test.groups[test.labels]
        _RAW.clear()
        _RAW[mark.digest()] = scores(config, raw, test.labels, groups)
    return _RAW[mark.digest()]


_RAW: dict[bytes, dict] = {}


# Larger images are averaged over blocks before they are compared themselves: 5,000 of 224 pixels
# took 6 GiB as floats.
RAW_PIXELS = 64


def raw_inputs(test: data.Dataset) -> np.ndarray:
    """The inputs themselves as vectors of length 1, the floor for any embedding.

    Images of more than `RAW_PIXELS` a side are averaged over the smallest square blocks that bring
    them to that or below; rows and columns that fill no block are left out.
    """
    block = _block(test.input_shape)
    parts = np.split(np.arange(len(test)), range(256, len(test), 256))
    raw = np.concatenate([_averaged(images.load(test.inputs[part]), block) for part in parts])
    raw /= np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
    return raw


def _block(shape):
    """How many pixels a side are averaged into one of `raw_inputs`."""
    return -(-min(shape[:2]) // RAW_PIXELS) if len(shape) == 3 else 1


def _averaged(inputs, block):
    if block > 1:
        height, width = (size // block for size in inputs.shape[1:3])
        whole = inputs[:, : height * block, : width * block]
        shape = (len(inputs), height, block, width, block, inputs.shape[3])
        inputs = whole.reshape(shape).mean(axis=(2, 4), dtype=np.float32)
    return inputs.reshape(len(inputs), -1).astype(np.float32)


def scores(config, embeddings: np.ndarray, labels: np.ndarray, groups) -> dict[str, dict]:
    """All the metrics of one set of embeddings. Few-shot tasks that do not fit are left out."""
    # Every process finds the neighbours of a part; the rest is quick, and the first's alone.
    result = {"retrieval": evaluation.retrieval(embeddings, labels)}
    if not hosts.is_first():
        return result
    result |= {
        "verification": evaluation.verification(embeddings, labels),
        "clustering": evaluation.clustering(embeddings, labels),
    }
    ways = min(config.evaluate.ways, len(np.unique(labels)))
    tasks = {"few_shot_1": (1, None), "few_shot_5": (5, None)}
    if groups is not None:
        tasks["few_shot_1_within_group"] = (1, groups)
    for name, (shots, among) in tasks.items():
        try:
            result[name] = evaluation.few_shot(
                embeddings,
                labels,
                ways=ways,
                shots=shots,
                episodes=config.evaluate.episodes,
                seed=0,
                groups=among,
            )
        except errors.InputError:  # the classes are too few or too small for this task
            continue
    return result


def nested(config, test: data.Dataset, embeddings: np.ndarray) -> dict[str, dict]:
    """Retrieval with the first values of an embedding, by how many: what a short one costs."""
    found = {}
    for dim in config.loss.nested_dims:
        short = models.prefix(jnp.asarray(embeddings), dim, normalize=config.model.normalize)
        found[str(dim)] = retrieval(test, np.asarray(short))
    return found


def protocol(config, everything: data.Dataset, step: int) -> dict[str, str]:
    """In words, what the numbers were measured on."""
    train, validation, test = (
        everything.labels[everything.split == split] for split in data.SPLITS
    )
    if everything.pair_shapes:
        best = f"the best Recall@1 on {len(validation) // 2} validation pairs"
        return {
            "test": f"{len(test) // 2} pairs, none of them seen in training",
            "checkpoint": f"step {step}, " + _why_this_checkpoint(config, validation, best),
            "retrieval": "every test row of one array is a query, all of the other are references;"
            " Euclidean",
            "chance": "k references at random",
        }
    unseen = not np.intersect1d(train, test).size
    block = _block(everything.input_shape)
    best = f"the best MAP@R on {len(validation)} validation examples of"
    best += f" {len(np.unique(validation))} classes"
    return {
        "test": f"{len(test)} examples of {len(np.unique(test))} classes, "
        + ("none of them seen in training" if unseen else "the classes of training"),
        "checkpoint": f"step {step}, " + _why_this_checkpoint(config, validation, best),
        "retrieval": "every test example is a query, all others are references; Euclidean",
        "few_shot": "nearest prototype, 5 queries a class; random classes, or within a group",
        "verification": "Euclidean; all pairs of one kind, or a million drawn, as counted",
        "clustering": "k-means with k = number of classes, one start",
        "raw_pixels": "inputs as vectors of length 1"
        + (f", averaged over blocks of {block} x {block} pixels" if block > 1 else ""),
    }


def _why_this_checkpoint(config, validation, best):
    if config.evaluate.checkpoint == "last":
        return "the last"
    if not len(validation):
        return "the last, as there is no validation split"
    _, counts = np.unique(validation, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        return "the last, as no two validation examples are of one class, or all are"
    return best


def show(result: dict, workdir: pathlib.Path) -> None:
    """Prints the numbers beside those of the raw inputs, or of pairs beside chance."""
    table = _table_of_pairs(result) if "chance" in result else _table(result)
    for dim, short in result.get("nested", {}).items():
        table.add_row(f"MAP@R, {dim} values", _number(short, "map_at_r"))
    rich.console.Console().print(table)
    print(f"{result['protocol']['checkpoint']}; written to {workdir / 'result.json'}")


def _table_of_pairs(result):
    ways = {way.replace("_", " "): result["embedding"][way] for way in result["embedding"]}
    del ways["retrieval"]
    table = rich.table.Table("", *ways, "chance", title=result["protocol"]["test"])
    for k in SHOWN_OF_PAIRS:
        parts = (*ways.values(), result["chance"])
        table.add_row(f"Recall@{k}", *(_number(part, f"recall_at_{k}") for part in parts))
    return table


def _table(result):
    table = rich.table.Table("", "embedding", "raw pixels", title=result["protocol"]["test"])
    for name, (part, metric) in SHOWN.items():
        if part in result["embedding"]:
            ours, raw = (result[which][part] for which in ("embedding", "raw_pixels"))
            if part.startswith("few_shot"):
                name = f"{ours['ways']}-way {name}"
            table.add_row(name, _number(ours, metric), _number(raw, metric))
    return table


def _number(part, metric):
    if part.get(metric) is None:  # which the examples cannot tell
        return "-"
    interval = f" ± {part['ci95']:.3f}" if "ci95" in part else ""
    return f"{part[metric]:.3f}{interval}"


if __name__ == "__main__":
    command.run(main, of_several=True)
