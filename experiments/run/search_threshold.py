"""The threshold of a search: up to which distance two images count as the same class."""

import dataclasses
import pathlib

import numpy as np

from experiments.run import data_json, embedders, evaluating
from triplet_jax import errors, evaluation
from triplet_jax.data import folder_listing
from triplet_jax.data.file_names import to_text
from triplet_jax.evaluation import gallery


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The distance up to which two images count as the same class.

    Args:
      accepted: the distance, and the shares of pairs within it.
      pairs: where the pairs come from, such as "on the validation split".
      caution: what to know before relying on it; empty if nothing.
    """

    accepted: evaluation.Accepted
    pairs: str
    caution: str = ""

    def verdicts(self, distances: np.ndarray) -> np.ndarray:
        """Calls images at these distances from a query "same" or "different"."""
        return np.where(distances <= self.accepted.threshold, "same", "different")

    def __str__(self) -> str:
        a = self.accepted
        return (
            f"same: up to a distance of {a.threshold:.3f}. Within it are {a.true_accepts:.1%} of"
            f" the pairs of one class and {a.false_accepts:.2%} of the pairs of two classes,"
            f" measured {self.pairs}. {self.caution}"
        ).strip()


def by_validation(
    workdir: pathlib.Path, embedder: embedders.Embedder, false_accept_rate: float
) -> Threshold | None:
    """Sets the threshold by the validation split of a run; prints why where that cannot be done.

    Args:
      workdir: of the run.
      embedder: from `embedders.load_embedder`, which embeds what is compared with the threshold.
      false_accept_rate: the share of the pairs of two classes to accept, at most.

    Returns:
      The threshold, or None.
    """
    try:
        embeddings, labels, split = data_json.read_embeddings(workdir)
        evaluating.check_embeddings(workdir, embedder.step, embedder.augment)
        held_out = split == "validation"
        accepted = gallery.threshold(
            embeddings[held_out], labels[held_out], false_accept_rate=false_accept_rate
        )
    except errors.InputError as error:
        print_why_none(error)
        return None
    return Threshold(
        accepted,
        "on the validation split",
        "That split is a part of the data that the run was trained on. In images taken elsewhere or"
        " at another time, more pairs of two classes can be as near: --calibration=FOLDER sets the"
        " threshold by class folders of such images.",
    )


def print_why_none(error: errors.InputError) -> None:
    """Prints why the validation split sets no threshold, and what does."""
    print(
        f"no threshold by the validation split: {error} Or give --calibration=FOLDER, with a"
        " folder of images for each class."
    )


def check_class_folders(
    folder: pathlib.Path, listing: folder_listing.Listing, flag: str = "calibration"
) -> None:
    """Refuses a folder in which images have no class.

    Args:
      folder: the folder.
      listing: what it holds.
      flag: the flag that names the folder.

    Raises:
      InputError: a file lies in no class folder.
    """
    loose = [file for file in listing.files if not file.label]
    if loose:
        raise errors.InputError(
            f"--{flag}={folder} must hold a folder for each class: {len(loose):,} files lie in"
            f" none, such as {to_text(str(loose[0].path))}."
        )


def by_folder(folder: pathlib.Path, found: gallery.Gallery, false_accept_rate: float) -> Threshold:
    """Sets the threshold by the class folders of --calibration.

    Args:
      folder: the folder.
      found: its gallery.
      false_accept_rate: the share of the pairs of two classes to accept, at most.

    Raises:
      InputError: there are too few pairs to tell.
    """
    table = found.table()
    names, labels = np.unique(table.label.to_numpy(str), return_inverse=True)
    embeddings = np.stack(table.vector) if len(table) else np.zeros((0, 1), np.float32)
    try:
        accepted = gallery.threshold(embeddings, labels, false_accept_rate=false_accept_rate)
    except errors.InputError as error:
        message = errors.renamed(str(error), {"false_accept_rate": "--false_accept_rate"})
        raise errors.InputError(f"--calibration={folder} is too small: {message}") from error
    return Threshold(accepted, f"among {len(table):,} images of {len(names):,} classes in {folder}")
