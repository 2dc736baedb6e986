"""Token streams: what every tokenizer produces and the transformer reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import UserError

#: The four position axes, in the order of the last dimension of ``TokenStream.positions``.
AXES = ("seconds", "row", "column", "index")


@dataclass(frozen=True)
class Extent:
    """The size that a medium had before it was filled up to whole tokens: what decoding crops back to.

    Attributes:
        frames, height, width: of a picture or clip, in frames and pixels; 0 for sound.
        fps: frames per second of a clip; 0 for a still.
        samples: of a sound, per channel at the rate the tokenizer reads; 0 for pictures.
    """

    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    samples: int = 0


@dataclass(frozen=True)
class TokenStream:
    """A batch of token sequences of one modality.

    Attributes:
        values: ``(B, N, C)`` latents, normalised by the tokenizer's scale and shift.
        positions: ``(B, N, 4)`` float32: time in seconds, row, column, index. Seconds are those of
            the medium, whatever its latent rate; row and column count latent cells; index orders
            tokens that have no place in space or time (text).
        sample: ``(B, N)`` int64: which of the row's packed samples a token belongs to, counted from
            0; -1 marks padding, which no real token attends to and no loss sees.
        full: True when every row is known to be one sample without padding, so that attention needs
            no mask. A plain bool rather than a look at ``sample``, which would stall an accelerator.
        extents: what each sample was before encoding, in the order of rows and of packed samples within them; empty
            where that is not known, as for generated tokens.
    """

    values: Tensor
    positions: Tensor
    sample: Tensor
    full: bool = False
    extents: tuple[Extent, ...] = ()

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise UserError(f"token values have shape (B, N, C), got {tuple(self.values.shape)}")
        rows = self.values.shape[:2]
        if self.positions.shape != (*rows, len(AXES)):
            raise UserError(f"token positions have shape {(*rows, 4)}, got {tuple(self.positions.shape)}")
        if self.sample.shape != rows:
            raise UserError(f"sample ids have shape {tuple(rows)}, got {tuple(self.sample.shape)}")

    @classmethod
    def dense(cls, values: Tensor, positions: Tensor, extents: tuple[Extent, ...] = ()) -> TokenStream:
        """One sample per row and no padding; ``positions`` is ``(N, 4)`` or ``(B, N, 4)``."""
        batch, tokens, _ = values.shape
        positions = positions.to(device=values.device, dtype=torch.float32)
        sample = torch.zeros(batch, tokens, dtype=torch.int64, device=values.device)
        return cls(values, positions.expand(batch, tokens, len(AXES)), sample, full=True, extents=extents)

    @classmethod
    def pad(cls, streams: Sequence[TokenStream]) -> TokenStream:
        """Stack streams of different lengths into one batch; short rows end in padding."""
        if not streams:
            raise UserError("there is no token stream to batch")
        length = max(s.values.shape[1] for s in streams)

        grown = [s.padded_to(length) for s in streams]
        return cls(
            torch.cat([s.values for s in grown]),
            torch.cat([s.positions for s in grown]),
            torch.cat([s.sample for s in grown]),
            full=all(s.full for s in grown),
            # Extents go by order, so a stream without any would shift those of the others.
            extents=tuple(e for s in streams for e in s.extents) if all(s.extents for s in streams) else (),
        )

    @property
    def valid(self) -> Tensor:
        """``(B, N)`` bool: True where a token is real, False where it is padding."""
        return self.sample >= 0

    def with_values(self, values: Tensor) -> TokenStream:
        """The same tokens at the same places with other values."""
        return replace(self, values=values)

    def rows(self, start: int, stop: int) -> TokenStream:
        """Some rows of the batch, without their extents (packed rows may have any number of them)."""
        cut = {name: getattr(self, name)[start:stop] for name in ("values", "positions", "sample")}
        return replace(self, **cut, extents=())

    def until(self, length: int) -> TokenStream:
        """The first tokens of each row."""
        cut = {name: getattr(self, name)[:, :length] for name in ("values", "positions", "sample")}
        return replace(self, **cut)

    def padded_to(self, length: int) -> TokenStream:
        """The same rows, ended by padding where they have fewer than ``length`` tokens."""
        extra = length - self.values.shape[1]
        if extra <= 0:
            return self

        def grow(x: Tensor, fill: float) -> Tensor:
            return torch.cat([x, x.new_full((x.shape[0], extra, *x.shape[2:]), fill)], dim=1)

        values, positions, sample = grow(self.values, 0.0), grow(self.positions, 0.0), grow(self.sample, -1)
        return replace(self, values=values, positions=positions, sample=sample, full=False)

    def padded_to_multiple(self, of: int) -> TokenStream:
        """The same rows, padded to the next multiple of so many tokens."""
        return self.padded_to(-(-self.values.shape[1] // of) * of)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TokenStream:
        """Move to a device; ``dtype`` converts the values only (positions stay float32)."""
        return replace(
            self,
            values=self.values.to(device=device, dtype=dtype),
            positions=self.positions.to(device),
            sample=self.sample.to(device),
        )
