"""How much memory training and sampling take on a device, estimated from the model's shape.

What a pass keeps and holds was measured once for each kind of block (storages alive, summed) and written down as
multiples of D, the width, and H, the feed-forward's; it is that of the eager kernels of PyTorch 2.13, and the tests
measure it again. Compiled kernels keep less. Not in it: tokenizers, encoders, allocator and libraries.

A step's peak is that of its fullest moment, not the sum of its parts: gradients come while activations go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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


#: A bias of queries, keys and values alone is added to a copy of them: 3 D more.
DOUBLE, SINGLE, SINGLE_LONE_BIAS, IMAGENET = Kept(11, 3, 5), Kept(5, 3, 7), Kept(8, 3, 7), Kept(8, 2, 2)
#: Beside the blocks: input and output layers, their norm, the projector, features and losses, in float32 widths D.
OUTSIDE = 5
#: What the backward pass of a block holds at most beside what was kept, in widths H: SwiGLU's gradient and its parts,
#: and GELU's.
BACKWARD, BACKWARD_IMAGENET = 6, 2


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step with AdamW.

    Attributes:
        weights, gradients, optimizer, ema: float32; AdamW has two moments.
        casts: copies of the weights in the matrix products' type, which autocast keeps until the backward pass; where
            the state is shared, weights gathered from the others.
        activations: what the backward pass needs.
        again: of them, what is computed again for one block at a time.
        forward: what the teacher's pass has alive at most, while ``activations`` wait.
        backward: what a block's backward pass has alive at most beside them.
        depth: blocks; each has its gradients when its backward pass is done.
        accumulates: a step has several passes, and gradients of those before wait during each.
        averaged: the copy of all gradients that processes with a copy of the model each average.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    casts: int
    activations: int
    again: int = 0
    forward: int = 0
    backward: int = 0
    depth: int = 1
    accumulates: bool = False
    averaged: int = 0

    @property
    def state(self) -> int:
        """Weights, gradients, optimizer, EMA and casts."""
        return self.weights + self.gradients + self.optimizer + self.ema + self.casts

    @property
    def total(self) -> int:
        """At the fullest moment: the end of the forward pass, the beginning of the backward pass (no gradients yet),
        its end (all gradients but the first block's), or the update of the weights.
        """
        kept, waiting = self.activations - self.again, self.gradients if self.accumulates else 0
        forward = self.casts + kept + self.forward + waiting
        # Where blocks are computed again, autocast's copies end with the forward pass.
        begin = (0 if self.again else self.casts) + kept + self.again + self.backward + waiting
        end = self.gradients * (1 - 1 / self.depth) + self.again + self.backward
        update = self.gradients + self.averaged
        return self.weights + self.optimizer + self.ema + max(forward, begin, round(end), update)


@dataclass(frozen=True)
class Activations:
    """Bytes that passes keep and hold; see :class:`TrainingMemory`."""

    kept: int
    again: int
    forward: int
    backward: int
    depth: int = 1


def training_memory(
    parameters: int, activations: Activations, bytes_per_value: int, averages: int = 1, *, accumulates: bool = False
) -> TrainingMemory:
    """Of a device that holds everything.

    Args:
        parameters: of the model, projector included.
        activations: of one pass, see :func:`activations_of`.
        bytes_per_value: of matrix products: 2 for bfloat16, 4 for float32.
        averages: the EMA, and any kept for post-hoc EMA beside it.
        accumulates: several passes make a step.
    """
    whole, a = parameters * FLOAT32, activations
    casts = parameters * bytes_per_value if bytes_per_value < FLOAT32 else 0
    return TrainingMemory(
        whole,
        whole,
        2 * whole,
        averages * whole,
        casts,
        a.kept + a.again,
        a.again,
        a.forward,
        a.backward,
        a.depth,
        accumulates,
    )


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
    return replace(memory, weights=weights, gradients=gradients, optimizer=optimizer, ema=ema, casts=gathered)


def gathered_bytes(root: int, block: int, bytes_per_value: int) -> int:
    """What a device holds whole at once where blocks are sharded one by one.

    Args:
        root: parameters outside blocks and projector, which stay whole from the forward pass to the backward pass.
        block: parameters of the largest block: one is computed with while the next arrives, and has a float32 gradient
            before that is shared out.
        bytes_per_value: of matrix products, in which weights are gathered.
    """
    return (root + 2 * block) * bytes_per_value + block * FLOAT32


def activations_of(
    config: Shape,
    tokens: int,
    rows: int,
    bytes_per_value: int,
    *,
    recompute: bool = False,
    masked: bool = False,
    context: int = 1,
) -> Activations:
    """What a pass keeps for its backward pass, and holds beside that.

    Args:
        config: the model's shape.
        tokens: of one row, text included.
        rows: of the pass: samples, or rows in which samples are packed.
        bytes_per_value: of matrix products.
        recompute: blocks keep only what goes into them (float32), and one at a time computes the rest again.
        masked: attention is ``sdpa`` over rows that are padded or packed: every block keeps its mask in the products'
            type, tokens squared.
        context: devices that share each row's tokens; inputs, outputs and losses stay whole, and so does the mask.
    """
    width, hidden = _widths(config)
    mine = -(-tokens // context) * rows
    mask = rows * tokens**2 if masked else 0
    blocks = [mine * kind.bytes(width, hidden, bytes_per_value) + mask * bytes_per_value for kind in _kinds(config)]
    outside = rows * tokens * OUTSIDE * width * FLOAT32 + mask
    inputs = len(blocks) * mine * width * FLOAT32
    return Activations(
        (inputs if recompute else sum(blocks)) + outside,
        blocks[-1] if recompute else 0,  # the last, whose turn is while all inputs are still there
        round(mine * _forward_bytes(config, bytes_per_value)) + mask * bytes_per_value,
        mine * (BACKWARD_IMAGENET if isinstance(config, ImageNetConfig) else BACKWARD) * hidden * bytes_per_value,
        config.depth,
    )


def sampling_bytes(parameters: int, config: Shape, tokens: int, batch: int, bytes_per_value: int) -> int:
    """Weights in float32 and the most that is alive at once in a forward pass (measured like the above, to a third).

    Args:
        parameters: of the model, projector included: it is not run, but it is loaded.
        tokens: of one sample, text included.
        batch: samples in one pass: twice as many with guidance.
    """
    return parameters * FLOAT32 + round(tokens * batch * _forward_bytes(config, bytes_per_value))


def _forward_bytes(config: Shape, bytes_per_value: int) -> float:
    """The most that a forward pass without gradient has alive, of one token."""
    width, hidden = _widths(config)
    if isinstance(config, ImageNetConfig):
        return (width + 2 * hidden) * bytes_per_value + 3.5 * width * FLOAT32
    return (5 * width + 3 * hidden) * bytes_per_value + 9 * width * FLOAT32


def _kinds(config: Shape) -> list[Kept]:
    if isinstance(config, ImageNetConfig):
        return [IMAGENET] * config.depth
    single = SINGLE_LONE_BIAS if config.qkv_bias and not config.bias else SINGLE
    return [DOUBLE] * config.double_blocks + [single] * config.single_blocks


def _widths(config: Shape) -> tuple[int, int]:
    return (config.hidden_size if isinstance(config, ImageNetConfig) else config.width), config.hidden
