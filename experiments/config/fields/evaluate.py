"""The section `evaluate`: when checkpoints are made, and how they are scored."""

from experiments.config.fields.declaration import (
    JUDGING,
    Among,
    Field,
    OneOf,
    Section,
    When,
    at_least,
)
from triplet_jax.models import augmented

_ONE_TOWER = (When("one encoder for all images", ("model.towers",), lambda towers: towers == 1),)

SECTION = Section(
    "evaluate",
    "When checkpoints are made, and how they are scored.",
    {
        "every": Field(
            500,
            "The steps from one validation to the next, each with a checkpoint.",
            at_least(1),
            concerns=JUDGING,
        ),
        "ways": Field(
            20,
            "The classes of a few-shot episode; fewer where there are fewer.",
            at_least(2),
            concerns=JUDGING,
        ),
        "episodes": Field(
            1000,
            "The number of few-shot episodes.",
            at_least(2, at_most=10**6),
            concerns=JUDGING,
        ),
        "batch": Field(
            0,
            "The examples that are embedded at a time, over all devices; 0 chooses by their size.",
            at_least(0, at_most=2**20),
            concerns=JUDGING,  # another size may round the embeddings otherwise
        ),
        "ignore_group": Field(
            False,
            "Leaves out, for each query, the references of its class and session or camera, as"
            " person re-identification does.",
            concerns=JUDGING,
        ),
        "checkpoint": Field(
            "best",
            "The checkpoint that is evaluated: the best by validation MAP@R, or the last.",
            OneOf(("best", "last")),
            concerns=JUDGING,
        ),
        "augment": Field(
            (),
            "Embeds each image, once training is over, by several copies of it: flip and shifts"
            " give the mean of their embeddings, turns and mirror join them.",
            Among(augmented.CHANGES),
            when=_ONE_TOWER,
            concerns=JUDGING,
        ),
    },
)
