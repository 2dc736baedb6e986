"""How much arithmetic the transformers take, in closed form.

Only matrix products count (a multiply-add is 2 FLOPs), as in ``torch.utils.flop_counter``, which the tests hold the
formulas against. All numbers are for one sample without padding; attention is counted dense. The conventions of
``total``, which MFU divides by: a backward pass is twice its forward pass (for the first layers, whose inputs take no
gradient, that is a little too much), attention's scores are not computed again in it, and the one-hot products that
look a modulation up are no work of the model but overhead (``look-up``, ``look-up of shifts``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError
from .imagenet import ImageNetConfig
from .joint import JointConfig
from .layers import MANY_LEVELS

#: Sinusoids that a noise level is embedded by, in both families.
LEVEL_CHANNELS = 256
#: The parts that are no work of the model. Scales and gates are looked up again in the backward pass (``lean.py``).
AGAIN, ONCE = "look-up", "look-up of shifts"
OVERHEAD = (AGAIN, ONCE)
#: The parts whose weights are frozen where LoRA is trained, and how often their forward pass's work is done: that of a
#: block's layers twice (no gradient of the weight), that of what depends on levels alone once.
_WITH_LORA = {"blocks": 2, "levels": 1, "modulation": 1}
#: The parts that activation recomputation runs twice.
IN_BLOCKS = ("blocks", "attention", *OVERHEAD)


@dataclass(frozen=True)
class Flops:
    """FLOPs by part.

    Attributes:
        parts: ``input``, ``levels`` (their embedding), ``modulation``, ``blocks`` (linear layers), ``attention`` (its
            two products), ``output``, ``projector``, ``look-up``, ``look-up of shifts``; absent parts are zero.
    """

    parts: dict[str, int]

    @property
    def total(self) -> int:
        """The model's FLOPs, without overhead."""
        return sum(count for part, count in self.parts.items() if part not in OVERHEAD)

    @property
    def executed(self) -> int:
        """With overhead: what a counter sees."""
        return sum(self.parts.values())

    def __add__(self, other: Flops) -> Flops:
        names = dict.fromkeys([*self.parts, *other.parts])
        return Flops({name: self.parts.get(name, 0) + other.parts.get(name, 0) for name in names})

    def __mul__(self, factor: int) -> Flops:
        return Flops({name: factor * count for name, count in self.parts.items()})


