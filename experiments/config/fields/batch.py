"""The section `batch`: P classes with K examples each, and which examples may be drawn."""

from experiments.config.fields import dataset
from experiments.config.fields.declaration import Field, OneOf, Section, at_least
from triplet_jax.data import sampling

SECTION = Section(
    "batch",
    "P classes with K examples each, and which examples may be drawn.",
    {
        "classes": Field(
            32, "P, the classes of a batch, over all devices.", at_least(2), moves=True
        ),
        "per_class": Field(4, "K, the examples of each of them.", at_least(2), moves=True),
        "small_classes": Field(
            "refuse",
            "What happens to a class with fewer than K examples: refuse stops, drop leaves it out,"
            " redraw draws some of its examples more than once.",
            OneOf(sampling.SMALL_CLASSES),
        ),
        "pool": Field(
            1.0,
            "The share of each class that may be drawn, its first examples by batch.order.",
            at_least(0, at_most=1),
            when=(dataset.HAS_LABELS,),
            moves=True,
        ),
        "order": Field(
            "easy",
            "Which examples come first: easy or hard ones by batch.scores, or random ones.",
            OneOf(("easy", "hard", "random")),
        ),
        "scores": Field(
            "", "The file of scores, and of groups of classes, that experiments.score makes."
        ),
        "same_group": Field(
            0.0,
            "The share of the batches whose classes come from as few groups as possible; groups"
            " are those of the data set, such as alphabets, or of batch.scores.",
            at_least(0, at_most=1),
            when=(dataset.HAS_LABELS,),
            moves=True,
        ),
    },
)
