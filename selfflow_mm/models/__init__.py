"""The transformers; they know nothing of losses, solvers, data or devices."""

from .joint import JointConfig, JointTransformer, Output

__all__ = ["JointConfig", "JointTransformer", "Output"]
