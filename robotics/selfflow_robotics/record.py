"""Recording the tabletop's expert as episodes in RT-1's layout, so that whatever reads RT-1 reads them.

RT-1's tasks of two parts are two episodes ("open top drawer", then "place apple into top drawer"), and so they are
here. Fields of RT-1 that the tabletop has no counterpart of (the sentence embedding, the boxes, what is left to go) are
zeros.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from selfflow_mm.data.parallel import Crash, ordered_map
from selfflow_mm.errors import UserError

from .actions.rotations import axis_angle_to_rpy, xyzw_from_wxyz
from .episode import EncodedPictures, Episode, Feature
from .rlds import FRACTAL_FEATURES, FRACTAL_METADATA, RldsWriter

__all__ = ["RECORDED_NAME", "RecordOptions", "Recorded", "record"]

RECORDED_NAME = "tabletop"
_ATTEMPTS = 20
_SOUND = "observation/sound"


@dataclass(frozen=True)
class RecordOptions:
    """What is recorded.

    Attributes:
        tasks: of the tabletop, in turns.
        episodes: demonstrations; a task of two parts gives two episodes each.
        seed: of everything random. Demonstration n depends on (seed, n) alone.
        variant: how the scenes look, as the environment's option of that name.
        noise: of the expert's motion, so that demonstrations vary; 0 is the expert as it is.
        wander: share of demonstrations that begin somewhere above the table, perhaps with a closed gripper, instead of
            where the task begins: the hand goes there before the recording starts. Whoever learns from demonstrations
            that all go the straight way never learns to come back to it.
        sound: record the contact sounds too, as ``observation/sound``.
        quality: of the JPEG pictures, 1 to 100.
        failures: keep demonstrations that fail too (``aspects/success`` tells).
        every_name: give each scene of several objects once for every instruction that it can have, one demonstration
            after another. One picture with several names and aims teaches what names mean far better than as many
            pictures with one each (docs/results/robotics.md).
        first: end each demonstration after so many steps, unfinished (``aspects/success`` is false then); 0 for none.
            Nothing but the name tells a first picture's aim; later ones show where the hand goes.
    """

    tasks: tuple[str, ...]
    episodes: int
    seed: int = 0
    variant: tuple[str, ...] = ("base",)
    noise: float = 0.0
    wander: float = 0.0
    sound: bool = False
    quality: int = 95
    failures: bool = False
    every_name: bool = False
    first: int = 0


@dataclass(frozen=True)
class Recorded:
    """What a recording gave: episodes and steps written, per task; attempts that failed and were repeated."""

    folder: Path
    episodes: Mapping[str, int]
    steps: Mapping[str, int]
    failed: Mapping[str, int]


def record(
    folder: Path,
    options: RecordOptions,
    *,
    split: str = "train",
    episodes_per_shard: int = 100,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Recorded:
    """Let the expert work and write what it did as an RLDS data set.

    Args:
        folder: new, or with other splits of the same.
        workers: processes; 0 is this one. The data do not depend on it.

    Raises:
        UserError: an unknown task or variant, or a folder that holds the split.
    """
    from tqdm import tqdm

    from .tabletop.tasks import ALL_TASKS

    for task in options.tasks:
        if task not in ALL_TASKS:
            raise UserError(f"the tabletop has no task '{task}'; there are {', '.join(ALL_TASKS)}")
    if not 0 <= options.wander <= 1:
        raise UserError(f"wander is a share of demonstrations in [0, 1], got {options.wander}")
    if options.first < 0:
        raise UserError(f"a demonstration ends after at least one step, or goes to its end (0), got {options.first}")
    if options.episodes < 1 or not options.tasks:
        raise UserError(f"at least one episode of one task is recorded, got {options.episodes} of {options.tasks}")
    features = dict(FRACTAL_FEATURES)
    if options.sound:
        from .tabletop.sound import SAMPLES

        features[_SOUND] = Feature("array", (2, SAMPLES), "float32", description="1/3 s of stereo before the picture")
    episodes: dict[str, int] = {}
    steps: dict[str, int] = {}
    failed: dict[str, int] = {}
    writer = RldsWriter(
        folder,
        name=RECORDED_NAME,
        split=split,
        features=features,
        metadata_features=FRACTAL_METADATA,
        episodes_per_shard=episodes_per_shard,
        description=f"The scripted expert of selfflow/Tabletop-v0, a test bed, in RT-1's layout. {options}",
        overwrite=overwrite,
    )
    jobs = [(options, number) for number in range(options.episodes)]
    with writer, tqdm(total=len(jobs), unit="episode", disable=not progress) as bar:
        for result in ordered_map(_demonstrate, jobs, workers):
            if isinstance(result, Crash):
                raise UserError("a recording process died, perhaps for lack of memory; try fewer --workers")
            task, written, misses = result
            for episode in written:
                writer.write(episode)
                episodes[task] = episodes.get(task, 0) + 1
                steps[task] = steps.get(task, 0) + episode.length
            failed[task] = failed.get(task, 0) + misses
            bar.update()
            bar.set_postfix(steps=sum(steps.values()), refresh=False)
    return Recorded(folder, episodes, steps, failed)


def _demonstrate(job: tuple[RecordOptions, int]) -> tuple[str, list[Episode], int]:
    """Demonstration ``number``: the first attempt that succeeds, or the first of all where failures are kept."""
    options, number = job
    task = options.tasks[number % len(options.tasks)]
    for attempt in range(_ATTEMPTS):
        pieces, success = _attempt(options, task, number, attempt)
        if pieces and (success or options.failures or options.first):
            numbered = [_episode(options, number, part, piece, success) for part, piece in enumerate(pieces)]
            return task, numbered, attempt
    raise UserError(f"the expert failed {_ATTEMPTS} times at '{task}' (noise {options.noise}); lower the noise")


@dataclass
class _Piece:
    """One instruction carried out: an observation, an action and perhaps the end at each step."""

    instruction: str
    observations: list[dict[str, Any]]
    actions: list[np.ndarray]


def _attempt(options: RecordOptions, task: str, number: int, attempt: int) -> tuple[list[_Piece], bool]:
    import gymnasium

    from .tabletop import ID, Expert, TabletopEnv
    from .tabletop.tasks import ALL_TASKS

    env = gymnasium.make(ID, task=task, variant=list(options.variant), sound=options.sound)
    base = env.unwrapped
    assert isinstance(base, TabletopEnv)
    try:
        scene, naming = divmod(number // len(options.tasks), ALL_TASKS[task].namings if options.every_name else 1)
        # Without names to go through, the demonstration's own number; tasks in turns have scenes of their own anyway.
        drawn = scene if options.every_name else number
        episode = int(np.random.SeedSequence([options.seed, drawn, attempt]).generate_state(1)[0])
        observation, info = env.reset(options={"episode": episode, "naming": naming})
        expert = Expert(env, noise=options.noise, seed=episode)
        if options.wander and expert.rng.random() < options.wander:
            for action in expert.wander():
                observation, _, ended, truncated, info = env.step(action.astype(np.float32))
                if ended or truncated:  # solved by accident, with nothing to show
                    return [], False
        pieces = [_Piece(info["instruction"], [], [])]
        ended = truncated = False
        while not (ended or truncated):
            action = expert.act()
            instruction = base.get_language_instruction()
            if instruction != pieces[-1].instruction:  # the expert has done the first part
                _end(pieces[-1], observation)
                pieces.append(_Piece(instruction, [], []))
            pieces[-1].observations.append(observation)
            pieces[-1].actions.append(action)
            observation, _, ended, truncated, info = env.step(action)
            if options.first and sum(len(piece.actions) for piece in pieces) == options.first and not ended:
                return pieces, False  # cut off: the hand goes on, and nobody says that it is done
        _end(pieces[-1], observation)
        return pieces, bool(info["success"])
    finally:
        env.close()


def _end(piece: _Piece, observation: dict[str, Any]) -> None:
    """RT-1's last step: nothing moves and the robot says that it is done."""
    piece.observations.append(observation)
    piece.actions.append(np.zeros(7))


