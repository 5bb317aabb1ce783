"""Which class an image is of: the rule, the gallery that it asks, and its threshold."""

import dataclasses
import math
import os
import pathlib
from typing import NamedTuple

import numpy as np

from experiments.run import data_json, embedders, evaluating, queries, search_threshold
from triplet_jax import errors, evaluation
from triplet_jax.data.file_names import to_text
from triplet_jax.evaluation import gallery

# A rate is measured where it accepts at least this many unknown images.
_LEAST_ACCEPTED = 10


class Embedded(NamedTuple):
    """Embedded images."""

    paths: list[str]
    """Whole, as `file_names.to_text` makes them."""
    labels: np.ndarray
    embeddings: np.ndarray

    def places_in(self, references: "Embedded") -> np.ndarray:
        """The position of each image among others; -1 where it is none of them."""
        position = {path: at for at, path in enumerate(references.paths)}
        return np.array([position.get(path, -1) for path in self.paths], int)


def of_gallery(found: gallery.Gallery) -> Embedded:
    """All images of a gallery."""
    table = found.table().sort_values("path")
    vectors = np.stack(table.vector) if len(table) else np.zeros((0, 1), np.float32)
    return Embedded(table.path.tolist(), table.label.to_numpy(str), vectors)


def of_queries(asked: queries.Queries, embeddings: np.ndarray) -> Embedded:
    """The images that are asked about."""
    paths = [to_text(os.path.abspath(path)) for path in asked.paths]
    return Embedded(paths, np.array(asked.labels, str), embeddings)


class Rule(NamedTuple):
    """How a class is as near as its images: see `evaluation.nearest_classes`."""

    by: str
    neighbours: int

    def __str__(self) -> str:
        if self.by == "means":
            return "by the distance to the mean of a class"
        if self.neighbours == 1:
            return "by the distance to the nearest image of a class"
        return f"by the mean distance to the {self.neighbours} nearest images of a class"

    def nearest(
        self, probes: Embedded, references: Embedded, *, unknown: bool = False
    ) -> evaluation.NearestClasses:
        """The two nearest classes of each probe, which does not find itself.

        Args:
          probes: the images that ask.
          references: the images that are asked.
          unknown: whether the class of each probe is left out, as if nobody knew it.
        """
        return evaluation.nearest_classes(
            probes.embeddings,
            references.embeddings,
            references.labels,
            by=self.by,
            neighbours=self.neighbours,
            own=probes.places_in(references),
            without=probes.labels if unknown else None,
        )


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The distance beyond which an image is of no class of the gallery.

    Args:
      accepted: the distance, and what it does.
      unknown: the images that stand for those of no class, such as "the 300 images of classes that
        the gallery lacks".
      measured: on what, such as "among 300 images of 20 classes of the validation split".
      caution: what to know before relying on it; empty if nothing.
    """

    accepted: evaluation.Identified
    unknown: str
    measured: str
    caution: str = ""

    def verdicts(self, distances: np.ndarray) -> np.ndarray:
        """Calls images at these distances from their nearest class "known" or "unknown"."""
        return np.where(distances <= self.accepted.threshold, "known", "unknown")

    def __str__(self) -> str:
        a = self.accepted
        named = ""
        if not math.isnan(a.identified):
            named = f", and {a.identified:.1%} of the images of known classes get their class"
        return (
            f"unknown: beyond a distance of {a.threshold:.3f}. Within it are {a.false_accepts:.2%}"
            f" of {self.unknown}{named}, measured {self.measured}. {self.caution}"
        ).strip()


def by_validation(
    workdir: pathlib.Path, embedder: embedders.Embedder, rule: Rule, rate: float
) -> Threshold | None:
    """Sets the threshold by the validation split of a run, whose images search one another.

    Args:
      workdir: of the run.
      embedder: from `embedders.load_embedder`, which embeds what is compared with the threshold.
      rule: how near a class is.
      rate: the share of images of unknown classes to accept, at most.

    Returns:
      The threshold; None, with the reason printed, where that split cannot set one.
    """
    try:
        embeddings, labels, split = data_json.read_embeddings(workdir)
        evaluating.check_embeddings(workdir, embedder.step, embedder.augment)
        here = np.flatnonzero(split == "validation")
        images = Embedded(list(map(str, here)), labels[here].astype(str), embeddings[here])
        accepted, unknown = _measure(images, images, rule, rate)
    except errors.InputError as error:
        search_threshold.print_why_none(error)
        return None
    return Threshold(
        accepted,
        unknown,
        f"{_among(images)} of the validation split",
        "A gallery of more images lets more pass, and so do images taken elsewhere or at another"
        " time: --calibration=FOLDER measures it in this gallery, by class folders of such images.",
    )


def by_folder(
    folder: pathlib.Path, calibration: Embedded, references: Embedded, rule: Rule, rate: float
) -> Threshold:
    """Sets the threshold by the class folders of --calibration, whose images search the gallery.

    Args:
      folder: the folder.
      calibration: its images.
      references: the gallery.
      rule: how near a class is.
      rate: the share of images of unknown classes to accept, at most.

    Raises:
      InputError: there are too few images to tell.
    """
    try:
        accepted, unknown = _measure(calibration, references, rule, rate)
    except errors.InputError as error:
        raise errors.InputError(f"--calibration={folder} is too small: {error}") from error
    return Threshold(
        accepted, unknown, f"{_among(calibration)} in {folder}, which search the gallery"
    )


def _among(images):
    return f"among {len(images.labels):,} images of {len(set(images.labels.tolist())):,} classes"


def _measure(probes, references, rule, rate):
    """The threshold by probes, and a description of those that are of no class.

    These are the probes of classes that the references lack, or, where there are none, all probes,
    of which each searches without its class.
    """
    if not (len(probes.labels) and len(references.labels)):
        raise errors.InputError("there are no images.")
    found = rule.nearest(probes, references)
    unknown = found.distances[~np.isin(probes.labels, references.labels), 0]
    said = "images of classes that the gallery lacks"
    if not len(unknown):
        unknown = rule.nearest(probes, references, unknown=True).distances[:, 0]
        unknown = unknown[np.isfinite(unknown)]
        said = "images whose class is left out of the search"
    if len(unknown) * rate < _LEAST_ACCEPTED:
        raise errors.InputError(
            f"--false_accept_rate={rate} cannot be measured by {len(unknown):,} {said}: at least"
            f" {math.ceil(_LEAST_ACCEPTED / rate):,} are needed. Give a larger rate, or more"
            " images."
        )
    # A class of which the probe is the only image is not known without it.
    others = dict(zip(*np.unique(references.labels, return_counts=True), strict=True))
    is_itself = probes.places_in(references) >= 0
    known = np.array([others.get(label, 0) for label in probes.labels.tolist()]) > is_itself
    is_right = found.names[found.positions[known, 0]] == probes.labels[known]
    accepted = evaluation.open_set_threshold(
        found.distances[known, 0], is_right, unknown, false_accept_rate=rate
    )
    return accepted, f"the {len(unknown):,} {said}"
