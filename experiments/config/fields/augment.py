"""The section `augment`: random changes of the training images."""

from typing import Any

from experiments.config.fields.declaration import (
    Field,
    OneOf,
    Part,
    Section,
    When,
    at_least,
)

POLICIES: dict[str, dict[str, Any]] = {
    "": {},
    # For fine-tuning: crops as in Musgrave et al. 2020, https://arxiv.org/abs/2003.08505, section
    # 4, and mild changes of light and colour, since colours often tell classes apart.
    "photos": {
        "resized_crop": 0.16,
        "flip": True,
        "brightness": 0.25,
        "contrast": 0.25,
        "saturation": 0.25,
    },
}
"""What each policy sets of the fields that are not set, by their names."""

_CROPS = (
    When(
        "augment.resized_crop above 0, or a policy that sets it",
        ("augment.resized_crop",),
        bool,
    ),
)


def _strength(meaning: str, most: float) -> Field:
    """A number that is not set unless the config or the policy sets it."""
    return Field(None, meaning, at_least(0, at_most=most), number=float)


SECTION = Section(
    "augment",
    "Random changes of the training images; 0 or False is off. What is not set is as"
    " `augment.policy` says.",
    {
        "policy": Field(
            "",
            "What is set where the config sets nothing: photos is for photographs, "
            + ", ".join(f"with {name}={value}" for name, value in POLICIES["photos"].items())
            + "; empty sets nothing.",
            OneOf(tuple(POLICIES)),
        ),
        "resized_crop": _strength(
            "Cuts out a rectangle with at least this share of the area, and brings it to the whole"
            " size.",
            1.0,
        ),
        "aspect": Field(
            4 / 3,
            "The largest ratio of the sides of this rectangle.",
            at_least(1, at_most=10),
            when=_CROPS,
        ),
        "brightness": _strength(
            "Multiplies values by up to 1 plus or minus this, as torchvision's ColorJitter.", 1.0
        ),
        "contrast": _strength(
            "Multiplies the distance to the mean grey by up to 1 plus or minus this.", 1.0
        ),
        "saturation": _strength(
            "Multiplies the distance to grey by up to 1 plus or minus this.", 1.0
        ),
        "hue": _strength("Turns colours by up to this share of the colour circle.", 0.5),
        "grey": _strength("The share of the images that become grey.", 1.0),
        "blur": _strength(
            "Blurs by a Gaussian of up to this standard deviation in pixels, half of the time.",
            64.0,
        ),
        "erase": _strength(
            "The share of the images in which a rectangle is replaced by noise.", 1.0
        ),
        "crop": Field(0, "Shifts by whole pixels, up to this many.", at_least(0)),
        "flip": Field(None, "Exchanges left and right, half of the time.", number=bool),
        "turn": Field(False, "Turns by 0, 90, 180 or 270 degrees."),
        "shift": Field(0.0, "Shifts by up to this many pixels, in fractions too.", at_least(0)),
        "rotate": Field(0.0, "Rotates by up to this many degrees.", at_least(0, at_most=180)),
        "scale": Field(
            0.0, "Scales by up to this share: 0.1 is about 10%.", at_least(0, at_most=2)
        ),
        "shear": Field(0.0, "Shears by up to this many degrees.", at_least(0, at_most=60)),
        "noise": Field(
            0.0,
            "Adds Gaussian noise of this standard deviation, where a white pixel is 1.",
            at_least(0),
        ),
        "own": Field(
            "",
            "An augmentation of your own, by its import path, which comes after all of these.",
            Part("augmentation", {}, "(key, image) -> image", may_be_empty=True),
        ),
    },
)
