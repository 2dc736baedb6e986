"""From a policy's gripper (absolute, 1 open, 0 closed) to a robot's command, one step at a time."""

from __future__ import annotations

from typing import Literal, Protocol

from selfflow_mm.errors import UserError

__all__ = ["STICKY", "GoogleRobotGripper", "GripperControl", "WidowXGripper"]

STICKY = 15


class GripperControl(Protocol):
    """``reset`` at the start of every episode, then ``step`` once per control step."""

    def reset(self) -> None: ...

    def step(self, opening: float) -> float:
        """The command for this step; ``opening`` is absolute, 1 open, 0 closed."""
        ...


class GoogleRobotGripper:
    """SIMPLER's Google robot: the command moves the gripper's *target*, +1 close, -1 open, 0 stay.

    One step of +1 does not close the gripper, so a command above 0.5 in size is repeated for ``sticky`` steps in all
    (15 = 5 s at 3 Hz); what the policy asks for meanwhile is not obeyed, and commands of at most 0.5 pass as they are.

    Args:
        sticky: steps per command; 1 turns repeating off.
        by: what a command is made of. ``"change"``: the previous opening less this one, as SIMPLER's Octo policy has
            it; the first command of an episode is 0, and a change that falls into a repeat is lost. ``"level"``:
            1 - 2 opening, as open-pi-zero has it; a gripper that is to stay closed is told so again and again, and
            nothing is lost.

    Raises:
        UserError: ``sticky`` is under 1, or ``by`` is neither.
    """

    def __init__(self, sticky: int = STICKY, by: Literal["change", "level"] = "change") -> None:
        if sticky < 1:
            raise UserError(f"sticky is the number of steps that a gripper command lasts, at least 1, not {sticky}")
        if by not in ("change", "level"):
            raise UserError(f"the gripper's command is made by 'change' or by 'level', not by '{by}'")
        self.sticky, self.by = sticky, by
        self.reset()

    def reset(self) -> None:
        self._previous: float | None = None
        self._repeated = 0.0
        self._left = 0

    def step(self, opening: float) -> float:
        if self.by == "level":
            command = 1 - 2 * opening
        else:
            command = 0.0 if self._previous is None else self._previous - opening
        self._previous = opening
        if self._left == 0 and abs(command) > 0.5:
            self._repeated, self._left = command, self.sticky
        if self._left > 0:
            self._left -= 1
            return self._repeated
        return command


class WidowXGripper:
    """SIMPLER's WidowX: the command *is* the target, +1 open, -1 close; an opening above 0.5 is open."""

    def reset(self) -> None:
        pass

    def step(self, opening: float) -> float:
        return 1.0 if opening > 0.5 else -1.0