def _episode(options: RecordOptions, number: int, part: int, piece: _Piece, success: bool) -> Episode:
    length = len(piece.actions)
    actions = np.stack(piece.actions)
    pose = np.stack([o["extra"]["tcp_pose"] for o in piece.observations])
    qpos = np.stack([o["agent"]["qpos"] for o in piece.observations])
    ends = np.zeros(length, bool)
    ends[-1] = not options.first or success
    known = {
        "action/world_vector": actions[:, :3],
        "action/rotation_delta": axis_angle_to_rpy(actions[:, 3:6]),
        "action/gripper_closedness_action": actions[:, 6:],
        "action/terminate_episode": np.where(ends[:, None], [1, 0, 0], [0, 1, 0]),
        "observation/base_pose_tool_reached": np.hstack([pose[:, :3], xyzw_from_wxyz(pose[:, 3:])]),
        "observation/gripper_closed": qpos[:, 6:7],
        "observation/gripper_closedness_commanded": qpos[:, 7:8],
        "observation/height_to_bottom": pose[:, 2:3],
        "is_first": np.arange(length) == 0,
        "is_last": ends,
        "is_terminal": ends,
        "reward": ends & success,
    }
    if options.sound:
        known[_SOUND] = np.stack([o["sound"] for o in piece.observations])
    columns = {
        name: np.asarray(known[name], feature.dtype)
        if name in known
        else np.zeros((length, *(size or 0 for size in feature.shape)), feature.dtype)
        for name, feature in [*FRACTAL_FEATURES.items(), (_SOUND, Feature("array"))]
        if feature.kind == "array" and (name != _SOUND or options.sound)
    }
    frames = [_jpeg(o["image"]["overhead_camera"]["rgb"], options.quality) for o in piece.observations]
    return Episode(
        id=f"{number}.{part}",
        length=length,
        columns=columns,
        texts={"observation/natural_language_instruction": [piece.instruction] * length},
        pictures={"observation/image": EncodedPictures(frames)},
        metadata=_metadata(piece.instruction, success),
    )


def _metadata(instruction: str, success: bool) -> dict[str, Any]:
    said = {"aspects/success": success, "aspects/feasible": True, "aspects/has_aspects": True}
    names = {"env": "tabletop", "collection_mode": "scripted expert", "task_family": instruction.split()[0]}
    empty: dict[str, Any] = {}
    for name, feature in FRACTAL_METADATA.items():
        text = names.get(name.removeprefix("attributes/").removesuffix("_name"), "")
        empty[name] = text if feature.kind == "text" else np.zeros((), feature.dtype)[()]
    return empty | said


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(frame).save(file, "JPEG", quality=quality)
    return file.getvalue()
