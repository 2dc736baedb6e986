"""A cabinet with three drawers: upright boxes, of which a drawer's move together along x."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import measures as m
from .footprints import Footprint

Box = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(eq=False)
class Cabinet:
    """Stands on the table with its front at x = ``front``, drawers 0 (top) to 2 (bottom) pulled out by ``opening``.

    Attributes:
        front: x of the carcass's front; ``side``: y of its middle.
        opening: metres per drawer, in [0, ``measures.TRAVEL``].
        low, high: ``(16, 3)`` corners of all boxes now; row 0 is the carcass.
        owner: drawer of each box, -1 for the carcass.
    """

    front: float
    side: float
    opening: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    low: np.ndarray = field(init=False)
    high: np.ndarray = field(init=False)
    owner: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rows: list[tuple[int, Box]] = [(-1, self.carcass)]
        for drawer in range(3):
            rows += [(drawer, box) for box in self._drawer(drawer)]
        self.owner = np.array([owner for owner, _ in rows])
        self._closed = np.array([box for _, box in rows])
        self._place()

    @property
    def carcass(self) -> Box:
        half, top = m.CABINET_HALF_WIDTH, m.TABLE_TOP + m.CABINET_HEIGHT
        return (
            (self.front, self.side - half, m.TABLE_TOP),
            (self.front + m.CABINET_DEPTH, self.side + half, top),
        )

    def height(self, drawer: int) -> float:
        """z of a drawer's middle."""
        return m.TABLE_TOP + m.DRAWER_BOTTOM + m.DRAWER_PITCH * (2 - drawer)

    def floor(self, drawer: int) -> float:
        """z on which things in the drawer lie."""
        return self.height(drawer) - m.BOX_HALF_HEIGHT + m.WALL

    def rim(self, drawer: int) -> float:
        """z of the upper edge of the drawer's walls."""
        return self.height(drawer) + m.BOX_HALF_HEIGHT

    def handle(self, drawer: int) -> tuple[float, float, float]:
        """The middle of the handle's upright bar."""
        x = self.front - 2 * m.PANEL_HALF[0] - m.HANDLE_OUT - self.opening[drawer]
        return (x, self.side, self.height(drawer))

    def inside(self, drawer: int) -> tuple[float, float, float, float]:
        """The inner walls: x of the panel's back, x of the box's back, lower and upper y."""
        near = self.front - self.opening[drawer]
        half = m.BOX_HALF_WIDTH - m.WALL
        return (near, near + m.BOX_DEPTH, self.side - half, self.side + half)

    def over(self, drawer: int, x: float, y: float) -> bool:
        """Whether (x, y) is above the open part of a drawer."""
        near, _, low, high = self.inside(drawer)
        return near < x < self.front and low < y < high

    def takes(self, drawer: int, footprint: Footprint) -> bool:
        """Whether the drawer is open far enough for a thing to go in."""
        return self.opening[drawer] > 2 * footprint.reach(1.0, 0.0) + 0.002

    def slide(self, drawer: int, change: float) -> float:
        """Open the drawer by ``change`` (negative: close it) as far as its stops allow; the change that happened."""
        before = self.opening[drawer]
        self.opening[drawer] = min(max(before + float(change), 0.0), m.TRAVEL)
        self._place()
        return self.opening[drawer] - before

    def walls(self) -> list[tuple[float, float, float, float, float, float]]:
        """What things outside the drawers cannot enter: (low x, high x, low y, high y, low z, high z) each."""
        (low, high) = self.carcass
        solid = [(low[0], high[0], low[1], high[1], low[2], high[2])]
        for drawer in range(3):
            near = self.front - 2 * m.PANEL_HALF[0] - self.opening[drawer]
            z, half = self.height(drawer), m.PANEL_HALF
            solid.append((near, self.front, self.side - half[1], self.side + half[1], z - half[2], z + half[2]))
            x, y, _ = self.handle(drawer)
            bar = m.HANDLE_HALF
            solid.append((x - bar[0], near, y - bar[1], y + bar[1], z - bar[2], z + bar[2]))
        return solid

    def _drawer(self, drawer: int) -> list[Box]:
        """Panel, handle, two sides and the floor, with the drawer shut."""
        x, y, z = self.front, self.side, self.height(drawer)
        panel, bar = m.PANEL_HALF, m.HANDLE_HALF
        grip = x - 2 * panel[0] - m.HANDLE_OUT
        half, low, high, back = m.BOX_HALF_WIDTH, z - m.BOX_HALF_HEIGHT, z + m.BOX_HALF_HEIGHT, x + m.BOX_DEPTH
        return [
            ((x - 2 * panel[0], y - panel[1], z - panel[2]), (x, y + panel[1], z + panel[2])),
            ((grip - bar[0], y - bar[1], z - bar[2]), (grip + bar[0], y + bar[1], z + bar[2])),
            ((x, y - half, low), (back, y - half + m.WALL, high)),
            ((x, y + half - m.WALL, low), (back, y + half, high)),
            ((x, y - half, low), (back, y + half, low + m.WALL)),
        ]

    def _place(self) -> None:
        boxes = self._closed.copy()
        boxes[:, :, 0] -= np.array([*self.opening, 0.0])[self.owner][:, None]  # owner -1 picks the last: the carcass
        self.low, self.high = boxes[:, 0], boxes[:, 1]
