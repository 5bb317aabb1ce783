"""The flags of programs that read images of the user."""

from absl import flags

BAD_IMAGES = flags.DEFINE_string("bad_images", "refuse", "Files that are no images: refuse, skip.")

MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    None,
    "Pictures of more pixels are refused; default: dataset.max_pixels of the run.",
    lower_bound=1,
)


def largest(config) -> int:
    """The most pixels that a picture may have, by the flag or by the run."""
    return MAX_PIXELS.value or config.dataset.max_pixels
