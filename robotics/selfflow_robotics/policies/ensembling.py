"""One action for each control step out of several chunks that have one for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["VOTED", "adaptive_weights", "blend", "overlap", "temporal_weights"]

#: Columns that are two states and nothing between them.
VOTED = ("gripper", "terminate")
_TIE = 1e-9


def overlap(chunks: Sequence[np.ndarray], shift: int) -> tuple[np.ndarray, np.ndarray]:
    """What chunks say about the control steps of the newest.

    Args:
        chunks: J of ``(H, D)``, the newest first; each was asked for ``shift`` steps after the next in the row.
        shift: control steps between them, at least 1.

    Returns:
        ``members (J, H, D)`` float64, row r of the j-th being what that chunk says about step r of the newest, and
        ``present (J, H)`` bool, False (and the members 0) where it does not reach that far.
    """
    horizon, width = chunks[0].shape
    members = np.zeros((len(chunks), horizon, width))
    present = np.zeros((len(chunks), horizon), bool)
    for age, chunk in enumerate(chunks):
        rest = chunk[age * shift :]
        members[age, : len(rest)] = rest
        present[age, : len(rest)] = True
    return members, present


def temporal_weights(present: np.ndarray, decay: float) -> np.ndarray:
    """ACT's: ``w_i = exp(-decay * i)``, i counting from the *oldest* chunk that has an action for the step.

    So a larger decay takes up what is new more slowly. Zhao et al., "Learning Fine-Grained Bimanual Manipulation with
    Low-Cost Hardware", 2023, section IV-A and algorithm 2 (m = 0.01 in their code).

    Args:
        present: ``(J, H)``, newest first.

    Returns:
        ``(J, H)``, each column's sum 1.
    """
    place = present.sum(axis=0) - 1 - np.arange(len(present))[:, None]
    return _normalised(np.where(present, -decay * place, -np.inf))


def adaptive_weights(members: np.ndarray, present: np.ndarray, alpha: float) -> np.ndarray:
    """CogACT's: ``w = exp(alpha * cos(newest, other))`` of whole actions in raw units; the newest itself has cos 1.

    A chunk that means to do something else counts less. Li et al., "CogACT: A Foundational Vision-Language-Action
    Model for Synergizing Cognition and Action in Robotic Manipulation", 2024, adaptive action ensemble (alpha = 0.1),
    as in their ``adaptive_ensemble.py`` for SIMPLER. The cosine with an action of zeros is 0.
    """
    newest = members[:1]
    lengths = np.linalg.norm(members, axis=2) * np.linalg.norm(newest, axis=2)
    cosine = (members * newest).sum(axis=2) / np.where(lengths > 0, lengths, 1)
    return _normalised(np.where(present, alpha * cosine, -np.inf))


def blend(members: np.ndarray, weights: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """``(H, D)``: the weighted mean, rotations column by column as they are small.

    Columns of :data:`VOTED` are two states (open or closed) and have no middle: the side of 0.5 with more weight wins,
    at a tie the newest chunk's, and the mean is over those on that side.
    """
    result = np.einsum("jh,jhd->hd", weights, members)
    for column, name in enumerate(names):
        if name in VOTED:
            values = members[..., column]
            high = values > 0.5
            share = (weights * high).sum(axis=0)
            wins = np.where(np.abs(share - 0.5) < _TIE, high[0], share > 0.5)
            votes = weights * (high == wins)
            result[:, column] = (votes * values).sum(axis=0) / votes.sum(axis=0)
    return result


def _normalised(logarithms: np.ndarray) -> np.ndarray:
    weights = np.exp(logarithms - logarithms.max(axis=0))
    return weights / weights.sum(axis=0)
