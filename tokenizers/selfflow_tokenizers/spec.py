"""The spec: everything the transformer and the sampler need to know of a tokenizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import UserError

SPEC_VERSION = 1


@dataclass(frozen=True)
class TokenizerSpec:
    """Facts about a tokenizer; the model reads these and never a tokenizer class.

    Attributes:
        name: short id, stored with latents so that those of another tokenizer are refused.
        modality: ``image``, ``video``, ``audio`` or ``text``.
        channels: C of the token values.
        time_compression: frames per latent frame after the first (video), else 1.
        space_compression: pixels per token along rows and columns, patching included; 1 for sound and text.
        latents_per_second: tokens per second of sound; 0 where it does not apply.
        sample_rate: samples per second of the waveform read; 0 where it does not apply.
        decoded_rate: samples per second of the waveform written, where that is another; else 0.
        audio_channels: 1 or 2 for sound; 0 where it does not apply.
        scale: values = (raw latents - shift) * scale, per channel; empty means 1.
        shift: see ``scale``; empty means 0.
        train_shift: timestep shift while training on these latents (1 is none).
        sample_shift: timestep shift while sampling.
        licence: SPDX id of the weights.
    """

    name: str
    modality: str
    channels: int
    time_compression: int = 1
    space_compression: int = 1
    latents_per_second: float = 0.0
    sample_rate: int = 0
    decoded_rate: int = 0
    audio_channels: int = 0
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    train_shift: float = 1.0
    sample_shift: float = 1.0
    licence: str = "Apache-2.0"

    def __post_init__(self) -> None:
        for name in ("scale", "shift"):
            values = getattr(self, name)
            if values and len(values) != self.channels:
                raise UserError(f"{self.name}: {name} has {len(values)} values for {self.channels} channels")

    def to_dict(self) -> dict[str, Any]:
        return {"version": SPEC_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TokenizerSpec:
        data = dict(data)
        version = data.pop("version", None)
        if version != SPEC_VERSION:
            raise UserError(f"a tokenizer spec of version {version} cannot be read; this release reads {SPEC_VERSION}")
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(f"a tokenizer spec has unknown fields: {', '.join(sorted(unknown))}")
        for name in ("scale", "shift"):
            data[name] = tuple(data.get(name, ()))
        return cls(**data)
