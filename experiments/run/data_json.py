"""`data.json` of a run: the data that it began with, opened again and compared with it."""

import pathlib

import ml_collections

from experiments.config import check, datasets
from triplet_jax import data, errors
from triplet_jax.analysis import run
from triplet_jax.runs import files

# The field that says where the data are, by the name of the data set; `data_dir` for any other.
_PLACES = dict.fromkeys(("arrays", "folder", "pairs"), "path")


def content(everything: data.Dataset) -> dict:
    """What is kept of the data of a run: marks of their splits, and the shape of an input."""
    return {
        "fingerprint": data.fingerprint(everything),
        "fingerprints": data.fingerprints(everything),
        "input_shape": list(everything.input_shape),
        "pair_shapes": everything.pair_shapes and [list(s) for s in everything.pair_shapes],
    }


def remember(workdir: pathlib.Path, now: dict) -> None:
    """Writes the mark of the data of a new run, or refuses to continue a run on others.

    Args:
      workdir: of the run.
      now: from `content`.

    Raises:
      InputError: they are not what the run began with.
    """
    path = workdir / "data.json"
    if not path.exists():
        files.write_json(path, now)
    else:
        _check_data(workdir, now)


def open_data(
    workdir: pathlib.Path, config: ml_collections.FrozenConfigDict, moved_to: str | None = None
) -> data.Dataset:
    """The data of a run, which are what it began with.

    Of a run that is too old to have marks of all splits only the training split is compared.

    Args:
      workdir: of the run.
      config: of the run.
      moved_to: where the data are now, if they were moved.

    Raises:
      InputError: they cannot be read, or are not what the run began with.
    """
    where, usual = _PLACES.get(config.dataset.name, "data_dir"), config
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
    if (workdir / "data.json").exists():
        _check_data(workdir, content(everything))
    return everything


def _check_data(workdir, now):
    path = workdir / "data.json"
    before = files.read_json(path, "fingerprint")
    marks = before.get("fingerprints", {})
    if not isinstance(marks, dict):
        raise errors.InputError(f"{path} is damaged: fingerprints={marks!r} are no marks.")
    different = [s for s, m in now["fingerprints"].items() if marks.get(s, m) != m]
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

    The data are opened only for a run that is too old to have kept them.

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
        and all(type(n) is int and 1 <= n <= check.MOST_COUNTED for n in shape)
    )


def embeddings(workdir: pathlib.Path, everything: data.Dataset):
    """The embeddings that a run's last evaluation wrote, in the order of the examples.

    Raises:
      InputError: there are none, or the labels or splits of the examples are others by now.
    """
    found, labels, split = run.embeddings_of(workdir)
    same = len(labels) == len(everything) and (labels == everything.labels).all()
    if not (same and (split == everything.split).all()):
        raise errors.InputError(
            f"{workdir / 'embeddings.npz'} is of other examples, or of other labels of them, than"
            " the data have now. Put the data back as they were when the run was evaluated, or"
            f" write the file anew: python -m experiments.evaluate --workdir={workdir}"
        )
    return found
