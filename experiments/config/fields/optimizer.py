"""The section `optimizer`: from gradients to weights."""

from experiments.config.fields import loss, model
from experiments.config.fields.declaration import Field, OneOf, Section, When, at_least, more_than


def _named(name):
    return (When(f"optimizer.name={name!r}", ("optimizer.name",), lambda found: found == name),)


SECTION = Section(
    "optimizer",
    "From gradients to weights.",
    {
        "name": Field("adam", "The optimizer.", OneOf(("adam", "adamw", "sgd"))),
        "learning_rate": Field(1e-3, "The largest learning rate.", more_than(0)),
        "proxies_rate": Field(
            1.0,
            "The learning rate of the proxies, as a multiple of that of the weights.",
            more_than(0),
            when=(loss.HAS_PROXIES,),
        ),
        "backbone_rate": Field(
            1.0,
            "The learning rate of the backbone's last stage, as a multiple of that of the head.",
            more_than(0),
            when=model.BACKBONE_LEARNS,
        ),
        "layer_decay": Field(
            1.0,
            "The learning rate of each stage of the backbone, as a multiple of that of the next.",
            more_than(0, at_most=1),
            when=model.BACKBONE_LEARNS,
        ),
        "backbone_start": Field(
            0,
            "The step at which the backbone joins, and its learning rate rises as the head's did at"
            " first; before it, only the head learns.",
            at_least(0),
            when=model.BACKBONE_LEARNS,
        ),
        "warmup_steps": Field(0, "The steps in which the learning rate rises from 0.", at_least(0)),
        "decay": Field(
            "cosine",
            "The learning rate after that: cosine falls to 0 at the last step, constant stays.",
            OneOf(("constant", "cosine")),
        ),
        "weight_decay": Field(0.0, "The weight decay of adamw.", at_least(0), when=_named("adamw")),
        "momentum": Field(0.9, "The momentum of sgd.", at_least(0, at_most=1), when=_named("sgd")),
        "clip_norm": Field(
            0.0, "The length to which a longer gradient is cut; 0 is off.", at_least(0)
        ),
        "average_decay": Field(
            0.0,
            "The decay of the moving average of the weights, which is what is evaluated; 0 is off.",
            at_least(0, at_most=0.999999),
        ),
    },
)
