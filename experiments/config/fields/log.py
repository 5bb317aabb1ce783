"""The section `log`: what is written down while training."""

from experiments.config.fields.declaration import MACHINE, Among, Field, Section, at_least
from triplet_jax.runs.trackers.opening import TRACKERS

SECTION = Section(
    "log",
    "What is written down while training.",
    {
        "every": Field(
            10, "The steps from one line of metrics to the next.", at_least(1), concerns=MACHINE
        ),
        "trackers": Field(
            (),
            "Where the metrics, the config and the result are shown too, such as ('tensorboard',"
            " 'mlflow').",
            Among(tuple(TRACKERS)),
            concerns=MACHINE,
        ),
        "telemetry_every": Field(
            50,
            "The steps from one set of arrays about mining to the next; 0 is off.",
            at_least(0),
            concerns=MACHINE,
        ),
        "telemetry_per_anchor": Field(
            False, "Writes those of each anchor too, hence of each class.", concerns=MACHINE
        ),
    },
)
