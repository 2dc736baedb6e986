"""The robot adapter: action and state tokens beside video in the joint transformer, and what a fine-tuned folder does.

``spec`` says what a robot model sees and gives, ``streams`` makes tokens of it, ``tasks`` says what is generated from
what, ``model`` loads a folder and integrates; ``policy``, ``world_model`` and ``inverse`` are three ways to ask it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["FlowPolicy", "FlowWorldModel", "RobotModel", "RobotSpec"]

if TYPE_CHECKING:
    from .model import RobotModel
    from .policy import FlowPolicy
    from .spec import RobotSpec
    from .world_model import FlowWorldModel

_HOMES = {"FlowPolicy": "policy", "FlowWorldModel": "world_model", "RobotModel": "model", "RobotSpec": "spec"}


def __getattr__(name: str) -> Any:  # torch is imported when a class is asked for, not before
    if name not in _HOMES:
        raise AttributeError(name)
    import importlib

    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
