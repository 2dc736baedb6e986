"""How much memory training and sampling take on one device that holds everything, estimated from the model's shape.

What a backward pass keeps was measured once for each kind of block (saved tensors, summed) and written down as
multiples of D, the width, and H, the feed-forward's; it is exact for the eager kernels of PyTorch 2.13, and the tests
measure it again. Compiled kernels keep less. Not in it: tokenizers, encoders, allocator and libraries.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models.imagenet import ImageNetConfig
from ..models.joint import JointConfig

Shape = JointConfig | ImageNetConfig

FLOAT32 = 4


@dataclass(frozen=True)
class Kept:
    """What one block keeps of each token for the backward pass.

    Attributes:
        d, h: values in the matrix products' type, in widths D and H: their inputs, SwiGLU's halves, q, k, v, what
            joins the residual stream.
        d32: values in float32, in widths D: the residual stream, rotated queries and keys.
    """

    d: int
    h: int
    d32: int

    def bytes(self, width: int, hidden: int, bytes_per_value: int) -> int:
        return (self.d * width + self.h * hidden) * bytes_per_value + self.d32 * width * FLOAT32


DOUBLE, SINGLE, IMAGENET = Kept(11, 3, 5), Kept(8, 3, 7), Kept(8, 2, 2)
#: Beside the blocks: input and output layers, their norm, the projector, features and losses, in float32 widths D.
OUTSIDE = 9


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step with AdamW.

    Attributes:
        weights, gradients, optimizer, ema: float32; AdamW has two moments.
        casts: copies of the weights in the matrix products' type, which autocast keeps until the backward pass.
        activations: what the backward pass needs.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    casts: int
    activations: int

    @property
    def state(self) -> int:
        """All but activations."""
        return self.weights + self.gradients + self.optimizer + self.ema + self.casts

    @property
    def total(self) -> int:
        return self.state + self.activations


def training_memory(parameters: int, activations: int, bytes_per_value: int, averages: int = 1) -> TrainingMemory:
    """Args:
    parameters: of the model, projector included.
    activations: see :func:`activation_bytes`.
    bytes_per_value: of matrix products: 2 for bfloat16, 4 for float32.
    averages: the EMA, and any kept for post-hoc EMA beside it.
    """
    whole = parameters * FLOAT32
    casts = parameters * bytes_per_value if bytes_per_value < FLOAT32 else 0
    return TrainingMemory(whole, whole, 2 * whole, averages * whole, casts, activations)


def sharded(memory: TrainingMemory, devices: int, gathered: int) -> TrainingMemory:
    """The same step on each of ``devices`` that share weights, gradients, moments and EMA evenly (FSDP2); activations
    stay whole.

    Args:
        memory: of a device that holds everything.
        devices: at least one.
        gathered: see :func:`gathered_bytes`; it takes the place of the cast copies.
    """
    weights, gradients, optimizer, ema = (
        -(-part // devices) for part in (memory.weights, memory.gradients, memory.optimizer, memory.ema)
    )
    return TrainingMemory(weights, gradients, optimizer, ema, gathered, memory.activations)


def gathered_bytes(outside: int, block: int, bytes_per_value: int) -> int:
    """What a device holds whole at once where blocks are sharded one by one.

    Args:
        outside: parameters outside the blocks, which stay whole through a step.
        block: parameters of the largest block: one is computed with while the next arrives, and has a float32 gradient
            before that is shared out.
        bytes_per_value: of matrix products, in which weights are gathered.
    """
    return (outside + 2 * block) * bytes_per_value + block * FLOAT32


def activation_bytes(config: Shape, tokens: int, batch: int, bytes_per_value: int, *, recompute: bool = False) -> int:
    """What a training step keeps for its backward pass.

    Args:
        config: the model's shape.
        tokens: of one sample, text included.
        batch: samples.
        bytes_per_value: of matrix products.
        recompute: blocks keep only what goes into them (float32), and one at a time computes the rest again.
    """
    width, hidden = _widths(config)
    blocks = [kind.bytes(width, hidden, bytes_per_value) for kind in _kinds(config)]
    per_token = len(blocks) * width * FLOAT32 + max(blocks) if recompute else sum(blocks)
    return tokens * batch * (per_token + OUTSIDE * width * FLOAT32)


def sampling_bytes(parameters: int, config: Shape, tokens: int, batch: int, bytes_per_value: int) -> int:
    """Weights in float32 and the most that is alive at once in a forward pass (measured like the above, to a third).

    Args:
        parameters: of the model, projector included: it is not run, but it is loaded.
        tokens: of one sample, text included.
        batch: samples in one pass: twice as many with guidance.
    """
    width, hidden = _widths(config)
    if isinstance(config, ImageNetConfig):
        per_token = (width + 2 * hidden) * bytes_per_value + 3.5 * width * FLOAT32
    else:
        per_token = (5 * width + 3 * hidden) * bytes_per_value + 9 * width * FLOAT32
    return parameters * FLOAT32 + round(tokens * batch * per_token)


def _kinds(config: Shape) -> list[Kept]:
    if isinstance(config, ImageNetConfig):
        return [IMAGENET] * config.depth
    return [DOUBLE] * config.double_blocks + [SINGLE] * config.single_blocks


def _widths(config: Shape) -> tuple[int, int]:
    return (config.hidden_size if isinstance(config, ImageNetConfig) else config.width), config.hidden
