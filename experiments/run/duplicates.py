"""The near duplicates in a gallery: pairs, their groups, and a sheet that shows them."""

import pathlib
import tempfile

import numpy as np
import pandas as pd
import rich.console
import rich.markup
import rich.table

from experiments.config import naming
from experiments.run import embedders, sheets
from triplet_jax import evaluation
from triplet_jax.analysis import plots
from triplet_jax.data import decoding, images
from triplet_jax.data.file_names import from_text, to_text
from triplet_jax.evaluation import gallery

# The most pairs that are printed, groups that are drawn, and images of each group.
_PRINTED = 20
_DRAWN = 100
_IMAGES_OF_ROW = 8
# Copies by which a distance is set, their quality, and the share that is to be found.
_COPIES, _QUALITY, _SHARE = 64, 75, 0.95


@naming.as_flags("within")
def find(found: gallery.Gallery, within: float) -> pd.DataFrame:
    """Finds the pairs of a gallery that are near each other.

    Args:
      found: the gallery.
      within: the largest distance of a pair.

    Returns:
      A row for each pair, by group, the nearest pair and its group first: `group` (from 1), `path`,
      `class`, `other`, `other_class`, `distance`. Images that are linked by pairs are one group.

    Raises:
      InputError: `within` is no distance, or a million pairs are nearer.
    """
    table = found.table().sort_values("path", ignore_index=True)
    close = evaluation.pairs_within(np.stack(table.vector), within=within)
    first, second = close.pairs.T
    pairs = pd.DataFrame(
        {
            "group": close.groups(len(table))[first] + 1,
            "path": table.path.to_numpy()[first],
            "class": table.label.to_numpy()[first],
            "other": table.path.to_numpy()[second],
            "other_class": table.label.to_numpy()[second],
            "distance": close.distances,
        }
    )
    return pairs.sort_values("group", kind="stable", ignore_index=True)


def show(pairs: pd.DataFrame, folder: pathlib.Path, within: float) -> None:
    """Prints how many duplicates there are, and the nearest pairs.

    Args:
      pairs: from `find`.
      folder: of the gallery.
      within: the largest distance of a pair.
    """
    groups = [_members(of_group) for _, of_group in pairs.groupby("group")]
    number = sum(map(len, groups))
    print(
        f"{len(groups):,} groups of near duplicates, of {number:,} images: {len(pairs):,} pairs"
        f" within a distance of {within:g}. Without copies there would be"
        f" {number - len(groups):,} images fewer.",
        flush=True,
    )
    mixed = sum(members["class"].nunique() > 1 for members in groups)
    if mixed:
        print(f"{mixed:,} groups have images of several classes, which cannot all be right.")
    printed = rich.table.Table("group", "distance", "image", "other")
    for pair in pairs.head(_PRINTED).itertuples():
        names = [_below(folder, path) for path in (pair.path, pair.other)]
        printed.add_row(
            str(pair.group), f"{pair.distance:.3f}", *(rich.markup.escape(name) for name in names)
        )
    if len(pairs):
        rich.console.Console().print(printed)


def _below(folder, path):
    return to_text(str(pathlib.Path(from_text(path)).relative_to(folder)))


def _members(of_group):
    """The images of a group, each once, with the distance to the nearest of the others."""
    both = pd.concat(
        [
            of_group[["path", "class", "distance"]],
            of_group[["other", "other_class", "distance"]].set_axis(
                ["path", "class", "distance"], axis=1
            ),
        ]
    )
    return both.sort_values("distance", kind="stable").drop_duplicates("path")


def draw(pairs: pd.DataFrame, form: images.ImageForm, sheet: pathlib.Path) -> None:
    """Draws a row for each group, with the distance of each image to the nearest of the others.

    Args:
      pairs: from `find`.
      form: how images are shown.
      sheet: the first picture; the names of further ones end in a number.
    """
    groups = list(pairs.groupby("group"))[:_DRAWN]

    def row(number):
        name, of_group = groups[number]
        members = _members(of_group)
        more = len(members) - _IMAGES_OF_ROW
        tiles = []
        for member in members.head(_IMAGES_OF_ROW).to_dict("records"):
            title = f"{member['class']}\n{member['distance']:.3f}".strip()
            tiles.append([form.read(from_text(member["path"])), title, plots.GREY])
        tiles[0][1:] = f"{name}: {tiles[0][1]}", "black"
        if more > 0:
            tiles[-1][1] += f", {more} more"
        return [tuple(tile) for tile in tiles]

    if groups:
        sheets.draw(len(groups), row, sheet)


def within_copies(found: gallery.Gallery, embedder: embedders.Embedder) -> float:
    """A distance for `find` by the encoder: up to it lie most copies of images of the gallery.

    Copies are JPEG files of quality 75, of a few images that are drawn with a fixed seed.

    Args:
      found: the gallery.
      embedder: from `embedders.load_embedder`.
    """
    table = found.table().sort_values("path", ignore_index=True)
    chosen = table.sample(min(_COPIES, len(table)), random_state=0)
    form = embedder.form
    with tempfile.TemporaryDirectory() as folder:
        copies = [pathlib.Path(folder, f"{number}.jpg") for number in range(len(chosen))]
        for path, copy in zip(chosen.path, copies, strict=True):
            picture = decoding.decode(
                str(from_text(path)),
                least=decoding.MAX_PIXELS,
                background=form.background,
                max_pixels=form.max_pixels,
            )
            picture.save(copy, quality=_QUALITY)
        apart = np.linalg.norm(embedder(copies) - np.stack(chosen.vector), axis=1)
    within = float(np.quantile(apart, _SHARE))
    print(
        f"within {within:.3f}, up to which lie {_SHARE:.0%} of {len(chosen)} images and their"
        f" copies as JPEG of quality {_QUALITY}; --within sets another distance.",
        flush=True,
    )
    return within
