"""Acting by imagining: plan through a world model, or choose among a policy's proposals by what they lead to.

``costs`` says what is wanted, ``imagined`` what a sequence of actions costs by the model's imagination, ``cem`` and
``mppi`` search, ``policy`` makes chunk policies of it, ``solver`` speaks with stable-worldmodel.
"""

from __future__ import annotations

from .cem import CEM
from .costs import ActionPenalty, Aim, Cost, GoalImageCost, Score, ScoreCost, WeightedSum
from .imagined import ImaginedCost
from .mppi import MPPI
from .planner import Bounds, Plan, Planner
from .policy import BestOfK, PlanningPolicy
from .scaling import ActionScaler
from .solver import Solver

__all__ = [
    "CEM",
    "MPPI",
    "ActionPenalty",
    "ActionScaler",
    "Aim",
    "BestOfK",
    "Bounds",
    "Cost",
    "GoalImageCost",
    "ImaginedCost",
    "Plan",
    "Planner",
    "PlanningPolicy",
    "Score",
    "ScoreCost",
    "Solver",
    "WeightedSum",
]
