"""Policies in closed loop: many episodes at once, what came of them, and how sure that is."""

from .film import Film
from .results import EpisodeResult, ResultsFile, read_results
from .run import rollout
from .summary import compare, summarise
from .tabletop import TabletopOptions, tabletop_observation

__all__ = [
    "EpisodeResult",
    "Film",
    "ResultsFile",
    "TabletopOptions",
    "compare",
    "read_results",
    "rollout",
    "summarise",
    "tabletop_observation",
]
