r"""Says which class of a gallery an image is of, or that it is of none of them.

    python -m experiments.classify --workdir=runs/mine --gallery=FOLDER_OF_CLASS_FOLDERS \
        --query=IMAGE_OR_FOLDER --output=answers.csv

The nearest class is told by its k nearest images (--by=neighbours --neighbours=k) or by their mean
(--by=means). Images in class folders score it too: accuracy, the detection and identification rate,
ROC AUC. The gallery's embeddings are kept as those of a search are; see `experiments.search`.
"""

import pathlib

from absl import flags

from experiments import command
from experiments.run import (
    class_answers,
    class_rules,
    embedders,
    galleries,
    image_flags,
    queries,
    result_tables,
    search_flags,
    search_threshold,
)
from triplet_jax import errors
from triplet_jax.evaluation import class_distances

BY = flags.DEFINE_enum(
    "by", "neighbours", class_distances.BY, "What tells how near a class is: see --neighbours."
)
# Of images, not of pairs: hundreds of images measure it.
flags.set_default(search_flags.RATE, 0.05)
flags.set_default(search_flags.NEIGHBOURS, 1)


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    folder = search_flags.folder()
    command.required(queries.QUERY, "the image to classify")
    search_flags.check_numbers()
    if BY.value == "means" and search_flags.NEIGHBOURS.present:
        raise errors.InputError(
            "--neighbours has no effect with --by=means, which has one mean of each class: leave it"
            " out."
        )
    asked = queries.of_flag(workdir)
    listing = image_flags.list_folder(search_flags.GALLERY, workdir)
    search_threshold.check_class_folders(folder, listing, flag="gallery")
    calibration = search_flags.list_calibration(workdir)
    galleries.make_place(galleries.place_of(workdir, folder, search_flags.GALLERY_DIR.value))
    output = result_tables.file_to_write()
    rule = class_rules.Rule(BY.value, search_flags.NEIGHBOURS.value)

    embedder = embedders.load_embedder(workdir.absolute(), image_flags.MAX_PIXELS.value)
    embeddings = embedder(asked.paths)
    dim = embeddings.shape[1]
    with search_flags.opened(workdir, folder, listing, embedder, dim) as found:
        search_flags.check_not_empty(found)
        references = class_rules.of_gallery(found)
    if calibration is None:
        threshold = class_rules.by_validation(workdir, embedder, rule, search_flags.RATE.value)
    else:
        place = pathlib.Path(search_flags.CALIBRATION.value)
        with search_flags.opened(workdir, place, calibration, embedder, dim) as found:
            images = class_rules.of_gallery(found)
        threshold = class_rules.by_folder(place, images, references, rule, search_flags.RATE.value)
    probes = class_rules.of_queries(asked, embeddings)
    found = rule.nearest(probes, references)
    print(f"{len(found.names):,} classes of {len(references.paths):,} images, told {rule}")
    itself = int((probes.places_in(references) >= 0).sum())
    if itself:
        print(f"{itself:,} of the images are in the gallery, where they do not find themselves")
    answers = class_answers.as_table(asked, found, threshold)
    class_answers.show(answers, found.names, threshold)
    if output:
        result_tables.write(output, answers)
        print(f"{len(answers):,} answers written to {output}")


if __name__ == "__main__":
    command.run(
        main,
        again="Run the same command again: the images embedded so far are kept.",
        takes=(command.OUTPUT,),
    )
