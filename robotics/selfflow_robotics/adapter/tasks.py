"""What a robot model is asked: which of video, actions and state are generated, and which are given.

One model answers all of them because every token has its own noise level: a given token is at level 0 (or a small
augmentation level), an absent modality has no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfflow_mm.conditions import Conditions, Part

__all__ = ["ACTION", "STATE", "TASKS", "VIDEO", "RobotTask"]

VIDEO, ACTION, STATE = "video", "action", "state"


@dataclass(frozen=True)
class RobotTask:
    """One question.

    Attributes:
        video: ``present`` shows the first frame only, given; ``future`` generates what follows it; ``given`` gives all.
        actions: generated, given, or absent.
        state: is the robot's state of the present given? Where only pictures are known (in a dream) it cannot be.
    """

    video: Literal["present", "future", "given"]
    actions: Literal["generated", "given", "absent"]
    state: bool

    def conditions(self, level: float = 0.0, state: bool = True) -> Conditions:
        """For training and sampling.

        Args:
            level: noise that the given pictures are kept at while sampling.
            state: False leaves the state out where the task has one.
        """
        generate = [ACTION] if self.actions == "generated" else []
        given = {VIDEO: Part("first_frame" if self.video == "future" else "all", level=level)}
        if self.video == "future":
            generate.append(VIDEO)
        if self.actions == "given":
            given[ACTION] = Part("all")
        if self.state and state:
            given[STATE] = Part("all")
        return Conditions(tuple(generate), given)


#: Name -> question. Text is always at hand.
TASKS: dict[str, RobotTask] = {
    "policy": RobotTask("present", "generated", state=True),
    "joint": RobotTask("future", "generated", state=True),
    "world": RobotTask("future", "given", state=False),
    "video": RobotTask("future", "absent", state=False),
    "inverse": RobotTask("given", "generated", state=False),
}
