"""A data set: examples with labels and splits, its fingerprints, and other classes for them."""

import dataclasses
import hashlib
import json

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from triplet_jax import errors
from triplet_jax.data.images import Images

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples, each with a class and a split.

    Args:
      inputs: images `[examples, height, width, channels]` of uint8, features
        `[examples, features]` of float32, or `Images`, which are decoded when they are read.
      labels: the class of every example, an index into `class_names`.
      split: the split of every example, one of `SPLITS`.
      class_names: the name of every class.
      groups: the group of every class, such as its alphabet, as a number; None where classes have
        no groups.
      difficulty: how hard every example is, from 0 to 1; None where that was not measured.
      reference: the embedding of every example by a reference run, `[examples, dim]`; None where
        there is none.
      pair_shapes: the shapes of a row of either array, if `pairs` read the examples from two; else
        None.
      notes: what a user should know of how the source was read, such as files that were left out.
      names: the file of every example, from the top of its folder; None where there are no files.
      sessions: the session of every example, such as its camera or drawer; None where that is not
        known.
      is_query: which test examples search the others, their gallery; None where each searches all
        others.
      query_groups: a number for every example, by which it leaves out, as a query, the references
        of its class with this number in `reference_groups`; None where it leaves out none.
      reference_groups: the numbers of the examples as references.
    """

    inputs: np.ndarray | Images
    labels: Int[np.ndarray, "examples"]
    split: np.ndarray
    class_names: tuple[str, ...]
    groups: Int[np.ndarray, "classes"] | None = None
    difficulty: Float[np.ndarray, "examples"] | None = None
    reference: Float[np.ndarray, "examples dim"] | None = None
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    notes: tuple[str, ...] = ()
    names: np.ndarray | None = None
    sessions: Shaped[np.ndarray, "examples"] | None = None
    is_query: Bool[np.ndarray, "examples"] | None = None
    query_groups: Int[np.ndarray, "examples"] | None = None
    reference_groups: Int[np.ndarray, "examples"] | None = None

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def take(self, positions: Int[np.ndarray, "chosen"]) -> "Dataset":
        """Selects the examples at these positions; classes keep their numbers."""
        of_classes = ("class_names", "groups", "pair_shapes", "notes")
        fields = [field.name for field in dataclasses.fields(self)]
        given = {name: getattr(self, name) for name in fields if name not in of_classes}
        taken = {name: None if x is None else x[positions] for name, x in given.items()}
        return dataclasses.replace(self, **taken)

    def only(self, split: str) -> "Dataset":
        """Selects the examples of one split: train, validation or test."""
        return self.take(np.flatnonzero(self.split == split))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs.shape[1:])


def fingerprint(dataset: Dataset) -> str:
    """A digest of the training split, by which files about it recognise it.

    It covers the shape of an input, the class names, the positions and labels of the training
    examples, and 64 of their inputs at equal distances, since reading all of a large set would
    take long. It does not depend on where the files are.
    """
    train = np.flatnonzero(dataset.split == "train")
    digest = hashlib.sha256(f"{dataset.input_shape} {dataset.class_names}".encode())
    digest.update(train.astype(np.int64).tobytes())
    digest.update(dataset.labels[train].astype(np.int64).tobytes())
    digest.update(_some_inputs(dataset, train))
    return digest.hexdigest()


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """A digest of every split, by its name.

    It changes if an example of the split is added, removed, renamed or relabelled, or if one of
    the 64 inputs that are read has changed. It does not depend on the other splits, on how classes
    are numbered, or on where the files are.
    """
    return {split: _of_split(dataset, np.flatnonzero(dataset.split == split)) for split in SPLITS}


def _of_split(dataset: Dataset, chosen: Int[np.ndarray, "chosen"]) -> str:
    classes = [dataset.class_names[c] for c in dataset.labels[chosen]]
    names = None if dataset.names is None else dataset.names[chosen].tolist()
    digest = hashlib.sha256(json.dumps([dataset.input_shape, classes, names]).encode())
    digest.update(_some_inputs(dataset, chosen))
    return digest.hexdigest()


def _some_inputs(dataset: Dataset, chosen: Int[np.ndarray, "chosen"]) -> bytes:
    some = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), 64)).astype(int)]
    return np.ascontiguousarray(dataset.inputs[some]).tobytes()


def images_as_classes(dataset: Dataset) -> Dataset:
    """Makes every image a class of its own, whose positives are random views of it."""
    return dataclasses.replace(
        dataset,
        labels=np.arange(len(dataset), dtype=np.int32),
        class_names=tuple(f"image {i}" for i in range(len(dataset))),
        groups=None,
    )


def quarter_turns_as_classes(dataset: Dataset) -> Dataset:
    """Makes four classes of each: its images turned by 0, 90, 180 and 270 degrees.

    This suits drawings that become another character when they are turned, as on Omniglot
    (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080). Class `c` turned k times by 90 degrees
    is class `k * classes + c`.

    A copy keeps what is known of its image, such as its file in `names`, but `reference` becomes
    None: it was made of the image as it is, and not of the copies.

    Raises:
      InputError: the inputs are no square images.
    """
    if len(dataset.input_shape) != 3 or dataset.input_shape[0] != dataset.input_shape[1]:
        raise errors.InputError(
            f"the inputs have the shape {dataset.input_shape}, and must be square images [height,"
            " width, channels] for quarter turns of them to be classes."
        )
    copies = _copies_as_classes(dataset, ("", " turned 90", " turned 180", " turned 270"))
    if isinstance(copies.inputs, Images):
        turns = np.repeat(np.arange(4), len(dataset))
        return dataclasses.replace(copies, inputs=copies.inputs.turned(turns))
    for k, part in enumerate(np.split(copies.inputs, 4)):
        part[:] = np.rot90(part, k, axes=(1, 2))
    return copies


def mirrored_as_classes(dataset: Dataset) -> Dataset:
    """Makes two classes of each: its images as they are, and mirrored, left and right.

    This suits drawings that become another character when they are mirrored, as
    `quarter_turns_as_classes`, and keeps as much. Class `c` mirrored is class `classes + c`.

    Raises:
      InputError: the inputs are no images.
    """
    if len(dataset.input_shape) != 3:
        raise errors.InputError(
            f"the inputs have the shape {dataset.input_shape}, and must be images [height, width,"
            " channels] for mirror images of them to be classes."
        )
    copies = _copies_as_classes(dataset, ("", " mirrored"))
    if isinstance(copies.inputs, Images):
        is_mirrored = np.repeat([False, True], len(dataset))
        return dataclasses.replace(copies, inputs=copies.inputs.mirrored(is_mirrored))
    copies.inputs[len(dataset) :] = dataset.inputs[:, :, ::-1]
    return copies


def _copies_as_classes(dataset: Dataset, endings: tuple[str, ...]) -> Dataset:
    """Repeats a data set as a whole, where each copy has classes of its own.

    Args:
      dataset: the data set that is copied.
      endings: what each copy adds to the names of its classes.
    """
    times, classes = len(endings), len(dataset.class_names)
    copies = dataset.take(np.tile(np.arange(len(dataset)), times))
    shift = classes * np.repeat(np.arange(times), len(dataset))
    return dataclasses.replace(
        copies,
        labels=(copies.labels + shift).astype(np.int32),
        class_names=tuple(name + ending for ending in endings for name in dataset.class_names),
        groups=None if dataset.groups is None else np.tile(dataset.groups, times),
        reference=None,
    )
