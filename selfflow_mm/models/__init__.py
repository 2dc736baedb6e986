"""The transformers; they know nothing of losses, solvers, data or devices."""

from .imagenet import IMAGENET_XL_2, ImageNetConfig, ImageNetModel, SelfFlowPerTokenDiT
from .joint import JointConfig, JointTransformer, Output
from .presets import PRESETS, preset

__all__ = [
    "IMAGENET_XL_2",
    "PRESETS",
    "ImageNetConfig",
    "ImageNetModel",
    "JointConfig",
    "JointTransformer",
    "Output",
    "SelfFlowPerTokenDiT",
    "preset",
]
