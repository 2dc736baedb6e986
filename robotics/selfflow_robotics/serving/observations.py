"""A client's message -> observations, in the names that openpi's clients use.

A picture is ``image`` or ``observation/image`` (or ``image`` in a dictionary ``observation``): ``(H, W, 3)`` uint8, or
``(B, H, W, 3)`` for B episodes at once. With it go ``prompt`` (one text, or a list of B) and ``state`` under the same
names as the picture: ``(S,)``, or ``(B, S)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import Observation, PolicyAbout

__all__ = ["MAX_PROMPT", "MAX_ROWS", "Question", "read_image", "read_observations", "read_prompt", "read_state"]

#: Most episodes in one message, and most characters of what a robot is told.
MAX_ROWS, MAX_PROMPT = 64, 4096
_MAX_STATE = 1024
_NESTED = "observation"


@dataclass(frozen=True, eq=False)
class Question:
    """One message, understood.

    Attributes:
        observations: B of them.
        batched: had the picture a leading axis of B? Then the answer has one too.
        ignored: keys of the message that mean nothing here.
    """

    observations: tuple[Observation, ...]
    batched: bool
    ignored: tuple[str, ...]


def read_observations(message: Mapping[Any, Any], about: PolicyAbout, prompt: str | None = None) -> Question:
    """The observations in ``message``.

    Args:
        message: as it was unpacked.
        about: of the policy that is asked; a state that it does not take is left out.
        prompt: what the robot is told where the message says nothing.

    Raises:
        UserError: a key is missing, or something is not of the type, shape or size that it has to be.
    """
    nested = message.get(_NESTED)
    inner: Mapping[Any, Any] = nested if isinstance(nested, dict) else {}
    used = {"prompt"}

    def find(name: str) -> Any:
        outer = (name, f"{_NESTED}/{name}")
        used.update(outer)
        found = [message[key] for key in outer if key in message] + [inner[key] for key in (name,) if key in inner]
        if len(found) > 1:
            raise UserError(f"the message has '{name}' twice, under the names {outer[0]} and {outer[1]}; send one")
        return found[0] if found else None

    image, state = find("image"), find("state")
    if image is None:
        raise UserError("the message has no picture: send 'image' or 'observation/image', (H, W, 3) uint8")
    pictures, batched = read_image(image)
    said = message.get("prompt")
    prompts = _prompts(prompt if said is None else said, len(pictures))
    states = _states(state, about, len(pictures), batched)
    observations = tuple(map(Observation, pictures, prompts, states))
    loose = [key for key in message if key not in used and not (key == _NESTED and inner)]
    ignored = [*loose, *(f"{_NESTED}/{key}" for key in inner if key not in used)]
    return Question(observations, batched, tuple(str(key)[:60] for key in ignored))


def read_image(value: Any) -> tuple[np.ndarray, bool]:
    """``(H, W, 3)`` or ``(B, H, W, 3)`` uint8 -> ``(B, H, W, 3)``, and whether B was there.

    Raises:
        UserError: any other type or shape; the sentence says what to do.
    """
    if not isinstance(value, np.ndarray):
        raise UserError(f"the picture is a numpy array of uint8, not {type(value).__name__}")
    if value.dtype != np.uint8:
        hint = "; floats in [0, 1] become pictures by (255 * x).astype(np.uint8)" if value.dtype.kind == "f" else ""
        raise UserError(f"the picture is of uint8, not of {value.dtype}{hint}")
    if value.ndim not in (3, 4) or value.shape[-1] != 3:
        channels_first = value.ndim in (3, 4) and value.shape[-3] == 3
        hint = "; channels come last, so move the axis of 3 to the end" if channels_first else ""
        raise UserError(f"the picture is (H, W, 3), or (B, H, W, 3) for several episodes, not {value.shape}{hint}")
    if value.size == 0:
        raise UserError(f"the picture is empty: {value.shape}")
    batched = value.ndim == 4
    pictures = value if batched else value[None]
    if len(pictures) > MAX_ROWS:
        raise UserError(f"a message has pictures of at most {MAX_ROWS} episodes, this one of {len(pictures)}")
    return pictures, batched


def read_prompt(value: Any) -> str:
    """What the robot is told.

    Raises:
        UserError: not a text, or too long.
    """
    if not isinstance(value, str):
        raise UserError(f"'prompt' is a text, not {type(value).__name__}")
    if len(value) > MAX_PROMPT:
        raise UserError(f"'prompt' has at most {MAX_PROMPT} characters, this one has {len(value)}")
    return value


def read_state(value: Any) -> np.ndarray:
    """Numbers of any type, in a list or an array of one or two axes -> float32 of the same shape.

    Raises:
        UserError: not numbers, not finite, or more than a robot has.
    """
    if isinstance(value, list):
        if not all(map(_is_number, value)):
            raise UserError("'state' is an array or a list of numbers, and this list holds something else")
        try:
            value = np.array(value, np.float64)
        except OverflowError as error:
            raise UserError("'state' has a number that is too large") from error
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        what = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"'state' is an array of numbers, not {what}")
    if value.ndim not in (1, 2) or value.shape[-1] > _MAX_STATE:
        raise UserError(f"'state' is (S,), or (B, S) for several episodes, not {value.shape}")
    with np.errstate(over="ignore"):
        numbers = value.astype(np.float32)
    if not np.all(np.isfinite(numbers)):
        raise UserError("'state' has numbers that are not finite (nan or infinity)")
    return numbers


def _is_number(value: Any) -> bool:
    # numpy's scalars too: `list(array)` of float32 comes as such
    return isinstance(value, (bool, int, float)) or (isinstance(value, np.generic) and value.dtype.kind in "biuf")


def _prompts(value: Any, rows: int) -> list[str]:
    if value is None:
        raise UserError("the message has no 'prompt', the text that the robot is told")
    if not isinstance(value, list):
        return [read_prompt(value)] * rows
    if len(value) != rows:
        raise UserError(f"there are {len(value)} prompts for {rows} pictures")
    return [read_prompt(text) for text in value]


def _states(value: Any, about: PolicyAbout, rows: int, batched: bool) -> list[np.ndarray] | list[None]:
    if value is None:
        if about.needs_state:
            names = ", ".join(about.state_names)
            raise UserError(f"{about.name} needs the robot's state: send 'state' of {len(about.state_names)} ({names})")
        return [None] * rows
    numbers = read_state(value)
    if not about.state_names:
        return [None] * rows
    if (numbers.ndim == 2) != batched or (batched and len(numbers) != rows):
        raise UserError(f"'state' is {numbers.shape} beside {rows if batched else 'one'} of pictures; rows go together")
    if numbers.shape[-1] != len(about.state_names):
        names = ", ".join(about.state_names)
        raise UserError(
            f"{about.name} takes a state of {len(about.state_names)} numbers ({names}), got {numbers.shape[-1]}"
        )
    return list(numbers if batched else numbers[None])
