"""The ImageNet transformer against what the reference computed, and grouped levels against a modulation per token."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from selfflow_mm.conditions import Conditions
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Batch, Objective, ObjectiveConfig
from selfflow_mm.models import IMAGENET_XL_2, ImageNetConfig, ImageNetModel, SelfFlowPerTokenDiT
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import NoiseLevels, TokenStream

TINY = ImageNetConfig(
    input_size=8, hidden_size=32, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=11, learn_sigma=True
)


def network(config: ImageNetConfig = TINY) -> SelfFlowPerTokenDiT:
    """Random weights everywhere: at initialisation the gates and the output are zero and would hide everything."""
    torch.manual_seed(0)
    net = SelfFlowPerTokenDiT.from_config(config)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def inputs(batch: int, config: ImageNetConfig = TINY) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, config.tokens, config.token_channels), torch.randint(0, config.num_classes, (batch,))


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> tuple[SelfFlowPerTokenDiT, dict[str, Tensor]]:
    with safe_open(shared_data / "reference" / "imagenet_small.safetensors", "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    flags = {"learn_sigma": True, "compatibility_mode": True}
    net = SelfFlowPerTokenDiT(
        **flags, mlp_ratio=float(about.pop("mlp_ratio")), **{k: int(v) for k, v in about.items() if k not in flags}
    )
    net.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    return net.eval(), tensors


@torch.no_grad()
def test_it_computes_what_the_reference_computed(reference):
    net, data = reference
    x, labels = data["input.x"], data["input.y"]
    scalar, per_token = data["input.t_scalar"], data["input.t_per_token"]
    ids = torch.zeros(3, 16, 4)

    def near(got: Tensor, name: str) -> None:
        torch.testing.assert_close(got, data[f"output.{name}"], atol=1e-5, rtol=0)

    near(net(x, scalar, labels), "velocity_scalar")
    near(net(x, timesteps=per_token, vector=labels, x_ids=ids), "velocity_per_token")
    near(net(x, NoiseLevels.each_token(per_token), labels), "velocity_per_token")
    velocity, features = net(x, timesteps=per_token, vector=labels, return_features=2)
    near(velocity, "velocity_per_token")
    near(features, "features_projected_layer2")
    velocity, features = net(x, timesteps=scalar, vector=labels, return_raw_features=3)
    near(velocity, "velocity_scalar")
    near(features, "features_raw_layer3")


def test_fresh_positions_are_the_released_ones(reference):
    net, data = reference
    fresh = SelfFlowPerTokenDiT.from_config(net.config)
    assert torch.equal(fresh.pos_embed, data["weights.pos_embed"])
    assert not fresh.pos_embed.requires_grad


def test_names_and_shapes_are_those_of_the_released_file():
    with torch.device("meta"):
        net = SelfFlowPerTokenDiT.from_config(IMAGENET_XL_2)
    state = net.state_dict()
    block = "attn.qkv attn.proj mlp.fc1 mlp.fc2 adaLN_modulation.1".split()
    linear = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear"]
    linear += ["final_layer.adaLN_modulation.1", "projector.linear1", "projector.linear2"]
    linear += [f"blocks.{i}.{name}" for i in range(28) for name in block]
    expected = {f"{name}.{part}" for name in linear for part in ("weight", "bias")}
    assert state.keys() == expected | {"pos_embed", "y_embedder.embedding_table.weight"}
    assert state["y_embedder.embedding_table.weight"].shape == (1001, 1152)
    assert state["pos_embed"].shape == (1, 256, 1152)
    assert state["final_layer.linear.weight"].shape == (32, 1152)
    # The paper's 675 M, without the head P, which sampling does not use.
    count = sum(v.numel() for k, v in state.items() if not k.startswith("projector"))
    assert abs(count / 675e6 - 1) < 0.01


def test_the_constructor_takes_what_the_references_takes():
    parameters = inspect.signature(SelfFlowPerTokenDiT).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "input_size": 32,
        "patch_size": 2,
        "in_channels": 4,
        "hidden_size": 1152,
        "depth": 28,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "num_classes": 1000,
        "learn_sigma": False,
        "compatibility_mode": False,
    }


@settings(max_examples=20)
@given(
    batch=st.integers(1, 3),
    side=st.integers(1, 3),
    patch=st.integers(1, 2),
    count=st.integers(1, 9),
    sigma=st.booleans(),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_grouped_and_expanded_levels_agree(batch, side, patch, count, sigma, seed):
    config = ImageNetConfig(side * patch, patch, 3, 16, 2, 2, 2.0, 5, sigma)
    net = network(config)
    torch.manual_seed(seed)
    x, labels = inputs(batch, config)
    levels = NoiseLevels(torch.rand(batch, count), torch.randint(0, count, (batch, config.tokens)))
    expanded = levels.per_token()
    got, features = net(x, levels, labels, return_raw_features=1)
    for other in (NoiseLevels.each_token(expanded), NoiseLevels.grouped(expanded), expanded):
        velocity, same = net(x, other, labels, return_raw_features=1)
        torch.testing.assert_close(got, velocity, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(features, same, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_many_levels_and_dual_levels_agree_with_a_modulation_per_token():
    config = ImageNetConfig(32, 2, 1, 16, 2, 2, 2.0, 5)
    net, (x, labels) = network(config), inputs(2, config)
    many = NoiseLevels(torch.rand(2, 100), torch.randint(0, 100, (2, 256)))  # looked up by index
    dual = NoiseLevels.dual(torch.rand(2), torch.rand(2), torch.rand(2, 256) < 0.25, torch.zeros(2, 256).long())
    for levels in (many, dual, dual.given(torch.rand(2, 256) < 0.5)):
        expanded = NoiseLevels.each_token(levels.per_token())
        torch.testing.assert_close(net(x, levels, labels), net(x, expanded, labels), atol=1e-6, rtol=1e-5)


def test_gradients_agree_with_those_of_a_modulation_per_token():
    net, (x, labels) = network(), inputs(2)
    dual = NoiseLevels.dual(torch.rand(2), torch.rand(2), torch.rand(2, 16) < 0.3, torch.zeros(2, 16).long())
    trained = [p for p in net.parameters() if p.requires_grad]
    gradients = []
    for levels in (dual, NoiseLevels.each_token(dual.per_token())):
        velocity, features = net(x, levels, labels, return_features=1)
        gradients.append(torch.autograd.grad(velocity.square().mean() + features.square().mean(), trained))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_few_levels_need_no_modulation_per_token(monkeypatch):
    """No tensor of tokens x 6 x width: the largest adaLN product has a row per level."""
    net, (x, labels) = network(), inputs(2)
    rows = []
    real = SelfFlowPerTokenDiT.velocity.__globals__["modulation_table"]
    monkeypatch.setitem(
        SelfFlowPerTokenDiT.velocity.__globals__, "modulation_table", lambda m, c: rows.append(c.shape[1]) or real(m, c)
    )
    few = torch.rand(2, 2).gather(1, torch.randint(0, 2, (2, 16)))
    net(x, few, labels)
    net(x, torch.rand(2), labels)
    net(x, torch.rand(2, 16), labels)
    assert rows == [2] * 3 + [1] * 3 + [16] * 3


@pytest.mark.parametrize("kind", ["uniform", "dual", "each", "tensor"])
def test_it_compiles_as_one_graph(kind):
    torch._dynamo.reset()
    config = replace(TINY, depth=1)  # compiling is slow, and all blocks are alike
    net, (x, labels) = network(config), inputs(2)
    zero = torch.zeros(2, 16).long()
    timesteps: NoiseLevels | Tensor = {
        "uniform": NoiseLevels.uniform(torch.rand(2), zero),
        "dual": NoiseLevels.dual(torch.rand(2), torch.rand(2), torch.rand(2, 16) < 0.5, zero),
        "each": NoiseLevels.each_token(torch.rand(2, 16)),
        "tensor": torch.rand(2, 16),
    }[kind]
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, timesteps, labels), net(x, timesteps, labels), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_under_autocast_matrices_are_bfloat16_and_norms_times_and_residuals_float32():
    net, (x, labels) = network(), inputs(2)
    seen = {}
    net.t_embedder.register_forward_hook(lambda _, __, out: seen.update(time=out.dtype))
    net.blocks[0].attn.qkv.register_forward_hook(lambda _, __, out: seen.update(qkv=out.dtype))
    net.blocks[0].register_forward_hook(lambda _, __, out: seen.update(residual=out.dtype))
    full = net(x, torch.rand(2), labels)
    assert set(seen.values()) == {torch.float32}
    torch.manual_seed(0)
    t = torch.rand(2)
    full = net(x, t, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half, features = net(x, t, labels, return_raw_features=1)
    assert seen == {"time": torch.float32, "qkv": torch.bfloat16, "residual": torch.float32}
    assert half.dtype == features.dtype == torch.float32
    assert (half - full).abs().max() < 0.03 * full.abs().max()


@torch.no_grad()
def test_the_joint_models_call():
    net, (x, labels) = network(), inputs(2)
    model, stream = ImageNetModel(net), TokenStream.dense(x, torch.zeros(16, 4))
    levels = {"image": NoiseLevels.uniform(torch.rand(2), stream.sample)}
    out = model({"image": stream}, levels, labels, features_after=(1, 2))
    velocity, raw = net(x, levels["image"], labels, return_raw_features=1)
    assert torch.equal(out.velocity["image"], velocity) and torch.equal(out.features[1]["image"], raw)
    assert set(out.features) == {1, 2} and model.config.depth == 2
    projected = net(x, levels["image"], labels, return_features=1)[1]
    assert torch.equal(model.projector(out.features[1]["image"]), projected)

    calls = []
    for i, block in enumerate(net.blocks, start=1):
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
    early = model({"image": stream}, levels, labels, features_after=(1,), features_only=True)
    assert early.velocity == {} and torch.equal(early.features[1]["image"], raw) and calls == [1]


def test_the_objective_serves_it():
    """Self-Flow's loss on the adapter is the paper's, computed here from the network's own call."""
    model, teacher, objective = ImageNetModel(network()), ImageNetModel(network()), Objective(ObjectiveConfig())
    for parameter in teacher.parameters():
        parameter.data += 0.01
    x0, labels = inputs(3)
    batch = Batch(
        {"image": TokenStream.dense(x0, torch.zeros(16, 4))}, Conditions.named("t2i"), labels, torch.arange(3)
    )
    loss, _ = objective.loss(model, teacher, batch, Randomness(0), step=1)

    draw = objective.draw("image", batch.streams["image"], batch.ids, Randomness(0), 1)
    tau, x1 = draw.tau.per_token(), draw.noise
    at_l, at_k = objective.config.layers(2)
    x_tau = (1 - tau.unsqueeze(-1)) * x0 + tau.unsqueeze(-1) * x1
    predicted, projected = model.net(x_tau, tau, labels, return_features=at_l)
    clean = draw.cleaner.view(-1, 1, 1)
    _, target = teacher.net((1 - clean) * x0 + clean * x1, draw.cleaner, labels, return_raw_features=at_k)
    l_rep = 1 - torch.nn.functional.cosine_similarity(projected, target, dim=-1).mean()
    torch.testing.assert_close(loss, (predicted - (x1 - x0)).square().mean() + 0.8 * l_rep)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_mistakes_are_said_in_a_sentence():
    net, (x, labels) = network(), inputs(2)
    t = torch.rand(2)
    cases = {
        "timesteps for (3, 16) tokens": lambda: net(x, torch.rand(3), labels),
        "timesteps for (2, 15) tokens": lambda: net(x, torch.rand(2, 15), labels),
        "timesteps are (B,) or (B, N)": lambda: net(x, torch.rand(2, 16, 1), labels),
        "got (2, 16, 12)": lambda: net(x[..., :12], t, labels),
        "got (2, 9, 16)": lambda: net(x[:, :9], t, labels),
        "no class 11": lambda: net(x, t, torch.tensor([0, 11])),
        "no class -1": lambda: net(x, t, torch.tensor([0, -1])),
        "2 integers": lambda: net(x, t, labels.float()),
        "after block 3": lambda: net(x, t, labels, return_features=3),
        "after block -1": lambda: net(x, t, labels, return_raw_features=-1),
        "exclude each other": lambda: net(x, t, labels, return_features=1, return_raw_features=1),
        "multiple of num_heads": lambda: SelfFlowPerTokenDiT(hidden_size=100, num_heads=3),
        "multiple of patch_size": lambda: ImageNetConfig(input_size=9),
    }
    for sentence, call in cases.items():
        with pytest.raises(UserError) as caught:
            call()
        assert sentence in str(caught.value) and "\n" not in str(caught.value)

    model, stream = ImageNetModel(net), TokenStream.dense(x, torch.zeros(16, 4))
    levels = NoiseLevels.uniform(t, stream.sample)
    padded = TokenStream.pad([stream, TokenStream.dense(x[:, :9], torch.zeros(9, 4))])
    wider = NoiseLevels.uniform(torch.rand(4), padded.sample)
    with pytest.raises(UserError, match="the modality 'image' alone, got tokens of audio"):
        model({"audio": stream}, {"audio": levels}, labels)
    with pytest.raises(UserError, match="packed or padded"):
        model({"image": padded}, {"image": wider}, torch.zeros(4).long())
    with pytest.raises(UserError, match="features_only needs"):
        model({"image": stream}, {"image": levels}, labels, features_only=True)
