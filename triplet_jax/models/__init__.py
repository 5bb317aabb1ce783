"""Encoders: backbones from the literature, the embedding head, inference and export."""

from triplet_jax import errors

if lacking := errors.lacking("triplet_jax.models", "training", "flax"):
    raise lacking

from triplet_jax.models.augmented import Augmented as Augmented
from triplet_jax.models.conv4 import Conv4 as Conv4
from triplet_jax.models.convnext import ConvNeXt as ConvNeXt
from triplet_jax.models.efficientnet import EfficientNet as EfficientNet
from triplet_jax.models.encoders import BACKBONES as BACKBONES
from triplet_jax.models.encoders import HEAD as HEAD
from triplet_jax.models.encoders import Encoder as Encoder
from triplet_jax.models.encoders import Projection as Projection
from triplet_jax.models.encoders import TwoTowers as TwoTowers
from triplet_jax.models.encoders import encoder as encoder
from triplet_jax.models.encoders import prefix as prefix
from triplet_jax.models.layers import NORMS as NORMS
from triplet_jax.models.layers import Conv as Conv
from triplet_jax.models.layers import GroupNorm as GroupNorm
from triplet_jax.models.layers import Norm as Norm
from triplet_jax.models.layers import drop as drop
from triplet_jax.models.layers import make_norm as make_norm
from triplet_jax.models.layers import max_pool_2x2 as max_pool_2x2
from triplet_jax.models.layers import skip as skip
from triplet_jax.models.mlp import MLP as MLP
from triplet_jax.models.resnet import ResidualBlock as ResidualBlock
from triplet_jax.models.resnet import ResNet as ResNet
from triplet_jax.models.vit import ViT as ViT
