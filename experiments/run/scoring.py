"""The scores of a run on its test split, and the files that hold them."""

import hashlib
import importlib.metadata
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.run import changes, raw_inputs, restoring, score_table
from experiments.run.score_table import SHOWN_OF_PAIRS
from triplet_jax import data, errors, evaluation, models
from triplet_jax.devices.processes import first_does, is_first
from triplet_jax.runs import files
from triplet_jax.runs.checkpoint import Checkpoints
from triplet_jax.training import over_devices, train_state

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def evaluate(
    config: ml_collections.FrozenConfigDict,
    workdir: pathlib.Path,
    everything: data.Dataset,
    embed,
    state: train_state.TrainState,
    checkpoints: Checkpoints,
    extra: dict | None = None,
) -> dict:
    """Evaluates the best checkpoint; writes result.json and embeddings.npz, prints a table.

    Args:
      config: of the run.
      workdir: of the run.
      everything: all examples.
      embed: from `inference.make_embed`.
      state: any state of the run, for its structure.
      checkpoints: of the run.
      extra: what else to put into the result.

    Returns:
      What result.json holds.
    """
    started = time.perf_counter()
    step, best = restoring.restore(config, checkpoints, state)
    everything_embedded = embed(over_devices.replicate(best.variables), everything.inputs)
    test = everything.split == "test"
    tested, ours = everything.only("test"), everything_embedded[test]
    judged = judge_pairs if everything.pair_shapes else judge
    result = {
        **judged(config, tested, ours),
        "protocol": protocol(config, everything, step),
        "seed": config.seed,
        "checkpoint_step": step,
        "trained_steps": first_does(lambda: checkpoints.steps[-1]),
        "device": devices(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "evaluation_seconds": time.perf_counter() - started,
    } | (extra or {})
    changed = first_does(lambda: changes.history(workdir))
    if changed:
        result["changes"] = changed
    if config.loss.nested_dims:
        result["nested"] = nested(config, tested, ours)
    first_does(lambda: write(workdir, everything, everything_embedded, result))
    return result


def write(workdir: pathlib.Path, everything, embeddings: np.ndarray, result: dict) -> None:
    """The files of an evaluation, and a table on the screen."""
    # The result last, since it says that the run is done; each file whole or not at all.
    files.write_arrays(
        workdir / "embeddings.npz",
        embeddings=embeddings,
        labels=everything.labels,
        split=everything.split,
    )
    files.write_json(workdir / "result.json", result)
    score_table.show(result, workdir)


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
    raw = raw_inputs.raw_inputs(test)
    for array in (raw, test.labels):
        mark.update(np.ascontiguousarray(array).tobytes())
    if mark.digest() not in _RAW:
        groups = None if test.groups is None else test.groups[test.labels]
        _RAW.clear()
        _RAW[mark.digest()] = scores(config, raw, test.labels, groups)
    return _RAW[mark.digest()]


_RAW: dict[bytes, dict] = {}


def scores(config, embeddings: np.ndarray, labels: np.ndarray, groups) -> dict[str, dict]:
    """All the metrics of one set of embeddings. Few-shot tasks that do not fit are left out."""
    # Every process finds the neighbours of a part; the rest is quick, and the first's alone.
    result = {"retrieval": evaluation.retrieval(embeddings, labels)}
    if not is_first():
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
    block = raw_inputs.block_of(everything.input_shape)
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
