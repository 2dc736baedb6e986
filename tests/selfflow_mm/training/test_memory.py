"""The memory estimates against what real passes keep and hold, byte by byte."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selfflow_mm.conditions import Conditions
from selfflow_mm.flow.objectives import Batch
from selfflow_mm.models import ImageNetConfig, ImageNetModel, JointConfig, JointTransformer, SelfFlowPerTokenDiT
from selfflow_mm.tokens import NoiseLevels, TokenStream
from selfflow_mm.training.memory import Activations, TrainingMemory, activations_of, sampling_bytes, training_memory
from selfflow_mm.training.recompute import recompute_blocks

TEXT = 8


class _Live(TorchDispatchMode):
    """Bytes of all storages made inside, now and at most; not those of ``known`` tensors."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: Any = weakref.WeakKeyDictionary()
        for tensor in known:
            self._known[tensor.untyped_storage()] = True

    def _drop(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage] = True
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, storage.nbytes())
        return out


def _joint(double: int, single: int, mlp_ratio: float = 4.0) -> JointConfig:
    return JointConfig(
        width=96,
        heads=4,
        double_blocks=double,
        single_blocks=single,
        mlp_ratio=mlp_ratio,
        rope_axes=(6, 6, 6, 6),
        modalities={"image": 8},
        text_channels=8,
        bias=False,
    )


def _stream(tokens: int, channels: int, batch: int) -> TokenStream:
    sample = torch.zeros(batch, tokens, dtype=torch.int64)
    return TokenStream(torch.randn(batch, tokens, channels), torch.zeros(batch, tokens, 4), sample, full=True)


def _built(config: Any, tokens: int, batch: int) -> tuple[Any, Batch]:
    if isinstance(config, ImageNetConfig):
        model: Any = ImageNetModel(SelfFlowPerTokenDiT.from_config(config))
        text: Any = torch.zeros(batch, dtype=torch.int64)
        stream = _stream(tokens, config.token_channels, batch)
    else:
        model, text = JointTransformer(config), _stream(TEXT, config.text_channels, batch)
        stream = _stream(tokens, config.modalities["image"], batch)
    return model, Batch({"image": stream}, Conditions(("image",)), text, torch.arange(batch))


SHAPES = [
    (_joint(2, 2), 96),
    (_joint(3, 1, 3.0), 64),
    (_joint(0, 3, 2.0), 100),
    (ImageNetConfig(input_size=16, hidden_size=96, depth=3, num_heads=4, num_classes=5), 64),
]


def _levels(data: Batch, dual: bool) -> dict[str, NoiseLevels]:
    sample = data.streams["image"].sample
    t, s = torch.rand(2, len(sample))
    levels = {"image": NoiseLevels.uniform(t, sample)}
    if dual:
        levels = {"image": NoiseLevels.dual(t, s, torch.rand(sample.shape) < 0.25, sample)}
    if isinstance(data.text, TokenStream):
        levels["text"] = NoiseLevels.uniform(torch.zeros(len(sample)), data.text.sample)
    return levels


def _length(config: Any, tokens: int) -> int:
    return tokens if isinstance(config, ImageNetConfig) else tokens + TEXT


def _loss(model: Any, teacher: Any, data: Batch, low: bool) -> torch.Tensor:
    """A Self-Flow step's: dual timesteps, the velocity's error, the cosine between P(h) and the teacher's features."""
    k = model.config.depth
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        out = model(data.streams, _levels(data, dual=True), data.text, features_after=(1,))
        with torch.no_grad():
            z = teacher(data.streams, _levels(data, dual=False), data.text, features_after=(k,), features_only=True)
        cosine = F.cosine_similarity(model.projector(out.features[1]["image"]), z.features[k]["image"], dim=-1)
        return (out.velocity["image"] - data.streams["image"].values).square().mean() - cosine.mean()


def _step(config: Any, tokens: int, precision: torch.dtype, recompute: bool) -> tuple[int, int, TrainingMemory]:
    """What the loss keeps, the most that a step holds beside weights, optimizer and EMA, and the claim."""
    model, data = _built(config, tokens, batch=3)
    teacher = copy.deepcopy(model).requires_grad_(False)
    if recompute:
        recompute_blocks(model.net if isinstance(config, ImageNetConfig) else model)
    parameters = sum(p.numel() for p in model.parameters())
    activations = activations_of(config, _length(config, tokens), 3, precision.itemsize, recompute=recompute)
    claim = training_memory(parameters, activations, precision.itemsize)
    with _Live([*model.parameters(), *teacher.parameters()]) as live:
        loss = _loss(model, teacher, data, precision == torch.bfloat16)
        kept = live.now
        loss.backward()
    return kept, live.peak, claim


