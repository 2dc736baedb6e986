"""A fine-tuned folder, loaded: pictures to tokens, tokens from noise to data, tokens to pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfflow_mm.conditions import Conditions
from selfflow_mm.errors import UserError
from selfflow_mm.flow.path import interpolate
from selfflow_mm.flow.solvers import SOLVERS, schedule
from selfflow_mm.generation.field import Field
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.models.joint import JointTransformer
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream
from selfflow_mm.training.parts import pick_device, pick_dtype
from selfflow_mm.weights import find_weights
from selfflow_tokenizers.folder import weights_hash

from .spec import RobotSpec
from .streams import from_changes, to_changes, video_positions
from .tasks import VIDEO

__all__ = ["RobotModel"]

_TEXTS = 1024  # instructions whose tokens are kept


class RobotModel:
    """Everything that a robot's questions are answered with.

    Args:
        transformer: its EMA weights.
        video: tokenizer of its pictures.
        text: encoder of instructions.
        spec: see :class:`RobotSpec`.
        steps: of the solver, unless a caller says otherwise.
        shift: modality -> timestep shift of sampling; video's is its tokenizer's unless named.
        text_level: what training told text tokens.
        dtype: of matrix products.
    """

    def __init__(
        self,
        transformer: JointTransformer,
        video: Any,
        text: Any,
        spec: RobotSpec,
        *,
        steps: int = 10,
        shift: Mapping[str, float] | None = None,
        text_level: str = "zero",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.transformer, self.video, self.text, self.spec = transformer.eval(), video, text, spec
        self.steps, self.text_level, self.dtype = steps, text_level, dtype
        self.shift = {VIDEO: video.spec.sample_shift, **(shift or {})}
        self.name = ""
        self._texts: dict[str, TokenStream] = {}

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @classmethod
    def from_pretrained(
        cls, name: Path | str, *, device: str = "auto", precision: str = "auto", compile: bool = False
    ) -> RobotModel:
        """Load a model folder, or the newest weights of a run's folder; ``compile`` as in :meth:`compile`.

        Raises:
            UserError: there is no such model, it is no robot's, or its statistics are missing.
        """
        folder = find_weights(name)
        spec = RobotSpec.load(folder / "model" if (folder / "run.json").exists() else folder)
        pipeline = Pipeline.from_pretrained(folder)
        place = pick_device(device)
        made = cls(
            pipeline.model.to(place),
            pipeline.tokenizers[VIDEO].to(place),
            pipeline.text_encoder,
            spec,
            steps=pipeline.sampling.steps,
            shift=pipeline.sampling.shift,
            text_level=pipeline.text_level,
            dtype=pick_dtype(precision, place),
        )
        place_of = folder.resolve()
        made.name = place_of.parent.name if place_of.name == "model" else place_of.name  # no paths: servers tell it
        if compile:
            made.compile()
        return made

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that tell these weights from others."""
        return weights_hash(self.transformer)

    def compile(self) -> None:
        """Compile the transformer's passes: minutes of waiting at the first chunk of each shape, then faster ones."""
        model: Any = self.transformer
        for name in ("forward", "condition", "conditioned"):
            setattr(model, name, torch.compile(getattr(model, name), dynamic=False))

    def wants(self, task: str) -> None:
        """UserError unless the model was trained for ``task``."""
        if task not in self.spec.tasks:
            raise UserError(
                f"{self.name or 'this model'} was not trained for '{task}', only for {', '.join(self.spec.tasks)}; "
                f"give tasks.{task} a share when fine-tuning"
            )

    def encode(self, frames: np.ndarray) -> Tensor:
        """Clips ``(B, T, h, w, 3)`` uint8 of any size -> token values ``(B, N, C)``."""
        pictures = torch.from_numpy(np.ascontiguousarray(self.spec.pictures(frames)))
        height, width = self.spec.height, self.spec.width
        shape = self.video.filled(pictures.shape[1], height, width)
        filled = torch.stack([self.video.fill(clip, shape) for clip in pictures])
        values = self.video.encode_batch(filled).to(self.device)
        return to_changes(values, self._present) if self.spec.video_tokens == "changes" else values

    def decode(self, values: Tensor, frames: int) -> np.ndarray:
        """Token values ``(B, N, C)`` of a clip -> ``(B, frames, height, width, 3)`` uint8."""
        if self.spec.video_tokens == "changes":
            values = from_changes(values, self._present)
        positions = video_positions(self.video, self.spec, frames)
        rows, columns = (int(positions[:, axis].max()) + 1 for axis in (1, 2))
        pixels = self.video.decode_batch(values, rows, columns)
        return pixels[:, :frames, : self.spec.height, : self.spec.width].cpu().numpy()

    @property
    def _present(self) -> int:
        """Tokens of one frame of latents."""
        return len(video_positions(self.video, self.spec, 1))

    def clip(self, present: Tensor, actions: int, seeds: Sequence[int]) -> tuple[TokenStream, Tensor]:
        """A stream of noise for a clip that begins with the present and shows what ``actions`` actions do, and clean
        values ``(B, N, C)`` that hold the present's tokens in its place.
        """
        positions = video_positions(self.video, self.spec, self.spec.frames(actions))
        stream = TokenStream.dense(self.noise(VIDEO, seeds, len(positions), present.shape[2]), positions)
        clean = torch.zeros_like(stream.values)
        clean[:, : present.shape[1]] = present
        return stream, clean

    def noise(self, modality: str, seeds: Sequence[int], tokens: int, channels: int) -> Tensor:
        """x1 ``(B, tokens, channels)``; row i is a function of its seed alone."""
        one = torch.zeros(1, dtype=torch.int64, device=self.device)
        rows = [Randomness(seed).normal(f"sample/{modality}", 0, one, tokens * channels) for seed in seeds]
        return torch.cat(rows).view(len(seeds), tokens, channels)

    @torch.inference_mode()
    def solve(
        self,
        conditions: Conditions,
        streams: Mapping[str, TokenStream],
        clean: Mapping[str, Tensor],
        instructions: Sequence[str],
        *,
        steps: int | None = None,
        floor: Mapping[str, float] | None = None,
        guidance: float = 1.0,
    ) -> dict[str, Tensor]:
        """Integrate the velocity from noise to data.

        Args:
            conditions: what is generated and what is given.
            streams: modality -> stream whose values are noise.
            clean: given modality -> values ``(B, N, C)``, read where the conditions give tokens.
            instructions: one per row.
            steps: of Euler's method; the model's own unless given.
            floor: modality -> level at which it stops being denoised and stays: 1 keeps it pure noise, .7 denoises it a
                little; 0 unless named.
            guidance: scale of classifier-free guidance towards the instruction; 1 is none.

        Returns:
            modality -> values, given tokens as they were given.
        """
        steps = self.steps if steps is None else steps
        streams = {m: s.to(self.device) for m, s in streams.items()}
        masks = conditions.masks(streams)
        times = {}
        for m in streams:
            low = (floor or {}).get(m, 0.0)
            times[m] = [max(low, t) for t in schedule(steps, self.shift.get(m, 1.0))]
        pinned = {}
        for m, mask in masks.items():
            level = conditions.given[m].level
            at = torch.full(mask.shape, level, device=self.device)
            pinned[m] = (mask, interpolate(clean[m].to(self.device), streams[m].values, at), level)
        scales = {m: guidance for m in conditions.generate}
        captions = [*instructions, *([""] * len(instructions) if guidance != 1 else [])]
        text = self._text(captions)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            field = Field(self.transformer, streams, text, scales, pinned, self.text_level)
            x = SOLVERS["euler"](field, {m: s.values for m, s in streams.items()}, times)
        return {
            m: torch.where(masks[m].unsqueeze(-1), clean[m].to(self.device), v) if m in masks else v
            for m, v in x.items()
        }

    def _text(self, captions: Sequence[str]) -> TokenStream:
        """Tokens of the captions; an episode asks for the same ones at every step, and the encoder may be large."""
        missing = [text for text in dict.fromkeys(captions) if text not in self._texts]
        if len(self._texts) + len(missing) > _TEXTS:
            self._texts.clear()
            missing = list(dict.fromkeys(captions))
        for text in missing:
            self._texts[text] = self.text.encode([text])
        return TokenStream.pad([self._texts[text] for text in captions]).to(self.device)
