"""A world model, or the folder of one."""

from __future__ import annotations

from pathlib import Path

from ..interfaces import WorldModel

__all__ = ["open_world_model"]


def open_world_model(model: WorldModel | Path | str) -> WorldModel:
    """The model itself, or the one that a folder of ``finetune-robot`` holds.

    Raises:
        UserError: no such folder, or no world model in it.
    """
    if not isinstance(model, (str, Path)):
        return model
    from ..adapter import FlowWorldModel

    return FlowWorldModel.from_pretrained(model)
