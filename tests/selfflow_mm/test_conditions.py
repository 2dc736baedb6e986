"""Conditions: which tokens a part selects."""

from __future__ import annotations

import pytest
import torch

from selfflow_mm.conditions import TASKS, Conditions, Part
from selfflow_mm.errors import UserError
from selfflow_mm.tokens import TokenStream


def clip() -> TokenStream:
    """Three latent frames of two tokens at 0.03, 0.2 and 0.45 s; the second row has lost its last token."""
    seconds = torch.tensor([0.03, 0.03, 0.2, 0.2, 0.45, 0.45])
    positions = torch.zeros(6, 4)
    positions[:, 0] = seconds
    full = TokenStream.dense(torch.zeros(2, 6, 1), positions)
    sample = full.sample.clone()
    sample[1, -1] = -1
    return TokenStream(full.values, full.positions, sample)


def test_parts_select_by_time_and_never_padding():
    assert Part("first_frame").select(clip()).tolist() == [[True, True] + [False] * 4] * 2
    assert Part("prefix", seconds=0.3).select(clip())[0].tolist() == [True] * 4 + [False] * 2
    assert Part("suffix", seconds=0.3).select(clip()).tolist() == [
        [False] * 4 + [True] * 2,
        [False] * 4 + [True, False],
    ]
    assert Part("all").select(clip()).sum() == 11
    mask = torch.tensor([True, False] * 3)
    assert Part("mask", tokens=mask).select(clip())[0].tolist() == mask.tolist()


def test_named_tasks_are_what_their_names_say():
    for name in TASKS:
        task = Conditions.named(name)
        if name.startswith("extend"):
            assert task.extends and set(task.given) == set(task.generate)
            continue
        assert not task.extends
        source, target = name.split("2")
        letters = {"v": "video", "a": "audio", "i": "image"}
        assert {letters[c] for c in target} == set(task.generate)
        assert ("video" in task.given) == (source in ("i", "v"))


def test_an_extension_is_given_what_lies_before_its_border():
    streams = {"video": clip(), "audio": clip()}
    assert not any(mask.any() for mask in Conditions.named("extend").masks(streams).values())
    masks = Conditions.named("extend").until(0.3).masks(streams)
    assert masks["video"][0].tolist() == masks["audio"][0].tolist() == [True] * 4 + [False] * 2
    assert set(Conditions.named("extend-v").until(0.3).given) == {"video"}
    assert Conditions.named("v2a").until(0.3) == Conditions.named("v2a")


def test_contradictions_are_refused():
    with pytest.raises(UserError, match="generate no modality"):
        Conditions(())
    with pytest.raises(UserError, match="given whole and generated"):
        Conditions(("video",), {"video": Part("all")})
    with pytest.raises(UserError, match="unknown task 't2x'"):
        Conditions.named("t2x")
    with pytest.raises(UserError, match="level lies in"):
        Part("all", level=1.5)
