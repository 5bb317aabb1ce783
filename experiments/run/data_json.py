"""`data.json` of a run: the data that it began with, opened again and compared with it."""

import pathlib

import ml_collections

from experiments.config import datasets, naming, settings
from experiments.config.fields import declaration
from triplet_jax import data, errors
from triplet_jax.runs import files

# The field that says where the data are, by the name of the data set; `data_dir` for any other.
_PLACES = dict.fromkeys(("arrays", "folder", "huggingface", "pairs", "table", "webdataset"), "path")
_PLACES |= dict.fromkeys(data.BENCHMARKS, "path")
# The fields that name further files, which a run reads whenever it goes on.
_FILES = ("batch.scores", "offline.table")


def content(everything: data.Dataset) -> dict:
    """What `data.json` keeps: a fingerprint of each split, and the shapes of an input.

    Args:
      everything: all examples of the run.
    """
    return {
        "fingerprint": data.fingerprint(everything),
        "fingerprints": data.fingerprints(everything),
        "input_shape": list(everything.input_shape),
        "pair_shapes": everything.pair_shapes and [list(s) for s in everything.pair_shapes],
    }


def of_files(config: ml_collections.FrozenConfigDict) -> dict:
    """What `data.json` keeps of the files that batches are drawn by: their digests, by field.

    Args:
      config: of the run.
    """
    values = settings.flat(config)
    paths = {field: pathlib.Path(values[field]) for field in _FILES if values[field]}
    return {"files": {field: files.sha256(path) for field, path in paths.items()}} if paths else {}


def remember(workdir: pathlib.Path, now: dict) -> None:
    """Writes `data.json` of a new run, or checks that a run goes on with the data it began with.

    Args:
      workdir: of the run.
      now: what `content` says of the data, and `of_files` of further files.

    Raises:
      InputError: the run began with other data, or with other files.
    """
    path = workdir / "data.json"
    if not path.exists():
        files.write_json(path, now)
    else:
        check(workdir, now)


def check(workdir: pathlib.Path, now: dict) -> None:
    """Refuses other data, or other files, than those with which the run in a folder began.

    Args:
      workdir: of the run.
      now: what `content` says of the data, and `of_files` of further files.

    Raises:
      InputError: the run began with other data, or with other files.
    """
    path = workdir / "data.json"
    before = files.read_json(path, "fingerprint")
    _check_data(workdir, before, now)
    kept = before.get("files", {})
    if not isinstance(kept, dict):
        raise errors.InputError(f"{path} is damaged: files={kept!r} are no digests of files.")
    changed = [name for name, mark in now.get("files", {}).items() if kept.get(name, mark) != mark]
    if changed:
        raise errors.InputError(
            f"--workdir={workdir} holds a run that began with another file than is now at"
            f" {' and '.join(changed)}. Put the file back as it was, or train in another --workdir."
        )


def open_data(
    workdir: pathlib.Path, config: ml_collections.FrozenConfigDict, moved_to: str | None = None
) -> data.Dataset:
    """Opens the data of a run, and checks that they are what it began with.

    For a run of an old version, which kept no fingerprint of each split, only the training split
    is compared.

    Args:
      workdir: of the run.
      config: of the run.
      moved_to: where the data are now, if they were moved.

    Raises:
      InputError: they cannot be read, or the run began with other data.
    """
    # A data set of the user's own reads whichever of the two fields is set.
    usually = "path" if config.dataset.path else "data_dir"
    where, usual = _PLACES.get(config.dataset.name, usually), config
    if moved_to:
        if config.dataset.name == "digits":
            raise errors.InputError(
                f"--data={moved_to} has no effect on dataset.name='digits', which has no files:"
                " leave it out."
            )
        usual = ml_collections.ConfigDict(config.to_dict())
        usual.dataset[where] = moved_to
    try:
        everything = datasets.dataset(usual)
    except errors.InputError as error:
        if config.dataset.name == "digits":
            raise
        hint = "" if moved_to else " If the data of this run were moved, give --data=PATH."
        raise errors.InputError(f"{error}{hint}") from error
    path = workdir / "data.json"
    if path.exists():
        _check_data(workdir, files.read_json(path, "fingerprint"), content(everything))
    return everything


