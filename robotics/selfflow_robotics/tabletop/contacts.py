"""What touched what, when, where and how hard: the events that sounds are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

#: Metres per second that count as impact 1.
FULL_IMPACT = 1.5


@dataclass(frozen=True)
class Contact:
    """One blow.

    Attributes:
        time: seconds since the episode began.
        place: x, y, z in metres.
        impact: speed at which the two met, as a share of ``FULL_IMPACT``, in [0, 1].
        names: what met: an object's name, ``"gripper"``, ``"table"``, ``"cabinet"``, ``"drawer:top"``, ``"floor"``.
        materials: of the two, keys of ``sound.MATERIALS``.
    """

    time: float
    place: tuple[float, float, float]
    impact: float
    names: tuple[str, str]
    materials: tuple[str, str]


@dataclass
class Log:
    """Collects the contacts of one control step; ``now`` is the end of the sub-step being computed.

    A pair that stays in touch is one contact: it is listed again only after a sub-step without touch.
    """

    now: float = 0.0
    contacts: list[Contact] = field(default_factory=list)
    _touching: set[tuple[str, str]] = field(default_factory=set)
    _before: set[tuple[str, str]] = field(default_factory=set)

    def advance(self, seconds: float) -> None:
        """Begin the next sub-step."""
        self.now += seconds
        self._before, self._touching = self._touching, set()

    def touch(
        self, names: tuple[str, str], materials: tuple[str, str], place: Sequence[float] | np.ndarray, speed: float
    ) -> None:
        """A pair is in touch in this sub-step; the first time it is a contact."""
        if names not in self._before and names not in self._touching:
            self.blow(names, materials, place, speed, self.now)
        self._touching.add(names)

    def blow(
        self,
        names: tuple[str, str],
        materials: tuple[str, str],
        place: Sequence[float] | np.ndarray,
        speed: float,
        time: float,
    ) -> None:
        """A contact at a time of its own."""
        where = (float(place[0]), float(place[1]), float(place[2]))
        self.contacts.append(Contact(float(time), where, min(float(speed) / FULL_IMPACT, 1.0), names, materials))
