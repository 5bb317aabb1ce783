"""ConvNeXts against timm's and torchvision's, with the same random weights."""

import functools

import pytest

from tests.support import cases, torch_models
from triplet_jax import models

torch = pytest.importorskip("torch", reason="make oracle installs torch")
torchvision = pytest.importorskip("torchvision", reason="make oracle installs torchvision")
timm = pytest.importorskip("timm", reason="make oracle installs timm")
pytestmark = pytest.mark.oracle

DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 8, 16, 16)
OURS = functools.partial(models.ConvNeXt, DEPTHS, WIDTHS)


@pytest.mark.parametrize(
    ("version", "conv_mlp"),
    cases.mostly_slow([(v, c) for v in (1, 2) for c in (False, True)], [(1, False), (2, True)]),
)
def test_convnexts_are_those_of_timm(version, conv_mlp):
    theirs = timm.models.convnext.ConvNeXt(
        num_classes=0,
        depths=DEPTHS,
        dims=WIDTHS,
        conv_mlp=conv_mlp,
        use_grn=version == 2,
        ls_init_value=None if version == 2 else 1e-6,
    )
    torch_models.check(OURS(version=version), theirs)


def test_convnexts_are_those_of_torchvision():
    family = torchvision.models.convnext
    theirs = family.ConvNeXt(
        [
            family.CNBlockConfig(8, 8, 1),
            family.CNBlockConfig(8, 16, 1),
            family.CNBlockConfig(16, 16, 2),
            family.CNBlockConfig(16, None, 1),
        ]
    )
    theirs.classifier[2] = torch.nn.Identity()
    torch_models.check(OURS(), theirs)
