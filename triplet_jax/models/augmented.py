"""Test-time augmentation: an encoder that embeds an image by several copies of it."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from triplet_jax import distances, errors
from triplet_jax.models.encoders import Encoder

MEANS = ("flip", "shifts")
"""The changes that leave an image in its class, so that embeddings are averaged over them."""
JOINED = ("turns", "mirror")
"""The changes that may make another class of an image, so that the embeddings are joined."""
CHANGES = MEANS + JOINED
"""Every change of a copy that `Augmented` knows."""
SHIFT = 0.05
"""How far a copy is shifted, in sides of the image."""


class Augmented(nn.Module):
    """Embeds an image by several copies of it, each changed in another way.

    The changes are

    - "flip": left and right are exchanged, as in re-identification and face recognition;
    - "shifts": the image moves up, down, left and right by `SHIFT` of its side, at least a pixel;
    - "turns": the image is turned by 90, 180 and 270 degrees;
    - "mirror": left and right are exchanged, where that may make another class, as of characters.

    Every change also keeps the image as it is, and together they make all combinations. With the
    copies `T_j(x)` by "turns" and "mirror", `j = 1..J`, and the changes `S_i` by "flip" and
    "shifts", the embedding is

        e(x) = concatenate_j(unit(mean_i f(S_i(T_j(x))))) / sqrt(J)

    so that the squared Euclidean distance between two images is the mean over `j` of those between
    their copies. An encoder without `normalize` leaves out `unit`. The variables are those of the
    encoder. Embedding takes as many times longer as there are copies.

    Paper: Shanmugam et al. 2021, https://arxiv.org/abs/2011.11156, tells when averages over copies
    help, and when they harm.

    >>> import jax
    >>> from triplet_jax import models
    >>> model = models.encoder("conv4", dim=8, width=4)
    >>> images = jnp.zeros((2, 28, 28, 1))
    >>> variables = model.init(jax.random.key(0), images)
    >>> augmented = models.Augmented(model, ("shifts", "turns"))
    >>> augmented.copies, augmented.apply(variables, images).shape
    (20, (2, 32))

    Args:
      encoder: an encoder of images `[height, width, channels]`.
      changes: some of `CHANGES`.

    Raises:
      InputError: a change is not known or stands there twice, "flip" goes with "mirror", an input
        is no image, or a turned image is not square. Or `train=True`: the copies are for
        evaluation, and `augment` changes images in training.
    """

    encoder: Encoder
    changes: Sequence[str]

    def setup(self):
        check(self.changes)
        # The variables then have the names that they have in the encoder.
        nn.share_scope(self, self.encoder)

    @property
    def joined(self) -> int:
        """How many embeddings of the encoder are joined."""
        return math.prod(_COPIES[change] for change in self.changes if change in JOINED)

    @property
    def copies(self) -> int:
        """How many copies of an image are embedded."""
        return math.prod(_COPIES[change] for change in self.changes)

    @property
    def dim(self) -> int:
        """The values of an embedding."""
        return self.joined * self.encoder.dim

    def __call__(
        self, x: Float[Array, "batch ..."], train: bool = False
    ) -> Float[Array, "batch dim"]:
        """Embeds a batch of images."""
        if train:
            raise errors.InputError("train=True: Augmented is for evaluation alone.")
        check_shape(self.changes, x.shape[1:])
        joined = _copies(x, [change for change in JOINED if change in self.changes])
        means = [change for change in MEANS if change in self.changes]
        copies = [copy for one in joined for copy in _copies(one, means)]
        # One large batch is one program of the encoder's size, whatever the number of copies.
        # jax2onnx 0.17.1 would give jnp.concatenate the rows of its first array alone.
        found = self.encoder(lax.concatenate(copies, dimension=0), train)
        found = found.reshape(self.joined, -1, x.shape[0], self.encoder.dim).mean(axis=1)
        if self.encoder.normalize:
            found = distances.unit(found.reshape(-1, self.encoder.dim)).reshape(found.shape)
        found = jnp.moveaxis(found, 0, 1).reshape(x.shape[0], self.dim)
        return found / math.sqrt(self.joined)


def check(changes: Sequence[str]) -> None:
    """Refuses changes that are not known, or do not go together.

    Raises:
      InputError: see `Augmented`.
    """
    for change in changes:
        errors.check_known("changes", change, CHANGES)
    if len(set(changes)) < len(changes):
        raise errors.InputError(f"changes={tuple(changes)} must not name anything twice.")
    if {"flip", "mirror"} <= set(changes):
        raise errors.InputError(
            f"changes={tuple(changes)}: 'flip' averages over an image and its mirror image, and"
            " 'mirror' tells them apart. Leave one of them out."
        )


def check_shape(changes: Sequence[str], shape: Sequence[int]) -> None:
    """Refuses inputs that cannot be changed so.

    Args:
      changes: as in `Augmented`.
      shape: of one input.

    Raises:
      InputError: it is no image, or a turned image is not square.
    """
    if changes and len(shape) != 3:
        raise errors.InputError(
            f"changes={tuple(changes)} need images [height, width, channels], but an input has"
            f" shape {tuple(shape)}. Leave them out."
        )
    if "turns" in changes and shape[0] != shape[1]:
        raise errors.InputError(
            f"changes={tuple(changes)}: 'turns' needs square images, not {shape[0]} x {shape[1]}."
            " Leave it out."
        )


Batch = Float[Array, "batch height width channels"]


def _copies(x: Batch, changes: Sequence[str]) -> list[Batch]:
    """The batch in all combinations of the changes; the first is as it was."""
    copies = [x]
    for change in changes:
        copies = [changed for copy in copies for changed in _CHANGED[change](copy)]
    return copies


def _mirrored(x: Batch) -> list[Batch]:
    return [x, x[:, :, ::-1]]


def _shifted(x: Batch) -> list[Batch]:
    """The batch, and moved in four directions; the border repeats what it shows."""
    # Not by jnp.pad, whose "edge" jax2onnx 0.17.1 also applies where nothing is to be padded.
    copies = [x]
    for axis in (1, 2):
        side = x.shape[axis]
        by = max(1, round(SHIFT * side))
        for start in (-by, by):
            shown = np.clip(np.arange(start, start + side), 0, side - 1)
            copies.append(jnp.take(x, shown, axis=axis))
    return copies


def _turned(x: Batch) -> list[Batch]:
    return [jnp.rot90(x, turns, axes=(1, 2)) for turns in range(4)]


_COPIES = {"flip": 2, "mirror": 2, "shifts": 5, "turns": 4}
_CHANGED = {"flip": _mirrored, "mirror": _mirrored, "shifts": _shifted, "turns": _turned}