def _beside_state(claim: TrainingMemory) -> int:
    return claim.total - claim.weights - claim.optimizer - claim.ema


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("config", "tokens"), SHAPES)
def test_what_training_keeps(config: Any, tokens: int, precision: torch.dtype) -> None:
    kept, peak, claim = _step(config, tokens, precision, recompute=False)
    assert claim.activations + claim.casts == pytest.approx(kept, rel=0.1)
    assert _beside_state(claim) == pytest.approx(peak, rel=0.12)  # of three blocks; temporaries are much of it


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("config", "tokens"), SHAPES[::3])
def test_what_recomputation_holds(config: Any, tokens: int, precision: torch.dtype) -> None:
    _, peak, claim = _step(config, tokens, precision, recompute=True)
    assert _beside_state(claim) == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("config", "tokens"), SHAPES)
def test_what_a_forward_pass_holds(config: Any, tokens: int, precision: torch.dtype) -> None:
    model, data = _built(config, tokens, batch=8)
    model.requires_grad_(False)
    low = precision == torch.bfloat16
    with torch.no_grad(), _Live(model.parameters()) as live, torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        model(data.streams, _levels(data, dual=False), data.text)
    claim = sampling_bytes(0, config, _length(config, tokens), 8, precision.itemsize)
    assert 0.9 * live.peak < claim < 1.35 * live.peak  # double blocks hold more than single ones, which may be alone


def test_state_is_twenty_bytes_a_parameter_and_two_for_bfloat16() -> None:
    """Weights, gradients, two moments and the EMA at 4 bytes each."""
    assert training_memory(1000, Activations(7, 0, 0, 0), 4).state == 20_000
    low = training_memory(1000, Activations(7, 0, 0, 0), 2, averages=3)
    assert (low.casts, low.ema, low.state) == (2000, 12_000, 30_000)


def test_the_fullest_moment_is_when_it_is() -> None:
    """Weights 4, optimizer 8 and EMA 4 thousand are always there; casts of 2 while there are activations."""
    always = 16_000
    assert (
        training_memory(1000, Activations(9000, 0, 500, 300), 2).total == always + 2000 + 9000 + 500
    )  # teacher's pass
    assert (
        training_memory(1000, Activations(9000, 0, 200, 300), 2).total == always + 2000 + 9000 + 300
    )  # backward begins
    assert training_memory(1000, Activations(900, 0, 0, 3000, 4), 4).total == always + 3000 + 3000  # the first block's
    assert training_memory(1000, Activations(900, 0, 0, 300, 4), 4).total == always + 4000  # the weights are changed
    # Blocks computed again: no casts by then, one block's activations.
    assert training_memory(1000, Activations(9000, 4000, 500, 300), 2).total == always + 9000 + 4000 + 300
    passes = training_memory(1000, Activations(9000, 0, 500, 0), 4, accumulates=True)
    assert passes.total == always + 4000 + 9000 + 500  # gradients of the pass before
    averaged = replace(training_memory(1000, Activations(900, 0, 0, 0), 4), averaged=4000)
    assert averaged.total == always + 8000


def test_passes_context_and_masks() -> None:
    config, tokens = _joint(2, 3), 120
    plain = activations_of(config, tokens, 4, 2)
    half = activations_of(config, tokens, 2, 2)
    assert (half.kept, half.backward) == (plain.kept / 2, plain.backward / 2)
    shared = activations_of(config, tokens, 4, 2, context=2)
    assert shared.backward == plain.backward / 2
    outside = 4 * tokens * 5 * 96 * 4  # whole in every process
    assert shared.kept - outside == (plain.kept - outside) / 2
    masked = activations_of(config, tokens, 4, 2, masked=True)
    # A boolean one for all, and one of two bytes that each of the five blocks keeps.
    assert masked.kept - plain.kept == 4 * tokens**2 * (1 + 5 * 2)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts a process's peak anew, as Linux can")
def test_a_real_step_takes_what_its_plan_says() -> None:
    """Resident memory of a process of its own, of a model whose activations outweigh its state."""
    script = Path(__file__).parents[3] / "benchmarks" / "training_memory.py"
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "--cases", "small", "--child", "small"]
    found = json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert found["activations"] > found["state"]
    assert found["estimate"] == pytest.approx(found["measured"], rel=0.1)
