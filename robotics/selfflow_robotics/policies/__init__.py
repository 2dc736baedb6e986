"""Policies as an episode needs them: seeds and ensembling around a policy without memory, baselines, and loading."""

from .acting import ActingOptions, Policy
from .loading import load_policy

__all__ = ["ActingOptions", "Policy", "load_policy"]
