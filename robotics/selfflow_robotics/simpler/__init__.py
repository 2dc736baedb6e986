"""SIMPLER: the official evaluations of Google-robot and WidowX policies in simulation, as data.

Importing this needs no simulator.
"""

from __future__ import annotations

from .suites import SUITES, Arrangement, Start, Trial, trials

__all__ = ["SUITES", "Arrangement", "Start", "Trial", "trials"]
