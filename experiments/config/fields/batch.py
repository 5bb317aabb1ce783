"""The section `batch`: P classes with K examples each, and which examples may be drawn."""

from experiments.config.fields import dataset
from experiments.config.fields.declaration import Field, OneOf, Section, When, at_least
from triplet_jax.data import sampling

_CHOOSES = When("batch.choose_from above 0", ("batch.choose_from",), bool)

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
        "choose_from": Field(
            0,
            "How many classes each batch is chosen out of, as those that the run has yet to learn"
            " and the first run of batch.scores had learnt (JEST); 0 chooses none.",
            at_least(0),
            when=(dataset.HAS_LABELS,),
        ),
        "strictness": Field(
            1.0,
            "How strictly the most learnable classes are chosen; 0 chooses at random.",
            at_least(0),
            when=(_CHOOSES,),
            moves=True,
        ),
    },
)
