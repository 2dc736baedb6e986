"""Grouped and expanded noise levels are the same model, whatever the shapes, levels, packing and precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_mm.models.layers import MANY_LEVELS, choice_of, per_token
from selfflow_mm.tokens import NoiseLevels, TokenStream

CONFIG = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=1, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
    modalities={"video": 6, "audio": 5}, text_channels=7,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> JointTransformer:
    torch.manual_seed(0)
    model = JointTransformer(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def stream_of(generator, batch, tokens, channels, samples):
    values = torch.randn(batch, tokens, channels, generator=generator)
    positions = 3 * torch.rand(batch, tokens, 4, generator=generator)
    if not samples:
        return TokenStream(values, positions, torch.zeros(batch, tokens, dtype=torch.int64), full=True)
    return TokenStream(values, positions, torch.randint(-1, samples, (batch, tokens), generator=generator))


@settings(max_examples=30)
@given(
    batch=st.integers(1, 3),
    video=st.integers(1, 90),
    audio=st.integers(1, 7),
    levels=st.integers(1, 80),
    samples=st.integers(0, 3),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_grouped_and_expanded_agree(model, batch, video, audio, levels, samples, half, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"video": (video, 6), "audio": (audio, 5), "text": (3, 7)}
    streams = {m: stream_of(generator, batch, n, c, samples) for m, (n, c) in sizes.items()}
    grouped = {}
    for m, stream in streams.items():
        few = torch.rand(batch, levels, generator=generator)
        grouped[m] = NoiseLevels(few, torch.randint(0, levels, stream.sample.shape, generator=generator))
    expanded = {m: NoiseLevels.each_token(lv.per_token()) for m, lv in grouped.items()}
    text = streams.pop("text")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        a, b = (model(streams, form, text, features_after=(1,)) for form in (grouped, expanded))
    for m in streams:
        tolerance = 0.06 if half else 1e-5  # relative to the largest value; bfloat16 rounds to 0.4 %
        for x, y in ((a.velocity[m], b.velocity[m]), (a.features[1][m], b.features[1][m])):
            assert (x - y).abs().max() <= tolerance * y.abs().max() + 1e-6


@given(batch=st.integers(1, 3), tokens=st.integers(1, 40), distinct=st.integers(1, 50), seed=st.integers(0, 99))
def test_grouping_finds_the_levels_that_there_are(batch, tokens, distinct, seed):
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(distinct, generator=generator)[torch.randint(0, distinct, (batch, tokens), generator=generator)]
    levels = NoiseLevels.grouped(t)
    assert torch.equal(levels.per_token(), t)
    most = max(len(row.unique()) for row in t)
    assert levels.levels.shape[1] == (tokens if levels.each else most)
    assert not levels.each or most > tokens // 2


def test_each_tokens_own_level_keeps_its_form_through_conditions_and_joining():
    t, mask = torch.rand(2, 5), torch.tensor([[1, 0, 0, 1, 0]]).bool().expand(2, -1)
    given_some = NoiseLevels.each_token(t).given(mask, torch.tensor([0.5, 0.25]))
    both = NoiseLevels.concatenate([given_some, NoiseLevels.each_token(t)])
    assert given_some.each and both.each
    expected = torch.where(mask, torch.tensor([[0.5], [0.25]]), t)
    assert torch.equal(both.per_token(), torch.cat([expected, t], dim=1))
    assert torch.equal(both.levels.gather(1, both.group), both.per_token())


@pytest.mark.parametrize("levels", [1, 2, MANY_LEVELS, MANY_LEVELS + 1])
def test_looking_up_is_exact_with_any_number_of_levels(levels):
    table = torch.randn(2, levels, 5, requires_grad=True)
    group = torch.randint(0, levels, (2, 30))
    out = per_token(table, choice_of(NoiseLevels(torch.rand(2, levels), group))).expand(2, 30, 5)
    assert torch.equal(out, torch.stack([table[b][group[b]] for b in range(2)]))
    weights = torch.randn(2, 30, 5)
    (out * weights).sum().backward()
    expected = torch.zeros(2, levels, 5)
    for b in range(2):
        expected[b].index_add_(0, group[b], weights[b])
    assert torch.allclose(table.grad, expected, atol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the shapes that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.shapes.add(tuple(x.shape))
        return out


def test_no_modulation_of_every_token_is_ever_written_out(model):
    """tokens x 6 x width (or 3 or 2) appears with a level for each token, and never with few levels."""
    generator = torch.Generator().manual_seed(0)
    video, text = stream_of(generator, 2, 50, 6, 0), stream_of(generator, 2, 3, 7, 0)
    mask = torch.rand(2, 50, generator=generator) < 0.3
    few = NoiseLevels.dual(torch.rand(2), torch.rand(2), mask, video.sample)
    own = NoiseLevels.uniform(torch.zeros(2), text.sample)
    seen = {}
    for form in (few, NoiseLevels.each_token(few.per_token())):
        with Largest() as mode, torch.inference_mode():
            model({"video": video}, {"video": form, "text": own}, text)
        seen[form.each] = {s for s in mode.shapes if s[-1] in (6 * 32, 2 * 32) and 50 in s} | {
            s for s in mode.shapes if len(s) == 4 and s[1] >= 50 and s[2] in (2, 3, 6) and s[3] == 32
        }
    assert not {s for s in seen[False] if s[-1] == 192 or len(s) == 4}
    assert (2, 50, 6, 32) in seen[True]
