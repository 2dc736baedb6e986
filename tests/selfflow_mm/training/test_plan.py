"""The dry run: its numbers against the parts they come from, and what it refuses before a run would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selfflow_mm.errors import UserError
from selfflow_mm.models import preset
from selfflow_mm.models.flops import joint_forward_flops, training_step_flops
from selfflow_mm.training.plan import amount, describe
from selfflow_mm.training.workload import TEXT_TOKENS
from selfflow_mm.weights.tokenizers import named_tokenizer

TOKENIZERS = "tokenizers={video: tiny/video, audio: tiny/audio}"
SOURCE = "data={sources: {world: {path: nowhere, batch: 5, tasks: {t2v: 1, t2va: 1, t2a: 0}}}}"


def _bytes(shown: str, after: str) -> float:
    number, unit = re.search(after + r"\D*([\d.]+) (\wiB)", shown).groups()
    return float(number) * {"MiB": 2**20, "GiB": 2**30}[unit]


def test_work_and_memory_are_those_of_the_largest_task() -> None:
    shape = "model.absolute_positions=true"  # the preset's, which the bundled model has from its last phase on
    shown = describe(Path("tiny.yaml"), [TOKENIZERS, SOURCE, shape, "run.steps=10", "run.precision=float32"])
    # The bundled tokenizers' grids: 33 frames of 64 x 64, and 2.0625 s of sound.
    video, audio = map(int, re.search(r"video (\d+), audio (\d+)", shown).groups())
    assert "Largest batch: 5 samples of t2va" in shown and f"about {video + audio + TEXT_TOKENS} tokens" in shown
    channels = {name: named_tokenizer(f"tiny/{name}").spec.channels for name in ("video", "audio")}
    config = preset("tiny", modalities=channels)
    tokens = {"video": video, "audio": audio}
    student = joint_forward_flops(config, tokens, TEXT_TOKENS, 2, projector=True)
    teacher = joint_forward_flops(config, tokens, TEXT_TOKENS, blocks=4)
    step = 5 * training_step_flops(student, teacher).total
    silent = {"video": video}  # every other step is of t2v
    student = joint_forward_flops(config, silent, TEXT_TOKENS, 2, projector=True)
    teacher = joint_forward_flops(config, silent, TEXT_TOKENS, blocks=4)
    both = 5 * step + 5 * 5 * training_step_flops(student, teacher).total
    assert f"Work: {amount(step)}FLOPs for a step on it, {amount(both)}FLOPs for 10 of what is drawn" in shown
    total = int(re.search(r"Parameters: ([\d,]+)", shown)[1].replace(",", ""))
    assert _bytes(shown, "Memory estimate:") == pytest.approx(20 * total, rel=0.01)


def test_recomputation_bfloat16_and_averages_show_in_the_memory() -> None:
    wide = [TOKENIZERS, SOURCE, "model.preset=290m"]
    plain = describe(Path("tiny.yaml"), [*wide, "run.precision=float32"])
    total = int(re.search(r"Parameters: ([\d,]+)", plain)[1].replace(",", ""))
    again = describe(Path("tiny.yaml"), [*wide, "run.precision=float32", "run.recompute=blocks"])
    assert "activations with recomputation" in again
    assert _bytes(again, "AdamW and EMA,\n") < 0.5 * _bytes(plain, "AdamW and EMA,\n")
    low = describe(Path("tiny.yaml"), [*wide, "run.precision=bfloat16", "run.posthoc_ema.every=5"])
    assert _bytes(low, "Memory estimate:") == pytest.approx((20 + 2 + 8) * total, rel=0.01)


def test_objectives_without_a_teacher_take_less() -> None:
    def work(name: str) -> str:
        return re.search("Work: (.*) for a step", describe(Path("tiny.yaml"), [TOKENIZERS, SOURCE, name]))[1]

    assert work("objective.name=flow") != work("objective.name=dual") != work("objective.name=self-flow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("init=nowhere", "there is no weights folder 'nowhere'"),
        ("model.preset=5b", "there is no such preset"),
        ("model.modalities.video=7", "model.modalities.video is 7, its tokenizer has 96 channels"),
    ],
)
def test_what_a_run_would_refuse_the_dry_run_refuses(change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        describe(Path("tiny.yaml"), [TOKENIZERS, SOURCE, change])


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 "), (4200, "4.2 k"), (3.45e9, "3.45 G"), (1.2e12, "1.2 T"), (7e22, "70 Z")]
)
def test_amounts_are_short(count: float, text: str) -> None:
    assert amount(count) == text


def test_a_model_that_cannot_tell_the_order_of_words_is_announced() -> None:
    blind = describe(Path("tiny.yaml"), [TOKENIZERS, SOURCE, "model={preset: 290m}"])
    assert "cannot tell the order of words" in blind
    seeing = describe(Path("tiny.yaml"), [TOKENIZERS, SOURCE, "model={preset: 290m, rope_axes: [24, 20, 20, 8]}"])
    assert "order of words" not in seeing


def test_attention_that_cannot_be_compiled_is_not() -> None:
    with pytest.raises(UserError, match="varlen attention .* cannot be compiled"):
        describe(Path("tiny.yaml"), [TOKENIZERS, SOURCE, "run.attention=varlen", "run.compile=true"])