def joint_forward_flops(
    config: JointConfig,
    tokens: Mapping[str, int],
    text_tokens: int,
    levels: int = 1,
    *,
    text_levels: int = 1,
    per_token: bool = False,
    blocks: int | None = None,
    projector: bool = False,
) -> Flops:
    """A forward pass of the joint transformer over one sample.

    Args:
        config: its channels filled in.
        tokens: modality -> its tokens.
        text_tokens: at least one.
        levels: distinct noise levels of each modality (sampling 1, dual timesteps 2).
        text_levels: of the text.
        per_token: a modulation for every token instead (:meth:`NoiseLevels.each_token` on every stream).
        blocks: stop after this block, counted from 1, as the teacher does; None runs all and the output layers.
        projector: also the head P on every media token.

    Raises:
        UserError: ``blocks`` outside the depth, or a modality the config does not have.
    """
    _check_blocks(blocks, config.depth)
    unknown = [m for m in tokens if m not in config.modalities]
    if unknown:
        raise UserError(f"the model has no modality '{unknown[0]}'; it has {', '.join(config.modalities) or 'none'}")
    d, hidden = config.width, config.hidden
    media = sum(tokens.values())
    both = text_tokens + media
    double = config.double_blocks if blocks is None else min(blocks, config.double_blocks)
    single = config.single_blocks if blocks is None else max(0, blocks - config.double_blocks)
    g_text, g_media = (text_tokens, media) if per_token else (text_levels, levels * len(tokens))
    g = g_text + g_media

    half = 3 * d * d + d * d + 2 * hidden * d + hidden * d  # qkv, proj, SwiGLU's two in and one out
    parallel = d * (3 * d + 2 * hidden) + (d + hidden) * d
    lines = sum(count * config.modalities[m] for m, count in tokens.items()) * d
    places = both * (d // config.heads) * d if config.absolute_positions else 0
    parts = {
        "input": 2 * (lines + text_tokens * config.text_channels * d + places),
        "levels": 2 * g * (LEVEL_CHANNELS * d + d * d),
        "modulation": 2 * d * d * (6 * g + (3 * g if single else 0) + (2 * g_media if blocks is None else 0)),
        "blocks": 2 * both * (double * half + single * parallel),
        "attention": (double + single) * 4 * both * both * d,
    }
    # Shift, scale and gate for each of a double block's two branches, and once for a single block.
    thirds = double * 2 * (_look_up(text_tokens, g_text) + _look_up(media, g_media)) + single * _look_up(both, g)
    last = _look_up(media, g_media) if blocks is None else 0  # shift and scale
    if blocks is None:
        parts["output"] = 2 * lines
    if projector:
        inner = round(d * config.projector_ratio)
        parts["projector"] = 2 * media * inner * (d + (config.projector_channels or d))
    if not per_token and thirds + last:
        parts |= _looked_up(thirds * d, last * d)
    return Flops(parts)


def imagenet_forward_flops(
    config: ImageNetConfig,
    tokens: int | None = None,
    levels: int = 1,
    *,
    per_token: bool = False,
    blocks: int | None = None,
    projector: bool = False,
) -> Flops:
    """A forward pass of the ImageNet transformer over one sample.

    Args:
        config: its shape.
        tokens: the config's unless given.
        levels: distinct noise levels of the sample.
        per_token, blocks, projector: as in :func:`joint_forward_flops`.

    Raises:
        UserError: ``blocks`` outside the depth.
    """
    _check_blocks(blocks, config.depth)
    d, hidden = config.hidden_size, config.hidden
    n = config.tokens if tokens is None else tokens
    g = n if per_token else levels
    depth = config.depth if blocks is None else blocks
    parts = {
        "input": 2 * n * config.token_channels * d,
        "levels": 2 * g * (LEVEL_CHANNELS * d + d * d),
        "modulation": 2 * g * d * d * (6 * depth + (2 if blocks is None else 0)),
        "blocks": depth * 2 * n * (4 * d * d + 2 * hidden * d),
        "attention": depth * 4 * n * n * d,
    }
    if blocks is None:
        parts["output"] = 2 * n * d * config.token_channels * (2 if config.learn_sigma else 1)
    if projector:
        parts["projector"] = 2 * n * (d * 2 * d + 2 * d * d)
    if not per_token and _look_up(n, g):
        one = _look_up(n, g) * d
        parts |= _looked_up(2 * depth * one, one if blocks is None else 0)
    return Flops(parts)


def training_step_flops(
    student: Flops, teacher: Flops | None = None, *, recompute: bool = False, lora: bool = False
) -> Flops:
    """One training step over one sample: three times the student's forward pass (looking shifts up twice: what it looks
    up by takes no gradient) and once the teacher's.

    Args:
        student: its forward pass, with ``projector=True`` where the objective has L_rep.
        teacher: its forward pass, with ``blocks=k``; None for objectives without one.
        recompute: blocks run forward twice (activation checkpointing). The second time is no work of the model, so
            leave it out where MFU is wanted and put it in for what the device does.
        lora: the blocks' weights take no gradient. The low-rank matrices' own work is left out.
    """
    often = {ONCE: 2, **(_WITH_LORA if lora else {})}
    step = Flops({name: count * often.get(name, 3) for name, count in student.parts.items()})
    if recompute:
        step = step + Flops({name: count for name, count in student.parts.items() if name in IN_BLOCKS})
    return step if teacher is None else step + teacher


def _looked_up(thirds: int, last: int) -> dict[str, int]:
    """The overhead's parts: ``thirds`` each for shifts, scales and gates in blocks, ``last`` for the output's two."""
    return {AGAIN: 2 * thirds + last, ONCE: thirds + last}


def _look_up(tokens: int, levels: int) -> int:
    """FLOPs per channel of looking one vector up for each token with a one-hot product, where that is how it is done
    (see ``layers.choice_of``; compiled, a few levels are selected without a product)."""
    return 2 * tokens * levels if 1 < levels <= MANY_LEVELS else 0


def _check_blocks(blocks: int | None, depth: int) -> None:
    if blocks is not None and not 1 <= blocks <= depth:
        raise UserError(f"blocks is {blocks}; the blocks are counted from 1 to {depth}")
