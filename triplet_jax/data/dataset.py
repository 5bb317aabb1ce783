"""A data set: examples with labels and splits, its marks, and other classes for its examples."""

import dataclasses
import hashlib
import json

import numpy as np
from jaxtyping import Float, Int

from triplet_jax.data.images import Images

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples with integer labels.

    Args:
      inputs: images `[examples, height, width, channels]` of uint8, features
        `[examples, features]` of float32, or `Images`, which are decoded when they are read.
      labels: the class of every example, an index into `class_names`.
      split: of every example, one of `SPLITS`.
      class_names: of every class.
      groups: of every class, the number of the group it belongs to, such as an alphabet;
        None where classes have no groups.
      difficulty: of every example, 0 easy and 1 hard; None where nobody scored it.
      pair_shapes: the shapes of an example of either array, where `pairs` made the examples of two.
      notes: what a user should know of how the source was read, such as files that were left out.
      names: of every example, its file from the top of the folder; None where it has none.
    """

    inputs: np.ndarray | Images
    labels: Int[np.ndarray, "examples"]
    split: np.ndarray
    class_names: tuple[str, ...]
    groups: Int[np.ndarray, "classes"] | None = None
    difficulty: Float[np.ndarray, "examples"] | None = None
    pair_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    notes: tuple[str, ...] = ()
    names: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Int[np.ndarray, "chosen"]) -> "Dataset":
        """The examples at these positions; the numbers of the classes stay."""
        return dataclasses.replace(
            self,
            inputs=self.inputs[positions],
            labels=self.labels[positions],
            split=self.split[positions],
            difficulty=None if self.difficulty is None else self.difficulty[positions],
            names=None if self.names is None else self.names[positions],
        )

    def only(self, split: str) -> "Dataset":
        """The examples of one split."""
        return self.take(np.flatnonzero(self.split == split))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs.shape[1:])


def fingerprint(dataset: Dataset) -> str:
    """A mark of the training examples: shape, places, labels, classes, and some of the inputs.

    All inputs of a large set would take long to read; of it 64 are, at equal distances. Where the
    files are does not matter.
    """
    train = np.flatnonzero(dataset.split == "train")
    mark = hashlib.sha256(f"{dataset.input_shape} {dataset.class_names}".encode())
    mark.update(train.astype(np.int64).tobytes())
    mark.update(dataset.labels[train].astype(np.int64).tobytes())
    mark.update(_some_inputs(dataset, train))
    return mark.hexdigest()


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """A mark of every split, by its name: shape, names of files, classes, and some of the inputs.

    A mark changes where an example of its split is added, removed, renamed or relabelled, and
    where one of the 64 inputs that are read has changed. It does not depend on the other splits,
    on how classes are numbered, or on where the files are.
    """
    return {split: _mark(dataset, np.flatnonzero(dataset.split == split)) for split in SPLITS}


def _mark(dataset, chosen):
    classes = [dataset.class_names[c] for c in dataset.labels[chosen]]
    names = None if dataset.names is None else dataset.names[chosen].tolist()
    mark = hashlib.sha256(json.dumps([dataset.input_shape, classes, names]).encode())
    mark.update(_some_inputs(dataset, chosen))
    return mark.hexdigest()


def _some_inputs(dataset, chosen):
    some = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), 64)).astype(int)]
    return np.ascontiguousarray(dataset.inputs[some]).tobytes()


def images_as_classes(dataset: Dataset) -> Dataset:
    """A class for every image, whatever its label: two random views of it are the positives."""
    return dataclasses.replace(
        dataset,
        labels=np.arange(len(dataset), dtype=np.int32),
        class_names=tuple(f"image {i}" for i in range(len(dataset))),
        groups=None,
    )


def quarter_turns_as_classes(dataset: Dataset) -> Dataset:
    """Four classes for each: the images turned by 0, 90, 180 and 270 degrees.

    For drawings whose turned form is another character (Vinyals et al. 2016 on Omniglot).
    Class `c` turned k times is class `k * classes + c`.
    """
    classes = len(dataset.class_names)
    if isinstance(dataset.inputs, np.ndarray):
        turned = np.concatenate([np.rot90(dataset.inputs, k, axes=(1, 2)) for k in range(4)])
    else:
        everything = np.tile(np.arange(len(dataset)), 4)
        turns = np.repeat(np.arange(4), len(dataset))
        turned = dataset.inputs[everything].turned(turns)
    return Dataset(
        inputs=turned,
        labels=np.concatenate([dataset.labels + k * classes for k in range(4)]).astype(np.int32),
        split=np.tile(dataset.split, 4),
        class_names=tuple(
            f"{name} turned {90 * k}" if k else name
            for k in range(4)
            for name in dataset.class_names
        ),
        groups=None if dataset.groups is None else np.tile(dataset.groups, 4),
        difficulty=None if dataset.difficulty is None else np.tile(dataset.difficulty, 4),
    )
