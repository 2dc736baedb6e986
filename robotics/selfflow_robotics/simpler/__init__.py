"""SIMPLER: the official evaluations of Google-robot and WidowX policies in simulation, and what runs them.

Importing this needs no simulator.
"""

from __future__ import annotations

from .arrangements import Arrangement, Start, Trial
from .suites import SUITES, TABLETOP_SUITES, shard, trials

__all__ = ["SUITES", "TABLETOP_SUITES", "Arrangement", "Start", "Trial", "shard", "trials"]
