"""The section `augment`: random changes of the training images."""

from experiments.config.fields.declaration import Field, Part, Section, at_least

SECTION = Section(
    "augment",
    "Random changes of the training images; 0 or False is off.",
    {
        "crop": Field(0, "Shifts by whole pixels, up to this many.", at_least(0)),
        "flip": Field(False, "Exchanges left and right, half of the time."),
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
