"""The joint transformer by its invariances: grouped or per-token levels, packed or alone, in any order."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from selfflow_mm.errors import UserError
from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_mm.models.joint import linear_velocity
from selfflow_mm.models.positions import rope_table, rotate
from selfflow_mm.tokens import NoiseLevels, TokenStream

CONFIG = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
    modalities={"video": 6, "audio": 5, "image": 6}, text_channels=7,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> JointTransformer:
    torch.manual_seed(0)
    model = JointTransformer(CONFIG)
    for parameter in model.parameters():  # nothing at zero, or every test would pass on closed gates
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def make(batch: int, seed: int = 0, video: int = 6, audio: int = 4, text: int = 3):
    generator = torch.Generator().manual_seed(seed)

    def dense(tokens: int, channels: int) -> TokenStream:
        positions = torch.rand(tokens, 4, generator=generator) * 3
        return TokenStream.dense(torch.randn(batch, tokens, channels, generator=generator), positions)

    return {"video": dense(video, 6), "audio": dense(audio, 5)}, dense(text, 7)


def levels_for(streams, text, value=0.4):
    t = torch.full((len(text.sample),), value)
    return {m: NoiseLevels.uniform(t, s.sample) for m, s in {**streams, "text": text}.items()}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 5), st.integers(0, 99))
def test_grouped_levels_equal_one_level_per_token(batch, video, audio, seed):
    torch.manual_seed(seed)
    model = JointTransformer(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    streams, text = make(batch, seed, video, audio)
    grouped = {
        m: NoiseLevels.dual(torch.rand(batch), torch.rand(batch), torch.rand(s.sample.shape) < 0.5, s.sample)
        for m, s in streams.items()
    }
    grouped["text"] = NoiseLevels.uniform(torch.zeros(batch), text.sample)
    expanded = {
        m: NoiseLevels(lv.per_token(), torch.arange(lv.group.shape[1]).expand_as(lv.group)) for m, lv in grouped.items()
    }
    a, b = model(streams, grouped, text), model(streams, expanded, text)
    for m in streams:
        assert torch.allclose(a.velocity[m], b.velocity[m], atol=1e-5)


def test_level_of_one_token_reaches_that_token_through_modulation(model):
    streams, text = make(2)
    low = levels_for(streams, text)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, 2] = True
    high = {**low, "video": low["video"].given(mask, 0.9)}
    change = (model(streams, high, text).velocity["video"] - model(streams, low, text).velocity["video"]).abs().sum(-1)
    assert (change[:, 2] > 2 * change[:, [0, 1, 3, 4, 5]].max(dim=1).values).all()


def test_padding_and_packing_do_not_leak(model):
    """Two samples packed into one row, with padding, give the velocities they have alone."""
    (a, text_a), (b, text_b) = make(1, 1), make(1, 2, video=5, audio=2, text=2)

    def pack(x: TokenStream, y: TokenStream) -> TokenStream:
        pad = torch.randn(1, 2, x.values.shape[2])
        values = torch.cat([x.values, y.values, pad], dim=1)
        positions = torch.cat([x.positions, y.positions, torch.rand(1, 2, 4)], dim=1)
        sample = torch.cat([x.sample, y.sample + 1, torch.full((1, 2), -1)], dim=1)
        return TokenStream(values, positions, sample)

    streams, text = {m: pack(a[m], b[m]) for m in a}, pack(text_a, text_b)
    t = torch.tensor([[0.3, 0.8]])
    packed = model(streams, {m: NoiseLevels.uniform(t, s.sample) for m, s in {**streams, "text": text}.items()}, text)
    for i, (own, own_text) in enumerate([(a, text_a), (b, text_b)]):
        alone = model(own, levels_for(own, own_text, float(t[0, i])), own_text)
        for m in own:
            got = packed.velocity[m][streams[m].sample == i]
            assert torch.allclose(got, alone.velocity[m][0], atol=1e-5)


def test_order_of_tokens_and_streams_does_not_matter(model):
    streams, text = make(1)
    order = torch.randperm(6)
    shuffled = TokenStream.dense(streams["video"].values[:, order], streams["video"].positions[0, order])
    a = model(streams, levels_for(streams, text), text).velocity["video"][:, order]
    other = {"audio": streams["audio"], "video": shuffled}
    b = model(other, levels_for(other, text), text).velocity["video"]
    assert torch.allclose(a, b, atol=1e-5)


def test_features_are_those_the_full_pass_goes_through(model):
    streams, text = make(2)
    levels = levels_for(streams, text)
    for block in (1, 2, 3):
        full = model(streams, levels, text, features_after=(block,))
        stopped = model(streams, levels, text, features_after=(block,), features_only=True)
        assert not stopped.velocity
        for m in streams:
            assert torch.equal(full.features[block][m], stopped.features[block][m])
            assert full.features[block][m].shape == (2, streams[m].values.shape[1], 32)


def test_rotation_depends_on_time_differences_only_and_keeps_length():
    x, y = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def product(s: float, t: float) -> float:
        at = [rope_table(torch.tensor([[[u, 1.0, 2.0, 0.0]]]), (8, 4, 4, 0), 100.0, 24.0) for u in (s, t)]
        return float((rotate(x, at[0]) * rotate(y, at[1])).sum())

    assert math.isclose(product(0.0, 0.04), product(1.5, 1.54), abs_tol=1e-3)
    assert abs(product(0.0, 0.0) - product(0.0, 0.04)) > 1e-3
    table = rope_table(torch.rand(1, 1, 4), (8, 4, 4, 0), 100.0, 24.0)
    assert torch.allclose(rotate(x, table).norm(), x.norm())


def test_parameter_count_of_the_papers_shape():
    """7 + 14 blocks at width 1152 are about 625 M (sec. 4); counted here by hand from the block layout."""
    config = JointConfig(modalities={"image": 16}, text_channels=64, bias=False, qkv_bias=False)
    with torch.device("meta"):
        model = JointTransformer(config)
    w = 1152
    double = 2 * (3 * w * w + w * w + 8 * w * w + 4 * w * w)
    single = w * (3 * w + 8 * w) + 5 * w * w
    blocks = sum(p.numel() for part in (model.double_blocks, model.single_blocks) for p in part.parameters())
    norms = (7 * 4 + 14 * 2) * (w // 16)
    assert blocks == 7 * double + 14 * single + norms
    assert abs(sum(p.numel() for p in model.parameters()) / 625e6 - 1) < 0.04


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 33}, "not a multiple"),
        ({"rope_axes": (8, 4, 4, 2)}, "rope_axes sums to 18"),
        ({"rope_axes": (7, 5, 4, 0)}, "four even widths"),
        ({"double_blocks": 0, "single_blocks": 0}, "at least one block"),
    ],
)
def test_impossible_shapes_are_refused(changes, sentence):
    fields = {"width": 32, "heads": 2, "rope_axes": (8, 4, 4, 0)} | changes
    with pytest.raises(UserError, match=sentence):
        JointConfig(**fields)


def test_calls_that_do_not_fit_are_refused(model):
    streams, text = make(1)
    levels = levels_for(streams, text)
    with pytest.raises(UserError, match="no modality 'touch'"):
        model({"touch": streams["video"]}, levels, text)
    with pytest.raises(UserError, match="video tokens have 5 channels"):
        model({"video": streams["audio"]}, levels, text)
    with pytest.raises(UserError, match="noise levels of video are for"):
        model(streams, {**levels, "video": levels["audio"]}, text)
    with pytest.raises(UserError, match="counted from 1 to 3"):
        model(streams, levels, text, features_after=(4,))


def moved(streams, text):
    """All tokens the same way along all four axes."""
    shift = torch.tensor([0.25, 1.0, 2.0, 3.0])
    there = {m: TokenStream(s.values, s.positions + shift, s.sample) for m, s in {**streams, "text": text}.items()}
    return {m: there[m] for m in streams}, there["text"]


@pytest.mark.parametrize("absolute", [False, True])
def test_where_everything_stands_is_told_by_absolute_positions_only(absolute):
    torch.manual_seed(3)
    network = JointTransformer(replace(CONFIG, absolute_positions=absolute)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    streams, text = make(2)
    levels = levels_for(streams, text)
    here = network(streams, levels, text).velocity
    far_streams, far_text = moved(streams, text)
    there = network(far_streams, levels, far_text).velocity
    for m in streams:
        assert torch.allclose(here[m], there[m], atol=1e-4) == (not absolute)


def test_a_model_begins_as_one_that_was_not_told_absolute_positions():
    torch.manual_seed(4)
    without = JointTransformer(CONFIG)
    for parameter in without.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    told = JointTransformer(replace(CONFIG, absolute_positions=True))
    missing = told.load_state_dict(without.state_dict(), strict=False).missing_keys
    streams, text = make(2)
    levels = levels_for(streams, text)
    assert missing == ["place_in.weight"]
    for m, velocity in without(streams, levels, text).velocity.items():
        assert torch.equal(told(streams, levels, text).velocity[m], velocity)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 3.0), st.floats(0.02, 1.0))
def test_the_linear_velocity_is_that_of_least_squares(std, t):
    generator = torch.Generator().manual_seed(0)
    x0, x1 = std * torch.randn(40_000, generator=generator), torch.randn(40_000, generator=generator)
    x = (1 - t) * x0 + t * x1
    fitted = float(x @ (x1 - x0) / (x @ x))
    assert float(linear_velocity(torch.tensor(t), std)) == pytest.approx(fitted, rel=0.03, abs=0.03 * (1 + std) / t)


def test_a_network_that_says_nothing_leaves_the_linear_velocity():
    torch.manual_seed(5)
    network = JointTransformer(replace(CONFIG, data_std={"video": 0.5}))  # its output layers begin at zero
    streams, text = make(2)
    levels = levels_for(streams, text, 0.4)
    velocity = network(streams, levels, text).velocity
    # By hand: (.4 - .6 * .25) / (.16 + .36 * .25) = 1.
    assert torch.allclose(velocity["video"], streams["video"].values, atol=1e-6)
    assert not velocity["audio"].any()
    with pytest.raises(UserError, match="data_std.video is a standard deviation above 0, got 0"):
        replace(CONFIG, data_std={"video": 0.0})


ISOLATED = replace(CONFIG, isolate_conditions=True, absolute_positions=True, data_std={"video": 0.4})


@pytest.fixture(scope="module")
def isolated() -> JointTransformer:
    torch.manual_seed(1)
    model = JointTransformer(ISOLATED)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def first_frame(streams):
    """The first two video tokens are given, in every row."""
    mask = torch.zeros(streams["video"].sample.shape, dtype=torch.bool)
    mask[:, :2] = True
    return {"video": mask}


def part(stream: TokenStream, start: int, end: int | None) -> TokenStream:
    return TokenStream.dense(stream.values[:, start:end], stream.positions[0, start:end])


@pytest.mark.parametrize("padded", [False, True])
def test_conditions_computed_once_give_the_velocity_of_a_whole_pass(isolated, padded):
    streams, text = make(2)
    if padded:
        text = TokenStream(text.values, text.positions, torch.tensor([[0, 0, 0], [0, -1, -1]]))
    given = first_frame(streams)
    levels = levels_for(streams, text, 0.7)
    levels["text"] = NoiseLevels.uniform(torch.zeros(2), text.sample)
    levels["video"] = levels["video"].given(given["video"], 0.1)
    known, rest = {"video": part(streams["video"], 0, 2)}, {**streams, "video": part(streams["video"], 2, None)}
    known_levels = {m: NoiseLevels.uniform(torch.full((2,), 0.1), s.sample) for m, s in known.items()}
    past = isolated.condition(known, {**known_levels, "text": levels["text"]}, text)
    for t in (0.7, 0.2):  # the same keys and values serve every step
        rest_levels = {m: NoiseLevels.uniform(torch.full((2,), t), s.sample) for m, s in rest.items()}
        levels = {**levels, **{m: NoiseLevels.uniform(torch.full((2,), t), s.sample) for m, s in streams.items()}}
        levels["video"] = levels["video"].given(given["video"], 0.1)
        whole = isolated(streams, levels, text, given=given).velocity
        quick = isolated.conditioned(rest, rest_levels, past)
        assert torch.allclose(quick["audio"], whole["audio"], atol=1e-5)
        assert torch.allclose(quick["video"], whole["video"][:, 2:], atol=1e-5)


def test_isolated_conditions_do_not_see_what_is_generated(isolated, model):
    streams, text = make(1)
    given, levels = first_frame(streams), levels_for(streams, text)
    other = {m: s.with_values(torch.cat([s.values[:, :2], s.values[:, 2:] + 1], dim=1)) for m, s in streams.items()}
    other["audio"] = streams["audio"].with_values(streams["audio"].values + 1)
    for network, sees in ((isolated, False), (model, True)):
        a, b = (
            network(s, levels, text, features_after=(3,), given=given).features[3]["video"] for s in (streams, other)
        )
        assert torch.allclose(a[:, :2], b[:, :2], atol=1e-6) == (not sees)
        assert not torch.allclose(a[:, 2:], b[:, 2:], atol=1e-3)


def test_conditions_computed_once_need_the_model_for_it(model, isolated):
    streams, text = make(1)
    with pytest.raises(UserError, match="isolate_conditions"):
        model.condition({}, levels_for(streams, text), text)
    packed = TokenStream(text.values, text.positions, text.sample + torch.tensor([0, 0, 1]))
    with pytest.raises(UserError, match="one sample per row"):
        isolated.condition({}, levels_for(streams, text), packed)


@pytest.mark.parametrize("config", [CONFIG, ISOLATED], ids=["open", "isolated"])
def test_attention_backends_give_the_same_velocity(config):
    torch.manual_seed(2)
    network = JointTransformer(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    streams, text = make(2)
    streams["audio"] = TokenStream(
        streams["audio"].values, streams["audio"].positions, torch.tensor([[0, 0, 1, 1], [0, 1, -1, -1]])
    )
    levels = {m: NoiseLevels.uniform(torch.rand(2, 2), s.sample) for m, s in {**streams, "text": text}.items()}
    given = first_frame(streams)
    outs = []
    for backend in ("sdpa", "flex", "varlen"):
        network.attention_backend = backend
        with torch.no_grad():
            outs.append(network(streams, levels, text, given=given).velocity)
    for out in outs[1:]:
        for m in streams:
            assert torch.allclose(out[m], outs[0][m], atol=1e-5)


def test_qkv_biases_alone_are_those_of_queries_keys_and_values():
    config = replace(CONFIG, bias=False)
    network = JointTransformer(config)
    biased = {n for n, _ in network.named_parameters() if "bias" in n}
    assert biased == {
        "double_blocks.0.text.qkv.bias",
        "double_blocks.0.media.qkv.bias",
        "single_blocks.0.qkv_bias",
        "single_blocks.1.qkv_bias",
        *(f"projector.{i}.bias" for i in (0, 2)),  # a head, not the transformer
    }
    same = JointTransformer(replace(CONFIG, bias=True))
    state = {**same.state_dict(), **network.state_dict()}
    for i in range(2):  # one fused bias, zero beyond queries, keys and values
        bias = torch.randn(3 * 32)
        network.single_blocks[i].qkv_bias.data.copy_(bias)
        state[f"single_blocks.{i}.up.bias"] = torch.cat([bias, torch.zeros(2 * 64)])
        del state[f"single_blocks.{i}.qkv_bias"]
    same.load_state_dict(state)
    for p in (network, same):
        torch.nn.init.ones_(p.single_modulation.linear.weight)
        for out in p.media_out.values():
            torch.nn.init.ones_(out.weight)
    streams, text = make(1)
    a, b = (n(streams, levels_for(streams, text), text).velocity for n in (network, same))
    assert all(torch.allclose(a[m], b[m], atol=1e-5) for m in a)


class Dtypes(TorchDispatchMode):
    """Remembers the floating dtypes that the named operations were given."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {name: set() for name in names}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in self.seen:
            first = args[0]
            if isinstance(first, torch.Tensor) and first.is_floating_point():
                self.seen[name].add(first.dtype)
        return func(*args, **(kwargs or {}))


