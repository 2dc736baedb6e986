"""The settings of a robot's fine-tuning run; every field can be set by its dotted name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import ObjectiveConfig
from selfflow_mm.generation.sampling import SamplingConfig
from selfflow_mm.models.joint import JointConfig
from selfflow_mm.models.lora import LoRAConfig
from selfflow_mm.training.config import OptimizerConfig, RunConfig, TextConfig

from ..actions.normalise import Kind
from ..actions.relative import RelativeTo
from ..adapter.streams import VideoTokens
from ..adapter.tasks import TASKS
from ..resizing import Fit

__all__ = ["FinetuneConfig", "OfflineConfig", "RobotDataConfig"]


@dataclass(frozen=True)
class RobotDataConfig:
    """Which episodes, and what is cut out of them.

    Attributes:
        path: folder of robot data (RLDS or LeRobot); ``--data`` sets it.
        layout: what its columns mean; empty finds it out.
        split: that is trained on; of RLDS data several, joined by ``+``.
        held_out: split for offline metrics; empty takes the first ``held_out_episodes`` of ``split`` out of training.
        held_out_episodes: how many episodes the metrics look at.
        episodes: train on the first so many; 0 for all.
        statistics: a ``statistics.json``; empty takes the one beside the data, or measures the split before training.
        camera: which pictures; the first camera unless named.
        height, width, fit: of the pictures as the model sees them.
        horizon: H, actions of a chunk.
        video_rate: frames per second, a multiple of the control rate; 0 is the control rate.
        shorter: share of batches of tasks that are given actions, or none, whose clips show fewer actions: 1 to H - 1,
            so that a world model can take steps of any size.
        actions, states: how they are normalised (``quantile`` is q01 and q99).
        gripper: the same for the gripper's column of actions: ``unit`` takes 0 to 1 to -1 to 1, ``identity`` leaves it.
        relative_to: the model sees an action's motion from the ``step`` before, or from where its ``chunk`` begins
            (:mod:`selfflow_robotics.actions.relative`); a policy plans ahead sooner with the latter.
        video_tokens: of what follows the present the model sees ``frames``, or ``changes`` since the present: where the
            camera stands still most tokens are then zero, and a world model need not learn to copy.
        state: ``given`` as a token, or ``absent``.
        state_dropout: share of batches without the state, so that the policy can do without.
        stride: steps between two windows' starts in an episode.
        latents: where encoded episodes are kept (a tokenizer that encodes frame by frame only): empty is the run's
            ``latents``, ``off`` encodes every batch anew.
        batch: windows per step, over all processes.
    """

    path: str = ""
    layout: str = ""
    split: str = "train"
    held_out: str = ""
    held_out_episodes: int = 20
    episodes: int = 0
    statistics: str = ""
    camera: str = ""
    height: int = 192
    width: int = 256
    fit: Fit = "pad"
    horizon: int = 6
    video_rate: float = 0.0
    shorter: float = 0.5
    actions: Kind = "quantile"
    states: Kind = "quantile"
    gripper: Kind = "unit"
    relative_to: RelativeTo = "step"
    video_tokens: VideoTokens = "frames"
    state: Literal["given", "absent"] = "given"
    state_dropout: float = 0.1
    stride: int = 1
    latents: str = ""
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("height", "width", "horizon", "stride", "batch", "held_out_episodes"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is at least 1, got {getattr(self, name)}")
        if self.episodes < 0 or self.video_rate < 0:
            raise UserError("episodes and video_rate cannot be negative")
        if both := sorted(set(self.held_out.split("+")) & set(self.split.split("+"))):
            raise UserError(
                f"held_out names a split that is trained on, '{both[0]}' of '{self.split}'; name another, or none"
            )
        for name in ("shorter", "state_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a share in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class OfflineConfig:
    """What is measured on held-out episodes, at the end and whenever samples are drawn.

    Attributes:
        windows: at most so many, evenly spread.
        batch: of them at once.
        steps: of the solver; 0 takes ``sampling.steps``.
    """

    windows: int = 64
    batch: int = 16
    steps: int = 0

    def __post_init__(self) -> None:
        if self.windows < 1 or self.batch < 1 or self.steps < 0:
            raise UserError("windows and batch are at least 1 and steps cannot be negative")


def _sampling() -> SamplingConfig:
    return SamplingConfig(steps=10)


@dataclass(frozen=True)
class FinetuneConfig:
    """A whole fine-tuning run.

    Attributes:
        init: a joint checkpoint, model folder, run, bundled model or FLUX.2 transformer to start from; ``--init`` sets
            it. Empty starts from random weights.
        lora: low-rank adaptation in place of training everything.
        adapter: the ``lora.safetensors`` of an earlier run with the same ``init`` and ``lora``, to go on from.
        tokenizer: of the pictures, as in ``tokenizers.video`` of ``train``.
        audio: ``dropped``, or ``kept``: the layers of sound stay in the model as they were in ``init``, untrained.
        tasks: robot task -> share of batches (:data:`selfflow_robotics.adapter.tasks.TASKS`).
        sampling: of the exported model.
    """

    model: JointConfig = field(default_factory=JointConfig)
    init: str = ""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    adapter: str = ""
    tokenizer: str = "tiny/video"
    text: TextConfig = field(default_factory=TextConfig)
    audio: Literal["dropped", "kept"] = "dropped"
    data: RobotDataConfig = field(default_factory=RobotDataConfig)
    tasks: dict[str, float] = field(default_factory=lambda: {"policy": 0.4, "joint": 0.3, "world": 0.3})
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sampling: SamplingConfig = field(default_factory=_sampling)
    offline: OfflineConfig = field(default_factory=OfflineConfig)

    def __post_init__(self) -> None:
        for name, share in self.tasks.items():
            if name not in TASKS:
                raise UserError(f"tasks names '{name}'; a robot's tasks are {', '.join(TASKS)}")
            if share < 0:
                raise UserError(f"tasks.{name} is a share and cannot be negative, got {share}")
        if not sum(self.tasks.values()) > 0:
            raise UserError("tasks needs at least one task with a positive share")
        if self.objective.name == "repa":
            raise UserError("repa has no encoder for a robot's tokens; take self-flow, flow or another objective")
        if self.lora.rank and not self.init:
            raise UserError("lora adapts a model that there is; name one with --init (or init)")
        if self.adapter and not self.lora.rank:
            raise UserError("adapter names the weights of a LoRA; set lora.rank to that of its run")
        if self.audio == "kept" and not self.init:
            raise UserError("audio: kept keeps the layers of the model to start from; name one with --init (or init)")

    @property
    def trained(self) -> tuple[str, ...]:
        """Tasks with a share."""
        return tuple(name for name, share in self.tasks.items() if share > 0)

    def robot_objective(self) -> ObjectiveConfig:
        """The objective with what a robot's tokens need and the config leaves open.

        Masked shares of action and state tokens are not published; 0.1 is the paper's for video, which actions go with
        there, and given tokens are never masked. Given pictures are noised up to 0.2 as in the paper (or
        ``given_level``), actions and states are given as they are.
        """
        stated = self.objective
        return replace(
            stated,
            mask_ratio={"action": 0.1, "state": 0.0, **stated.mask_ratio},
            given_levels={"video": stated.given_level or 0.2, "action": 0.0, "state": 0.0, **stated.given_levels},
        )
