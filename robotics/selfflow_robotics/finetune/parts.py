"""The parts of a fine-tuning run, built from its config: data, statistics, spec, model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError
from selfflow_mm.models.joint import JointConfig
from selfflow_mm.models.lora import LoRAConfig
from selfflow_mm.training.parts import load_tokenizers

from ..actions.normalise import normaliser
from ..adapter.spec import FILE_NAME as SPEC_FILE
from ..adapter.spec import RobotSpec
from ..adapter.tasks import ACTION, STATE, VIDEO
from ..files import BadEpisode
from ..measuring import measure
from ..robot_episode import RobotEpisode
from ..sources import RobotFiles, open_episodes
from ..statistics import FILE_NAME, Statistics
from .config import FinetuneConfig

__all__ = ["RobotData", "joint_config", "lora_config", "open_data", "robot_spec", "robot_tokenizer"]

#: Layers that are new to a joint checkpoint, or between it and the robot's tokens: LoRA trains them whole.
_NEW_LAYERS = ("media_in", "media_out", "projector")


@dataclass(frozen=True)
class RobotData:
    """Episodes to train on and episodes held out.

    Attributes:
        files: that are trained on.
        train: numbers of the episodes in them.
        held_out_files, held_out: those of the offline metrics.
    """

    files: RobotFiles
    train: tuple[int, ...]
    held_out_files: RobotFiles
    held_out: tuple[int, ...]

    @property
    def left_out(self) -> tuple[tuple[int, int], ...]:
        """(shard, index) of the episodes of ``files`` that are not trained on."""
        chosen = set(self.train)
        return tuple(self.files.locate(n) for n in range(len(self.files)) if n not in chosen)


def open_data(config: FinetuneConfig) -> RobotData:
    """The episodes that the config names.

    Raises:
        UserError: nothing there, or nothing left to train on.
    """
    data = config.data
    if not data.path:
        raise UserError("there is no robot data to fine-tune on; name a folder with --data (or data.path)")
    files = open_episodes(data.path, data.layout or None, data.split)
    here = _here(files)
    if data.held_out:
        others, first = open_episodes(data.path, data.layout or None, data.held_out), 0
        held_out = _here(others)[: data.held_out_episodes]
    else:
        others, first = files, max(0, min(data.held_out_episodes, len(here) - 1))
        held_out = here[:first]
    train = here[first : first + data.episodes if data.episodes else None]
    if not train or not held_out:
        raise UserError(
            f"{data.path} holds {len(here)} episodes, too few to hold {data.held_out_episodes} out and train on the "
            "others; lower data.held_out_episodes"
        )
    return RobotData(files, train, others, held_out)


def _here(files: RobotFiles) -> tuple[int, ...]:
    """Numbers of the episodes whose files are there: a data set may be downloaded in part."""
    missing = files.files.missing
    return tuple(n for n in range(len(files)) if not missing or files.locate(n)[0] not in missing)


def robot_statistics(
    config: FinetuneConfig, data: RobotData, out: Path | None, *, begun: bool = False, resumed: bool = False
) -> Statistics:
    """The statistics that actions and states are normalised by: named, those of the run that is resumed, beside the
    data, or measured now and kept in the run's folder.

    Args:
        config: names them, or not.
        data: that are trained on.
        out: folder of the run, if there is to be one.
        begun: the folder is this run's, not what an earlier try with other data may have left there.
        resumed: the run goes on from a checkpoint, whose actions mean what its statistics say.
    """
    if config.data.statistics:
        return Statistics.load(config.data.statistics)
    if resumed and out is not None and (out / "model" / SPEC_FILE).is_file():
        return RobotSpec.load(out / "model").statistics
    for folder in (data.files.files.folder, out if begun else None):
        if folder is not None and (folder / FILE_NAME).is_file():
            return Statistics.load(folder)
    print(f"there is no {FILE_NAME} beside {config.data.path}; measuring actions and states of the whole split")
    found = measure(data.files)
    if out is not None:
        found.save(out / FILE_NAME)
    return found


def robot_tokenizer(config: FinetuneConfig) -> Any:
    """The tokenizer of pictures; one of stills encodes videos frame by frame.

    Raises:
        UserError: there is none, or it is one of sound.
    """
    try:
        tokenizers, _ = load_tokenizers({VIDEO: config.tokenizer})
    except UserError as error:
        if "is a tokenizer of image" not in str(error):
            raise UserError(str(error).replace("tokenizers.video", "tokenizer")) from error
        tokenizers, _ = load_tokenizers({"image": config.tokenizer})
    return next(iter(tokenizers.values()))


def robot_spec(config: FinetuneConfig, data: RobotData, statistics: Statistics, tokenizer: Any) -> RobotSpec:
    """What the model will see.

    Raises:
        UserError: a clip of the horizon does not fill the tokenizer's latent frames, the data have no state or no such
            camera, or the statistics are of other numbers.
    """
    wanted = config.data
    episode = next(_readable(data.files, data.train))
    if not episode.images or wanted.camera not in ("", *episode.images):
        raise UserError(
            f"{wanted.path} has no camera '{wanted.camera}'; there are {', '.join(episode.images) or 'none'}"
        )
    if len(statistics.actions.names) != len(episode.action_names):
        raise UserError(
            f"the statistics are of actions of {len(statistics.actions.names)} numbers, those of {wanted.path} have "
            f"{len(episode.action_names)}; name those of these data in data.statistics"
        )
    if wanted.state == "given" and (statistics.states is None or not episode.state_names):
        raise UserError(f"{wanted.path} has no states; set data.state=absent")
    takes = wanted.state == "given"
    spec = RobotSpec(
        horizon=wanted.horizon,
        control_rate=episode.control_rate,
        video_rate=wanted.video_rate or episode.control_rate,
        height=wanted.height,
        width=wanted.width,
        fit=wanted.fit,
        action_names=episode.action_names,
        state_names=episode.state_names if takes else (),
        actions=normaliser(wanted.actions, statistics.actions, gripper=wanted.gripper),
        states=normaliser(wanted.states, statistics.states, gripper=None) if takes else None,
        statistics=statistics,
        robot=episode.robot,
        tasks=config.trained,
        state_optional=not takes or wanted.state_dropout > 0,
        camera=wanted.camera,
        relative_to=wanted.relative_to,
        video_tokens=wanted.video_tokens,
    )
    for count in {1, spec.horizon} if wanted.shorter else {spec.horizon}:
        refuse_cut_frames(spec, tokenizer, count)
    return spec


def refuse_cut_frames(spec: RobotSpec, tokenizer: Any, actions: int) -> None:
    """UserError where the frames of ``actions`` actions do not fill whole latent frames."""
    step = tokenizer.spec.time_compression
    if (spec.frames(actions) - 1) % step:
        raise UserError(
            f"{actions} actions at {spec.control_rate:g} a second are {spec.frames(actions)} frames at "
            f"{spec.video_rate:g}, and '{tokenizer.spec.name}' takes 1 + {step}k; set data.video_rate to a multiple of "
            f"{step * spec.control_rate:g}"
        )


def joint_config(
    config: FinetuneConfig, spec: RobotSpec, tokenizer: Any, text_encoder: Any, kept: dict[str, int]
) -> JointConfig:
    """The model's config with the channels of its modalities and text.

    Args:
        kept: modality -> channels of what is kept of the model to start from.
    """
    channels = {VIDEO: tokenizer.spec.channels, ACTION: len(spec.action_names)}
    if spec.states is not None:
        channels[STATE] = len(spec.state_names)
    stated = config.model.modalities
    for name, count in stated.items():
        if name not in channels or channels[name] != count:
            raise UserError(f"model.modalities.{name} is {count}; here there are {channels}")
    return replace(config.model, modalities={**channels, **kept}, text_channels=text_encoder.spec.channels)


def lora_config(config: FinetuneConfig) -> LoRAConfig:
    """The config's, with the robot's own layers trained whole."""
    return replace(config.lora, full=(*config.lora.full, *_NEW_LAYERS))


def episodes_of(files: RobotFiles, numbers: Sequence[int]) -> list[RobotEpisode]:
    """Those episodes, read; damaged ones are left out.

    Raises:
        UserError: all are damaged.
    """
    return list(_readable(files, numbers))


def _readable(files: RobotFiles, numbers: Sequence[int]) -> Iterator[RobotEpisode]:
    found, reason = 0, ""
    for number in numbers:
        try:
            episode = files.read(*files.locate(number))
        except BadEpisode as error:
            reason = str(error)
            continue
        found += 1
        yield episode
    if not found:
        raise UserError(f"not one of {len(numbers)} episodes of {files.files.folder} can be read: {reason}")