def test_under_bfloat16_norms_levels_and_positions_stay_in_float32(model):
    streams, text = make(2)
    mask = torch.rand(2, 6) < 0.5
    levels = levels_for(streams, text)
    levels["video"] = NoiseLevels.dual(torch.rand(2), torch.rand(2), mask, streams["video"].sample)
    with Dtypes("native_layer_norm", "rsqrt", "cos", "sin", "addmm", "mm") as mode, torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(streams, levels, text, features_after=(3,))
    assert mode.seen["native_layer_norm"] == {torch.float32}  # of the residual stream
    assert mode.seen["rsqrt"] == {torch.float32}  # of queries and keys
    assert mode.seen["cos"] == mode.seen["sin"] == {torch.float32}  # of levels and positions
    assert mode.seen["addmm"] | mode.seen["mm"] == {torch.bfloat16}  # while every matrix product is in bfloat16
    assert out.features[3]["video"].dtype == torch.float32


@pytest.mark.parametrize("packed", [False, True])
def test_the_whole_forward_pass_compiles_as_one_graph(model, packed):
    streams, text = make(2)
    if packed:
        streams = {m: TokenStream(s.values, s.positions, s.sample) for m, s in streams.items()}
    levels = levels_for(streams, text)
    levels["video"] = NoiseLevels.dual(torch.rand(2), torch.rand(2), torch.rand(2, 6) < 0.5, streams["video"].sample)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    a = compiled(streams, levels, text, features_after=(2,))
    b = model(streams, levels, text, features_after=(2,))
    for m in streams:
        assert torch.allclose(a.velocity[m], b.velocity[m], atol=1e-5)
        assert torch.allclose(a.features[2][m], b.features[2][m], atol=1e-5)


def test_one_compiled_model_serves_every_choice_of_features():
    """Student and teacher are the same code with other choices, which a compiler comes to hold as unknown numbers."""
    small = JointTransformer(replace(CONFIG, double_blocks=0, modalities={"video": 6})).eval()
    streams, text = make(1)
    streams = {"video": streams["video"]}
    levels = levels_for(streams, text)
    compiled = torch.compile(small, backend="eager")
    with torch.no_grad():
        for chosen, only in (((1,), False), ((2,), True), ((1,), True)):
            a = compiled(streams, levels, text, features_after=chosen, features_only=only)
            b = small(streams, levels, text, features_after=chosen, features_only=only)
            assert set(a.features) == set(chosen) and set(a.velocity) == set(b.velocity)
            assert all(torch.allclose(a.features[i]["video"], b.features[i]["video"], atol=1e-5) for i in chosen)
