"""The section `schedules`: numbers that move while training, each under a name of your own."""

from experiments.config.fields.declaration import (
    FINITE,
    Each,
    Field,
    OneOf,
    Range,
    Section,
    at_least,
    more_than,
)
from triplet_jax import schedules

KINDS = (*schedules.PACINGS, "constant", "cosine", "piecewise", "self_paced")
HELD = ("active_fraction", "gradient_share")

SECTION = Section(
    "schedules",
    "Numbers that move while training. Each schedule has a name of your own, and these fields.",
    {
        "field": Field("", "The number that moves: a field that may move, or a knob."),
        "kind": Field("linear", "The shape of the pacing.", OneOf(KINDS)),
        "order": Field(
            "curriculum",
            "curriculum goes from start to end, anti_curriculum from end to start, random takes"
            " the same values at shuffled steps, standard stays at end.",
            OneOf(schedules.ORDERS),
        ),
        "start": Field(0.0, "The field's value where a curriculum begins.", FINITE),
        "end": Field(1.0, "The field's value where a curriculum ends.", FINITE),
        "scale": Field(
            "linear",
            "linear moves by equal steps between start and end, log by equal factors.",
            OneOf(tuple(schedules.SCALES)),
        ),
        "a": Field(0.8, "The share of training over which the schedule moves.", more_than(0)),
        "b": Field(
            0.0,
            "The share of the way from start to end at which it begins.",
            at_least(0, at_most=1),
        ),
        "boundaries": Field(
            (), "The shares of training at which piecewise steps.", Each(at_least(0, at_most=1))
        ),
        "levels": Field(
            (),
            "The shares of the way between those, one more than boundaries.",
            Each(at_least(0, at_most=1)),
        ),
        "holds": Field(
            "active_fraction",
            "The share that self_paced holds: active_fraction, of the triplets whose loss is above"
            " 0, or gradient_share, of the batch's examples among which the gradient is spread.",
            OneOf(HELD),
        ),
        "target": Field(0.5, "The value of this share.", at_least(0, at_most=1)),
        "rate": Field(0.01, "The most that self_paced moves in a step.", more_than(0, at_most=1)),
        "decay": Field(
            0.9,
            "The decay of the running average that self_paced looks at.",
            Range(0, 1, without_highest=True),
        ),
    },
)
