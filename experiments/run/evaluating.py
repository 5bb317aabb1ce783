"""Evaluates a run on its test split: `result.json`, `embeddings.npz` and a printed table."""

import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments.config import datasets, naming
from experiments.run import (
    changes,
    config_json,
    data_json,
    embedding_metrics,
    frozen_features,
    pretrained,
    raw_inputs,
    restoring,
    score_table,
)
from triplet_jax import data, errors
from triplet_jax.data import images
from triplet_jax.devices import processes
from triplet_jax.runs import files

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def evaluate_folder(workdir: pathlib.Path, moved_to: str | None = None) -> dict:
    """Evaluates the run in a folder; see `evaluate`.

    Args:
      workdir: its folder.
      moved_to: where its data are now, if they were moved.

    Raises:
      InputError: the run, its checkpoints or its data cannot be read, or do not belong together.
    """
    config = config_json.read(workdir)
    everything = data_json.open_data(workdir, config, moved_to)
    datasets.check_test(config, everything)
    run = restoring.load(workdir, config, everything.input_shape, everything.pair_shapes)
    return evaluate(run, everything)


def evaluate(
    run: restoring.TrainedRun,
    everything: data.Dataset,
    extra: dict | None = None,
    inputs: np.ndarray | images.Images | None = None,
) -> dict:
    """Evaluates a run by its best checkpoint, or its last, as `evaluate.checkpoint` says.

    Writes `result.json` and `embeddings.npz`, and prints a table.

    Args:
      run: the run.
      everything: all its examples.
      extra: what else to put into the result.
      inputs: what `run.embed` takes for the examples; None for their own inputs.

    Returns:
      What `result.json` holds.
    """
    started = time.perf_counter()
    config, (step, judged) = run.config, run.judged()
    embeddings = run.embed_with(judged, everything.inputs if inputs is None else inputs)
    tested, of_tested = everything.only("test"), embeddings[everything.split == "test"]
    changed = processes.first_does(lambda: changes.history(run.workdir))
    result = {
        **embedding_metrics.judge(config, tested, of_tested),
        "protocol": protocol(config, everything, step, changed or ()),
        "seed": config.seed,
        "checkpoint_step": step,
        "trained_steps": processes.first_does(lambda: run.checkpoints.steps[-1]),
        "device": devices(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "evaluation_seconds": time.perf_counter() - started,
    } | (extra or {})
    if changed:
        result["changes"] = changed
    weights = processes.first_does(lambda: pretrained.recorded(run.workdir))
    if weights:
        result["weights"] = weights
    alone = processes.first_does(lambda: frozen_features.recorded(run.workdir))
    if alone and "test" in alone:
        result["frozen_features"] = {"retrieval": alone["test"]}
    if config.loss.nested_dims:
        result["nested"] = embedding_metrics.nested(config, tested, of_tested)
    processes.first_does(lambda: _write(run, everything, embeddings, result))
    return result


def _write(run, everything, embeddings, result):
    workdir = run.workdir
    # The result comes last, since it says that the run is done.
    known = embedding_metrics.groups_to_ignore(run.config, everything)
    known["is_query"] = everything.is_query
    files.write_arrays(
        workdir / "embeddings.npz",
        embeddings=embeddings,
        labels=everything.labels,
        split=everything.split,
        **{name: array for name, array in known.items() if array is not None},
    )
    files.write_json(workdir / "result.json", result)
    score_table.show(result, workdir)
    if not everything.pair_shapes:
        score_table.report_queries(result["embedding"]["retrieval"])


def devices() -> str:
    """Names the devices, such as `2 x cpu in 2 processes`."""
    count = jax.process_count()
    shared = f" in {count} processes" if count > 1 else ""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}{shared}"


# -- what the numbers were measured on ---------------------------------------------------


