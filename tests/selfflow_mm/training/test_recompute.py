"""Recomputing blocks changes memory and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as real_checkpoint

from selfflow_mm.errors import UserError
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.tokens import NoiseLevels, TokenStream
from selfflow_mm.training import recompute
from selfflow_mm.training.recompute import recompute_blocks


class Stack(nn.Module):
    """Stands for the ImageNet transformer: its blocks lie in ``blocks``."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.fixture
def models() -> tuple[JointTransformer, nn.Module]:
    config = JointConfig(
        width=32,
        heads=2,
        double_blocks=2,
        single_blocks=2,
        mlp_ratio=4,
        rope_axes=(8, 4, 4, 0),
        modalities={"video": 3},
        text_channels=5,
    )
    model = JointTransformer(config)
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    return model, recompute_blocks(copy.deepcopy(model))


def loss_of(model: nn.Module, tokens: int = 24) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    values, positions = torch.randn(2, tokens, 3, generator=draw), torch.rand(tokens, 4, generator=draw)
    video = TokenStream.dense(values, positions)
    text = TokenStream.dense(torch.randn(2, 2, 5, generator=draw), torch.zeros(2, 4))
    mask = torch.rand(2, tokens, generator=draw) < 0.3
    levels = {
        "video": NoiseLevels.dual(torch.tensor([0.1, 0.5]), torch.tensor([0.9, 0.2]), mask, video.sample),
        "text": NoiseLevels.uniform(torch.zeros(2), text.sample),
    }
    out = model({"video": video}, levels, text, features_after=(2,))
    return out.velocity["video"].float().square().mean() + out.features[2]["video"].float().square().mean()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_loss_and_gradients_are_the_same_to_the_bit(models, precision):
    plain, recomputed = models
    losses = []
    for model in (plain, recomputed):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(model)
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses)
    ours, theirs = gradients(recomputed), gradients(plain)
    assert ours.keys() == theirs.keys() and len(ours) > 30
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def saved_bytes(model: nn.Module, loss) -> int:
    """What autograd keeps for the backward pass, weights aside, with every block's own inputs counted as kept."""
    weights = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    def counted(forward, block, *args, **kwargs):
        for x in args:
            if isinstance(x, Tensor):
                pack(x)
        return real_checkpoint(forward, block, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        patch.setattr(recompute, "checkpoint", counted)
        result = loss(model)
    assert result.requires_grad
    return sum(kept.values())


def test_a_fraction_of_the_memory_is_kept_for_the_backward_pass(models):
    plain, recomputed = models
    before, after = saved_bytes(plain, loss_of), saved_bytes(recomputed, loss_of)
    assert after < 0.4 * before


def test_the_other_family_and_weights_under_their_own_names(models):
    plain, recomputed = models
    assert list(plain.state_dict()) == list(recomputed.state_dict())
    assert [n for n, _ in plain.named_modules()] == [n for n, _ in recomputed.named_modules()]
    stack = Stack()
    again = recompute_blocks(copy.deepcopy(stack))
    x = torch.randn(4, 8)
    for model in (stack, again):
        model(x).square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(stack.parameters(), again.parameters(), strict=True))


def test_a_copy_recomputes_with_its_own_weights(models):
    _, recomputed = models
    other = copy.deepcopy(recomputed)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5)
    assert not torch.equal(loss_of(recomputed), loss_of(other))


def test_passes_without_gradient_are_left_alone(models, monkeypatch):
    _, recomputed = models
    monkeypatch.setattr(recompute, "checkpoint", lambda *a, **k: pytest.fail("a pass without gradient was recorded"))
    with torch.no_grad():
        assert torch.isfinite(loss_of(recomputed))


def test_recomputed_blocks_compile_as_one_graph():
    """Traced by the compiler's front end and differentiated, without the minutes of generating code."""
    stack = Stack()
    again = recompute_blocks(copy.deepcopy(stack))
    x = torch.randn(4, 8)
    expected = stack(x).square().sum()
    loss = torch.compile(again, backend="aot_eager", fullgraph=True)(x).square().sum()
    for value in (expected, loss):
        value.backward()
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(again.parameters(), stack.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.long
def test_the_joint_transformers_too(models):
    plain, recomputed = models
    expected = loss_of(plain)
    expected.backward()
    torch._dynamo.reset()
    loss = loss_of(torch.compile(recomputed, backend="aot_eager", fullgraph=True))
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, value in gradients(plain).items():
        torch.testing.assert_close(gradients(recomputed)[name], value, atol=1e-5, rtol=1e-4)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="no blocks to recompute"):
        recompute_blocks(nn.Sequential(nn.Linear(1, 1)))
