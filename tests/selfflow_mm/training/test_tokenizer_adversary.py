"""The adversarial term: losses by hand, the balance against autograd by hand, its place in the run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from selfflow_mm.errors import UserError
from selfflow_mm.training.tokenizer_adversary import (
    AdversarialConfig,
    Adversary,
    PatchConfig,
    SpectrumConfig,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
    match_features,
)


def features(*logits: list[float]) -> list[list[Tensor]]:
    return [[torch.ones(2), torch.tensor(x)] for x in logits]


def test_hinge_losses_by_hand() -> None:
    real, fake = features([2.0, 0.5], [-1.0, 1.0]), features([-3.0, 0.0], [0.5, -0.5])
    # Scale 1: (0 + .5) / 2 + (0 + 1) / 2; scale 2: (2 + 0) / 2 + (1.5 + .5) / 2.
    assert float(hinge_discriminator(real, fake)) == pytest.approx(((0.25 + 0.5) + (1.0 + 1.0)) / 2)
    assert float(hinge_generator(fake)) == pytest.approx((1.5 + 0.0) / 2)


def test_features_are_matched_relative_to_their_size() -> None:
    real = [[torch.tensor([1.0, -3.0]), torch.tensor([10.0]), torch.tensor([5.0])]]
    fake = [[torch.tensor([2.0, -3.0]), torch.tensor([5.0]), torch.tensor([-5.0])]]
    # Means of 1/2 relative to 2, and of 5 relative to 10; logits are not features.
    assert float(match_features(real, fake)) == pytest.approx((0.25 + 0.5) / 2)


class Double(nn.Module):
    """A decoder of two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).tanh())


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner, self.head = nn.Linear(2, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        seen = self.inner(x).relu()
        return [[seen, self.head(seen)]]


@pytest.mark.parametrize("adaptive", [True, False])
def test_gradients_are_those_of_the_weighted_sum(adaptive: bool) -> None:
    x, target = torch.randn(6, 3), torch.randn(6, 2)
    config = AdversarialConfig(weight=0.7, adaptive=adaptive, feature_matching=0.5, start=0.0, ramp=0.0)
    model = Double()
    adversary = Adversary(config, Judge(), steps=10)
    output = model(x)
    terms = {"l1": (output - target).abs().mean(), "l2": 2 * (output - target).square().mean()}
    apart = 0.1 * model.first.weight.square().sum()
    weighted, facts = adversary.backward(terms, apart, adversary.judge(output, target), 0.7, output, model.last.weight)
    assert all(p.grad is None for p in adversary.network.parameters())

    # By hand: both losses on their own, down to the last layer's weight (Esser et al. 2021, eq. 7).
    other, judge = Double(), Judge()
    made = other(x)
    rest = (made - target).abs().mean() + 2 * (made - target).square().mean()
    seen, (kept, _) = judge(made)[0], judge(target)[0]
    against = -seen[1].mean() + 0.5 * (seen[0] - kept.detach()).abs().mean() / kept.detach().abs().mean()
    sizes = [torch.autograd.grad(loss, other.last.weight, retain_graph=True)[0].norm() for loss in (rest, against)]
    factor = 0.7 * (float(sizes[0] / (sizes[1] + 1e-4)) if adaptive else 1.0)
    total = rest + factor * against + 0.1 * other.first.weight.square().sum()
    total.backward()
    assert facts["adversarial_factor"] == pytest.approx(factor, rel=1e-4)
    assert float(weighted) == pytest.approx(factor * float(against.detach()), rel=1e-4)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_the_balance_has_a_bound() -> None:
    model = Double()
    output = model(torch.randn(2, 3))
    zero, one = torch.zeros_like(output), torch.ones_like(output)
    assert float(adaptive_weight(output, model.last.weight, one, zero)) == pytest.approx(1e4)
    assert float(adaptive_weight(output, model.last.weight, zero, one)) == 0


def test_the_discriminator_learns_to_tell_apart() -> None:
    adversary = Adversary(AdversarialConfig(weight=1.0, lr=0.02), Judge(), steps=10)
    real, fake = torch.randn(64, 2) + 2, torch.randn(64, 2) - 2
    first = adversary.learn(fake, real, clip=10.0)
    before = [p.clone() for p in adversary.network.parameters()]
    adversary.step(0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, adversary.network.parameters(), strict=True))
    for _ in range(60):
        facts = adversary.learn(fake, real, clip=10.0)
        adversary.step(1.0)
    assert facts["discriminator"] < 0.2 < first["discriminator"]
    assert facts["real"] > 0.8 and facts["fake"] < -0.8


def test_the_start_is_late_and_gentle() -> None:
    adversary = Adversary(AdversarialConfig(weight=0.5, start=0.6, ramp=0.2), Judge(), steps=10)
    weights = [adversary.weight_at(step) for step in range(10)]
    assert weights == pytest.approx([0, 0, 0, 0, 0, 0, 0.25, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "negative"),
        ({"start": 1.0}, "start"),
        ({"lr": 0.0}, "lr"),
        ({"freeze_encoder": True}, "give it a weight"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    for cls in (AdversarialConfig, PatchConfig, SpectrumConfig):
        with pytest.raises(UserError, match=message):
            cls(**settings)
    with pytest.raises(UserError, match="windows"):
        SpectrumConfig(windows=(30,))
    with pytest.raises(UserError, match="layers"):
        PatchConfig(layers=0)