def _check_data(workdir, before, now):
    path = workdir / "data.json"
    kept = before.get("fingerprints", {})
    if not isinstance(kept, dict):
        raise errors.InputError(f"{path} is damaged: fingerprints={kept!r} are no fingerprints.")
    different = [split for split, f in now["fingerprints"].items() if kept.get(split, f) != f]
    if before["fingerprint"] != now["fingerprint"] and "train" not in different:
        different.insert(0, "train")
    if different:
        raise errors.InputError(
            f"--workdir={workdir} holds a run on other data: since it began, examples of its"
            f" {' and '.join(different)} split were added, removed, renamed, relabelled or changed,"
            " became unreadable, or are read otherwise by a newer version (upright, over a white"
            ' ground, from more than 8 bits: "Pictures" in docs/reading.md). Put the data back as'
            f" they were, or train in another --workdir. If {path} alone is damaged, remove it."
        )


def input_shapes(
    workdir: pathlib.Path, config: ml_collections.FrozenConfigDict, moved_to: str | None = None
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...] | None]:
    """The shape of an input, and those of either side of a pair; None where there are no pairs.

    The data are opened only for a run of an old version, which did not keep the shapes.

    Args:
      workdir: of the run.
      config: of the run.
      moved_to: where the data are now, if they were moved.

    Raises:
      InputError: the data cannot be read, or the file that holds the shapes is damaged.
    """
    path = workdir / "data.json"
    kept = files.read_json(path, "fingerprint") if path.exists() else {}
    if "input_shape" not in kept:
        everything = open_data(workdir, config, moved_to)
        return everything.input_shape, everything.pair_shapes
    shape, pairs = kept["input_shape"], kept.get("pair_shapes")
    if not all(map(_is_shape, [shape, *(pairs or [])] if isinstance(pairs, list | None) else [0])):
        raise errors.InputError(
            f"{path} is damaged: input_shape={shape!r} and pair_shapes={pairs!r} are no shapes."
            " Put it back as it was."
        )
    return tuple(shape), pairs and tuple(map(tuple, pairs))


def _is_shape(shape):
    return (
        isinstance(shape, list)
        and 1 <= len(shape) <= 3
        and all(type(n) is int and 1 <= n <= declaration.MOST_COUNTED for n in shape)
    )


def read_embeddings(workdir: pathlib.Path):
    """Reads the embeddings, labels and splits that the last evaluation of a run wrote.

    Args:
      workdir: of the run.

    Raises:
      InputError: there are none, or the file is damaged.
    """
    # Here, since pandas takes 0.2 s to import, which training does not need.
    from triplet_jax.analysis import run

    again = f"python -m experiments.evaluate --workdir={workdir}"
    with naming.with_advice(f"To write the file anew: {again}"):
        return run.embeddings_of(workdir)


def embeddings(workdir: pathlib.Path, everything: data.Dataset):
    """Reads the embeddings that the last evaluation of a run wrote, in the order of the examples.

    Args:
      workdir: of the run.
      everything: all its examples, from `open_data`.

    Raises:
      InputError: there are none, or the examples have other labels or splits by now.
    """
    found, labels, split = read_embeddings(workdir)
    same = len(labels) == len(everything) and (labels == everything.labels).all()
    if not (same and (split == everything.split).all()):
        raise errors.InputError(
            f"{workdir / 'embeddings.npz'} is of other examples, or of other labels, than the data"
            " have now. Put the data back as they were when the run was evaluated, or write the"
            f" file anew: python -m experiments.evaluate --workdir={workdir}"
        )
    return found