def protocol(
    config: ml_collections.FrozenConfigDict,
    everything: data.Dataset,
    step: int,
    changed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, str]:
    """Describes, for a reader of the result, what each number was measured on.

    Args:
      config: of the run.
      everything: all its examples.
      step: of the checkpoint.
      changed: the history of the run's config, from `changes.history`.
    """
    train, validation, test = (
        everything.labels[everything.split == split] for split in data.SPLITS
    )
    of_validation = everything.only("validation")
    if everything.pair_shapes:
        best = f"the best Recall@1 on {len(validation) // 2} validation pairs"
        return {
            "test": f"{len(test) // 2} pairs, none of them seen in training",
            "checkpoint": f"step {step}, {why_this_checkpoint(config, of_validation, best)}",
            "retrieval": "every test row of one array is a query, all of the other are references;"
            " Euclidean",
            "chance": "k references at random",
        }
    unseen = not np.intersect1d(train, test).size
    block = raw_inputs.block_of(everything.input_shape)
    best = (
        f"the best MAP@R on {len(validation)} validation examples of"
        f" {len(np.unique(validation))} classes{_older_scores(changed)}"
    )
    return {
        "test": f"{len(test)} examples of {len(np.unique(test))} classes, "
        + ("none of them seen in training" if unseen else "the classes of training"),
        "checkpoint": f"step {step}, {why_this_checkpoint(config, of_validation, best)}",
        "retrieval": _who_searches(config, everything.only("test")),
        "few_shot": "nearest prototype, 5 queries a class; random classes, or within a group",
        "verification": "Euclidean; all pairs of one kind, or a million drawn, as counted",
        "clustering": "k-means with k = number of classes, one start",
        **copies(config.evaluate.augment),
        "raw_pixels": "inputs as vectors of length 1"
        + (f", averaged over blocks of {block} x {block} pixels" if block > 1 else ""),
    }


def _older_scores(changed):
    """Says up to which step validation left out other references, so that its scores differ."""
    names = ("dataset.ignore_columns", "evaluate.ignore_group")
    found = [change for change in changed if change["field"] in names and change["step"]]
    if not found:
        return ""
    last = max(change["step"] for change in found)
    fields = " and ".join(sorted({change["field"] for change in found}))
    return f"; the scores up to step {last} are by another {fields}"


def copies(changes: Sequence[str]) -> dict[str, str]:
    """What a protocol says of the copies by which images are embedded; empty for none.

    Args:
      changes: the copies, as `evaluate.augment` says.
    """
    if not changes:
        return {}
    return {"augment": f"each image is embedded by several copies: {', '.join(changes)}"}


def check_embeddings(workdir: pathlib.Path, step: int, augment: Sequence[str]) -> None:
    """Refuses the embeddings of the last evaluation if the run is judged otherwise by now.

    So it is where it went on, and has not been evaluated since.

    Args:
      workdir: of the run.
      step: of the checkpoint that the run is judged by now.
      augment: the copies by which images are embedded now, as `evaluate.augment` says.

    Raises:
      InputError: the embeddings are of another checkpoint, or by other copies.
    """
    path = workdir / "result.json"
    if not path.exists():
        return
    again = f"To write the file anew: python -m experiments.evaluate --workdir={workdir}"
    with naming.with_advice(again):
        result = files.read_json(path, "protocol", "checkpoint_step")
        protocol = result["protocol"]
        before = protocol.get("augment") if isinstance(protocol, dict) else None
        now = copies(augment).get("augment")
        if (result["checkpoint_step"], before) != (step, now):
            raise errors.InputError(
                f"{workdir / 'embeddings.npz'} is of step {result['checkpoint_step']}"
                f"{_where(before)}, and the run is judged by step {step}{_where(now)} by now."
            )


def _where(copies):
    return f", where {copies}" if copies else ""


def _who_searches(config, test):
    found = "every test example is a query, all others are references"
    if test.is_query is not None:
        queries = int(test.is_query.sum())
        found = f"{queries} test queries search {len(test) - queries} references"
    if config.evaluate.ignore_group:
        found += ", without those of the query's own class and group"
    if config.dataset.ignore_columns:
        columns = ", ".join(config.dataset.ignore_columns)
        found += f", without those of the query's own class that agree with it in {columns}"
    return f"{found}; Euclidean"


def why_this_checkpoint(
    config: ml_collections.FrozenConfigDict, validation: data.Dataset, best: str
) -> str:
    """Says why the run is judged by this checkpoint.

    Args:
      config: of the run.
      validation: the validation split.
      best: what to say where it is the best one.
    """
    if config.evaluate.checkpoint == "last":
        return "the last"
    if not len(validation):
        return "the last, as there is no validation split"
    if not datasets.can_score(config, validation):
        groups = " and of two groups" if config.evaluate.ignore_group else ""
        return f"the last, as no two validation examples are of one class{groups}, or all are"
    return best
