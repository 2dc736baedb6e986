"""Offline metrics: what a model says of held-out episodes, in real units, beside what needs no model.

They tell whether training works, not whether a robot would: for that there are rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.reconstruction import psnr

from ..adapter.model import RobotModel
from ..adapter.policy import FlowPolicy
from ..adapter.spec import RobotSpec
from ..adapter.world_model import FlowWorldModel
from ..interfaces import Observation, Request
from ..robot_episode import RobotEpisode
from ..windows import Window, WindowSpec, cut

__all__ = ["OfflineResult", "evaluate"]

_OPEN = 0.5  # a gripper's opening above it is open


@dataclass(frozen=True)
class OfflineResult:
    """What was found.

    Attributes:
        numbers: name -> value, as plain values.
        films: a few clips ``(T, h, w, 3)``, truth above the model's, with their instructions.
    """

    numbers: dict[str, Any]
    films: list[tuple[str, np.ndarray]]


def evaluate(
    model: RobotModel,
    episodes: Sequence[RobotEpisode],
    *,
    windows: int,
    batch: int,
    steps: int | None = None,
    camera: str = "",
    films: int = 2,
) -> OfflineResult:
    """Metrics on windows spread evenly over the episodes' steps.

    Args:
        model: trained for ``policy`` or ``joint`` for the actions, for ``world`` or ``joint`` for the pictures.
        episodes: held out.
        windows: at most so many.
        batch: at once.
        steps: of the solver; the model's own unless given.
        camera: "" is each episode's first.
        films: how many clips to give back.

    Returns:
        ``actions``: for each dimension mean absolute and root mean squared error in real units over the chunk's own
        steps (padding left out), of the model, of no motion and of the mean action; the share of steps with the right
        gripper (open or closed), and of the more frequent one; under ``chunk`` the error of each window's whole motion,
        the sum over its own steps, and its correlation with the true one: where a policy does not know where things
        lie, its steps are right on average and their sum is not. ``video``: PSNR after each action of a chunk without
        re-anchoring, and that of the present picture held still, both over the windows in which the picture is another
        one by then; ``psnr_rgb_at3_openloop`` is the picture after the third action alone, as in the report card. A
        model that is no world model but trained for ``joint`` imagines its own actions: ``psnr_rgb_at3_joint``.
    """
    spec = model.spec
    chosen = _spread(episodes, windows)
    cut_spec = WindowSpec(
        actions=spec.horizon, frames=spec.frames(spec.horizon), video_rate=spec.video_rate, camera=camera or None
    )
    found, texts, reason = [], [], ""
    for e, start in chosen:
        try:
            found.append(cut(episodes[e], start, cut_spec))
        except UserError as error:  # a picture that does not decode
            reason = str(error)
        else:
            texts.append(episodes[e].instruction)
    if not found:
        raise UserError(f"no window can be cut out of the held-out episodes: {reason}")
    numbers: dict[str, Any] = {"windows": len(found), "episodes": len(episodes), "horizon": spec.horizon}
    acts = [t for t in ("policy", "joint") if t in spec.tasks]
    if acts:
        policy = FlowPolicy(model, steps=steps, video="absent" if "policy" in acts else "denoised")
        numbers["actions"] = _actions(policy, found, texts, batch)
    films_made: list[tuple[str, np.ndarray]] = []
    if "world" in spec.tasks:
        world = FlowWorldModel(model, steps=steps)

        def imagined(now: np.ndarray, part: Sequence[int]) -> np.ndarray:
            actions = np.stack([found[i].actions for i in part])
            return world.imagine(now, actions, [texts[i] for i in part], seeds=part)

        numbers["video"], films_made = _video(model, imagined, "openloop", found, texts, batch, films)
    elif "joint" in spec.tasks:
        both = FlowPolicy(model, steps=steps, video="denoised")

        def beside(now: np.ndarray, part: Sequence[int]) -> np.ndarray:
            return both.futures([_request(both, found[i], texts[i], i) for i in part])

        numbers["video"], films_made = _video(model, beside, "joint", found, texts, batch, films)
    return OfflineResult(numbers, films_made)


def _spread(episodes: Sequence[RobotEpisode], windows: int) -> list[tuple[int, int]]:
    places = [(e, t) for e, episode in enumerate(episodes) for t in range(len(episode))]
    count = min(windows, len(places))
    return [places[i * len(places) // count] for i in range(count)]


def _actions(policy: FlowPolicy, windows: Sequence[Window], texts: Sequence[str], batch: int) -> dict[str, Any]:
    spec = policy.model.spec
    given: list[np.ndarray] = []
    for begin in tqdm(range(0, len(windows), batch), desc="actions of held-out windows", unit="batch", leave=False):
        part = range(begin, min(begin + batch, len(windows)))
        given.extend(policy.chunks([_request(policy, windows[i], texts[i], i) for i in part]))
    mask = np.stack([w.action_mask for w in windows])
    true, guess = np.stack([w.actions for w in windows])[mask], np.stack(given)[mask]
    names = spec.action_names
    mean = np.broadcast_to(np.asarray(spec.statistics.actions.mean, np.float32), true.shape)
    still = np.zeros_like(true)
    result: dict[str, Any] = {"steps": len(true)}
    for what, other in (("model", guess), ("mean_action", mean), ("no_motion", still)):
        error = other - true
        result[what] = {
            "mae": dict(zip(names, np.abs(error).mean(0).tolist(), strict=True)),
            "rmse": dict(zip(names, np.sqrt((error**2).mean(0)).tolist(), strict=True)),
        }
    result["chunk"] = _whole_motions(np.stack([w.actions for w in windows]), np.stack(given), mask, spec)
    if "gripper" in names:
        column = names.index("gripper")
        is_open = true[:, column] > _OPEN
        result["gripper_accuracy"] = float(((guess[:, column] > _OPEN) == is_open).mean())
        result["gripper_majority"] = float(max(is_open.mean(), 1 - is_open.mean()))
    return result


def _whole_motions(true: np.ndarray, guess: np.ndarray, mask: np.ndarray, spec: RobotSpec) -> dict[str, Any]:
    """Of chunks ``(W, H, D)`` the sums of all motions (a gripper is none) over the steps ``(W, H)`` inside."""
    moves = [i for i, name in enumerate(spec.action_names) if name != "gripper"]
    names, inside = [spec.action_names[i] for i in moves], mask[..., None]
    truth, told = ((chunks[..., moves] * inside).sum(1) for chunks in (true, guess))
    mean = np.asarray(spec.statistics.actions.mean, np.float32)[moves] * inside.sum(1)
    found: dict[str, Any] = {}
    for what, other in (("model", told), ("mean_action", mean), ("no_motion", np.zeros_like(truth))):
        found[what] = {"mae": dict(zip(names, np.abs(other - truth).mean(0).tolist(), strict=True))}
    found["model"]["correlation"] = {
        name: float(np.corrcoef(a, b)[0, 1])
        for name, a, b in zip(names, told.T, truth.T, strict=True)
        if a.std() > 0 and b.std() > 0
    }
    return found


def _request(policy: FlowPolicy, window: Window, text: str, seed: int) -> Request:
    state = window.states[0] if policy.model.spec.state_names else None
    return Request(Observation(window.video[0], text, state), seed=seed)


def _video(
    model: RobotModel,
    imagine: Callable[[np.ndarray, Sequence[int]], np.ndarray],
    protocol: str,
    windows: Sequence[Window],
    texts: Sequence[str],
    batch: int,
    films: int,
) -> tuple[dict[str, Any], list[tuple[str, np.ndarray]]]:
    """``imagine``: present pictures ``(B, h, w, 3)`` and numbers of windows -> ``(B, H, h, w, 3)``."""
    spec = model.spec
    after = spec.after_each_action(spec.horizon)
    model_db, copy_db = [], []
    made: list[tuple[str, np.ndarray]] = []
    for begin in tqdm(range(0, len(windows), batch), desc="pictures of held-out windows", unit="batch", leave=False):
        part = list(range(begin, min(begin + batch, len(windows))))
        now = np.stack([spec.pictures(windows[i].video[0]) for i in part])
        imagined = imagine(now, part)
        for row, i in enumerate(part):
            inside = windows[i].frame_mask[after]
            truth = torch.from_numpy(spec.pictures(windows[i].video[after]))
            films_row = torch.from_numpy(imagined[row])
            still = torch.from_numpy(now[row]).expand_as(truth)
            model_db.append([psnr(a, b) if own else np.nan for a, b, own in zip(films_row, truth, inside, strict=True)])
            copy_db.append([psnr(a, b) if own else np.nan for a, b, own in zip(still, truth, inside, strict=True)])
            if len(made) < films and inside.all():
                made.append((texts[i], np.concatenate([truth.numpy(), imagined[row]], axis=1)))
    numbers = {}
    for k in range(spec.horizon):
        ours, copied = np.array(model_db)[:, k], np.array(copy_db)[:, k]
        finite = np.isfinite(ours) & np.isfinite(copied)  # a copy of what did not move is perfect
        if finite.any():
            numbers[f"psnr_rgb_at{k + 1}_{protocol}"] = float(ours[finite].mean())
            numbers[f"psnr_rgb_at{k + 1}_copy_present"] = float(copied[finite].mean())
    return numbers, made
