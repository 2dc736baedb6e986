"""Episodes encoded once, where every frame is encoded by itself: then any window is a slice of its episode.

    latents.json             format, version, data set, tokenizer, size of the pictures, normalisation, parts
    part-00000.safetensors   video (steps, N, C) float16, actions (steps, D), states (steps, S) float32, lengths (E,)
    part-00000.json          ids and instructions of the E episodes

Parts are written one after another and renamed into place, so an interrupted encoding goes on where it stopped. Values
of actions and states are raw: another normalisation needs no new encoding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from selfflow_mm.errors import UserError
from selfflow_mm.randomness import Randomness
from selfflow_mm.training.ranks import Ranks
from selfflow_tokenizers.tensor_file import save_tensors

from ..actions.chunks import padded
from ..adapter.spec import RobotSpec
from ..files import BadEpisode
from ..resizing import resize
from ..robot_episode import RobotEpisode
from ..sources import RobotFiles
from .windows import TokenWindows

__all__ = ["CachedWindows", "EncodedEpisodes", "encode_episodes"]

FORMAT, VERSION = "selfflow-robot-latents", 1
_PART, _FRAMES = 100, 64


@dataclass(frozen=True)
class EncodedEpisodes:
    """Encoded episodes in memory, laid end to end.

    Attributes:
        video: ``(steps, N, C)`` float16.
        actions, states: ``(steps, D)`` and ``(steps, S)`` float32, raw.
        lengths: steps of each episode.
        names, instructions: of each episode.
        quarantine: episodes that could not be read, and why.
    """

    video: Tensor
    actions: np.ndarray
    states: np.ndarray
    lengths: np.ndarray
    names: tuple[str, ...]
    instructions: tuple[str, ...]
    quarantine: tuple[str, ...]


def encode_episodes(
    files: RobotFiles, numbers: Sequence[int], tokenizer: Any, spec: RobotSpec, camera: str, folder: Path
) -> EncodedEpisodes:
    """Encode the episodes ``numbers`` of a data set into ``folder``, or open it when it holds the same.

    Args:
        files: the data set.
        numbers: which episodes.
        tokenizer: encodes frame by frame (time compression 1).
        spec: size of the pictures.
        camera: "" is each episode's first.
        folder: of the encoded data.

    Raises:
        UserError: the folder holds something else.
    """
    wanted = {
        "format": FORMAT,
        "version": VERSION,
        "data": str(files.files.folder.resolve()),
        "split": files.files.split,
        "episodes": [int(n) for n in numbers],
        "tokenizer": tokenizer.spec.name,
        "picture": [spec.height, spec.width, spec.fit, camera],
    }
    state, draft = folder / "latents.json", folder / "draft.json"
    for path in (state, draft):
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != wanted:
            raise UserError(
                f"{folder} holds latents of other episodes, another tokenizer or another size; remove the folder, or "
                "name another in data.latents"
            )
    if not state.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(draft, json.dumps(wanted))
        parts = [numbers[i : i + _PART] for i in range(0, len(numbers), _PART)]
        with tqdm(total=len(numbers), desc=f"encoding {files.files.folder.name}", unit="episode") as bar:
            for k, part in enumerate(parts):
                if not (folder / f"part-{k:05d}.json").exists():
                    _encode_part(files, part, tokenizer, spec, camera, folder / f"part-{k:05d}", bar)
                else:
                    bar.update(len(part))
        _refuse_nothing(folder)
        os.replace(draft, state)
    return _load(folder)


def _encode_part(
    files: RobotFiles, numbers: Sequence[int], tokenizer: Any, spec: RobotSpec, camera: str, path: Path, bar: Any
) -> None:
    video, actions, states, lengths, about = [], [], [], [], []
    lost = []
    for number in numbers:
        shard, index = files.locate(number)
        try:
            episode = files.read(shard, index)
            tokens = _encode(episode, tokenizer, spec, camera)
        except BadEpisode as error:
            lost.append(str(error))
            bar.update()
            continue
        video.append(tokens.half())
        actions.append(np.asarray(episode.actions, np.float32))
        states.append(np.asarray(episode.states, np.float32))
        lengths.append(len(episode))
        about.append([episode.id, episode.instruction])
        bar.update()
    if video:  # else all of the part are damaged, and there may be others
        tensors = {
            "video": torch.cat(video),
            "actions": torch.from_numpy(np.concatenate(actions)),
            "states": torch.from_numpy(np.concatenate(states)),
            "lengths": torch.tensor(lengths),
        }
        beside = path.with_suffix(".safetensors.tmp")
        save_tensors(tensors, beside)
        os.replace(beside, path.with_suffix(".safetensors"))
    _write(path.with_suffix(".json"), json.dumps({"episodes": about, "quarantine": lost}))


def _refuse_nothing(folder: Path) -> None:
    """UserError where no part holds an episode; repaired data are then read anew."""
    if any(folder.glob("part-*.safetensors")):
        return
    lost = []
    for path in sorted(folder.glob("part-*.json")):
        lost += json.loads(path.read_text(encoding="utf-8"))["quarantine"]
        path.unlink()
    raise UserError(f"not one of {len(lost)} episodes could be read: {lost[0]}")


def _encode(episode: RobotEpisode, tokenizer: Any, spec: RobotSpec, camera: str) -> Tensor:
    """``(T, N, C)``: the tokens of each picture of an episode."""
    chosen = camera or next(iter(episode.images), "")
    if chosen not in episode.images:
        raise UserError(f"episode {episode.id} has no camera '{chosen}'; it has {', '.join(episode.images) or 'none'}")
    found = []
    for begin in range(0, len(episode), _FRAMES):
        steps = list(range(begin, min(begin + _FRAMES, len(episode))))
        try:
            pictures = episode.images[chosen].read(steps)
        except UserError as error:  # a picture that does not decode spoils its episode, not the run
            raise BadEpisode(episode.id, begin, str(error)) from error
        small = torch.from_numpy(np.ascontiguousarray(resize(pictures, (spec.height, spec.width), spec.fit)))
        shape = tokenizer.filled(1, spec.height, spec.width)
        clips = torch.stack([tokenizer.fill(picture[None], shape) for picture in small])
        found.append(tokenizer.encode_batch(clips).cpu())
    return torch.cat(found)


def _load(folder: Path) -> EncodedEpisodes:
    parts = [load_file(path) for path in sorted(folder.glob("part-*.safetensors"))]
    about = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("part-*.json"))]
    episodes = [episode for part in about for episode in part["episodes"]]
    return EncodedEpisodes(
        video=torch.cat([p["video"] for p in parts]),
        actions=torch.cat([p["actions"] for p in parts]).numpy(),
        states=torch.cat([p["states"] for p in parts]).numpy(),
        lengths=torch.cat([p["lengths"] for p in parts]).numpy(),
        names=tuple(name for name, _ in episodes),
        instructions=tuple(text for _, text in episodes),
        quarantine=tuple(reason for part in about for reason in part["quarantine"]),
    )


class CachedWindows:
    """Windows out of encoded episodes, each once per epoch in a seeded order.

    Beyond an episode's end the last picture stands and the robot holds still, as in :mod:`..windows`.

    Args:
        data: encoded episodes.
        spec: of the model.
        seed: of the order.
        stride: steps between two starts in an episode.
        ranks: processes share each batch.
    """

    def __init__(self, data: EncodedEpisodes, spec: RobotSpec, *, seed: int, stride: int = 1, ranks: Ranks) -> None:
        self.data, self.spec, self.ranks = data, spec, ranks
        self.random = Randomness(seed)
        begins = np.concatenate([[0], np.cumsum(data.lengths)])[:-1]
        #: (episode, start) of every window.
        self.places = [(e, t) for e, length in enumerate(data.lengths.tolist()) for t in range(0, length, stride)]
        self.begins = begins
        self.taken = 0
        self._order: tuple[int, list[int]] = (-1, [])
        self._actions = spec.normalised_actions(data.actions)
        self._states = spec.seen_states(data.states) if spec.states is not None else None

    def take(self, count: int, actions: int, clip: bool) -> TokenWindows:
        """See :class:`.windows.WindowSource`."""
        rows = range(self.ranks.rank, count * self.ranks.world, self.ranks.world)
        chosen = [self._nth(self.taken + row) for row in rows]
        self.taken += count * self.ranks.world
        return self.windows(chosen, actions, clip)

    def windows(self, chosen: Sequence[int], actions: int, clip: bool) -> TokenWindows:
        """The windows of these numbers."""
        data, video, acts, states, texts, names = self.data, [], [], [], [], []
        for number in chosen:
            e, t = self.places[number]
            begin, length = int(self.begins[e]), int(data.lengths[e])
            shown = t + np.arange(self.spec.frames(actions) if clip else 1) // self.spec.frames_per_action
            video.append(data.video[begin + np.clip(shown, 0, length - 1)].flatten(0, 1))
            steps = t + np.arange(actions)
            # Padding is made in raw units, where holding still is zero, and then normalised.
            raw = padded(data.actions[begin : begin + length], steps, self.spec.action_names)
            inside = steps < length
            chunk = self._actions[begin + np.clip(steps, 0, length - 1)]
            if not inside.all():
                chunk = np.where(inside[:, None], chunk, self.spec.normalised_actions(raw))
            acts.append(self.spec.seen_chunk(chunk))
            if self._states is not None:
                states.append(self._states[begin + t])
            texts.append(data.instructions[e])
            names.append(f"{data.names[e]}@{t}")
        return TokenWindows(
            video=torch.stack(video).float(),
            actions=torch.from_numpy(np.stack(acts)),
            states=torch.from_numpy(np.stack(states)) if states else None,
            instructions=texts,
            ids=torch.tensor(list(chosen), dtype=torch.int64),
            names=names,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "windows": len(self.places)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a place.

        Raises:
            UserError: the data have become others.
        """
        if state["windows"] != len(self.places):
            raise UserError(
                f"the run was stopped with {state['windows']} windows of its data, now there are {len(self.places)}; "
                "give the same data"
            )
        self.taken = int(state["taken"])

    def _nth(self, position: int) -> int:
        epoch, place = divmod(position, len(self.places))
        if self._order[0] != epoch:
            self._order = (epoch, self.random.permutation("windows", epoch, len(self.places)).tolist())
        return self._order[1][place]


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
