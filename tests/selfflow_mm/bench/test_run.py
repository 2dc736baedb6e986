"""A whole benchmark at toy size: equal forms, figures that follow from time and operations, files that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from selfflow_mm.bench import child, memory, run
from selfflow_mm.bench.forms import EXPANDED, GROUPED, REFERENCE, Expanded
from selfflow_mm.bench.jobs import Forward, Sample, Step, Training
from selfflow_mm.bench.model import Shape, build
from selfflow_mm.bench.plan import Plan
from selfflow_mm.bench.rate import Rate
from selfflow_mm.bench.report import Report
from selfflow_mm.bench.table import as_markdown, as_text, write_json
from selfflow_mm.bench.timing import Timing
from selfflow_mm.cli.main import main
from selfflow_mm.errors import UserError
from selfflow_mm.models.imagenet import ImageNetConfig
from selfflow_mm.models.joint import JointConfig

CPU = torch.device("cpu")
JOINT = Shape(
    JointConfig(width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
                modalities={"image": 6, "audio": 5}, text_channels=7),
    tokens=9, text_tokens=3,
)  # fmt: skip
IMAGENET = Shape(
    ImageNetConfig(input_size=6, hidden_size=32, num_heads=2, depth=3, num_classes=5, learn_sigma=True), 9, 0
)
SHAPES = {"joint": JOINT, "imagenet": IMAGENET}
#: Stand-ins for the authors' checkout: another class of that name, and one of the same call.
OTHER = """
from torch import nn
class SelfFlowPerTokenDiT(nn.Linear):
    def __init__(self, **_): super().__init__(1, 1)
"""
STAND_IN = "from selfflow_mm.models.imagenet import SelfFlowPerTokenDiT\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of its own for each form, no large matrices, no round that must last."""
    peak = memory.Peak(3_000_000, 1_000_000, "a test's invention")
    monkeypatch.setattr(child, "peak_of", lambda *_: peak)
    monkeypatch.setattr(run, "matrix_rate", lambda *_: Rate(1e12, 64, "float32"))
    monkeypatch.setattr(run, "in_turns", lambda *a, **k: run_in_turns(*a, **k, shortest=0.0))


run_in_turns = run.in_turns


def toy(family: str, **settings) -> Report:
    plan = Plan(
        "xl/2" if family == "imagenet" else "tiny", "cpu", tokens=9, text_tokens=3, rounds=2, steps=2, **settings
    )
    return run.run(plan, SHAPES[family])


@pytest.mark.parametrize("family", SHAPES)
def test_a_run_finds_equal_outputs_in_every_job(family: str, quick: None) -> None:
    report = toy(family)
    assert [job.what for job in report.jobs] == ["forward", "train", "sample"]
    for job in report.jobs:
        assert [row.form for row in job.rows] == [GROUPED, EXPANDED]
        assert job.rows[0].difference == 0 and job.rows[0].ratio == 1
        assert job.rows[1].difference < 1e-5 < 0.1 < job.magnitude  # equal, and not because all is zero
        assert all(len(row.rounds) == 2 and row.peak_bytes == 3_000_000 for row in job.rows)


@pytest.mark.long
def test_compiled_forms_give_the_same(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def traced(model):  # as one graph, which a compiler would be handed
        return torch.compile(model, fullgraph=True, dynamic=False, backend="eager")

    monkeypatch.setattr(run, "_compiled", traced)
    plain, compiled = (toy("joint", what=("train",), compile=on).jobs[0] for on in (False, True))
    assert compiled.magnitude == pytest.approx(plain.magnitude, rel=1e-5)
    assert compiled.rows[1].difference < 1e-5


@pytest.mark.parametrize("family", SHAPES)
def test_the_expanded_form_tells_every_stream_a_level_per_token(family: str) -> None:
    subject = build(SHAPES[family], 2, CPU)
    seen = []
    subject.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    Forward(subject, Expanded(subject.model), torch.float32)()
    assert all(lv.each and lv.levels.shape == lv.group.shape for lv in seen[0].values())
    Forward(subject, subject.model, torch.float32)()
    assert [lv.levels.shape[1] for lv in seen[1].values()] == ([2] if family == "imagenet" else [2, 1])
    assert all(torch.equal(seen[0][m].per_token(), seen[1][m].per_token()) for m in seen[0])


@pytest.mark.parametrize("family", SHAPES)
def test_operations_agree_with_a_counter(family: str) -> None:
    subject = build(SHAPES[family], 2, CPU)
    training = Training(subject, {GROUPED: lambda model: model}, torch.float32)
    for what, action, close in (
        ("forward", Forward(subject, subject.model, torch.float32), 1e-9),
        ("sample", Sample(subject, subject.model, torch.float32, 2), 1e-9),
        ("train", Step(training, GROUPED).result, 0.05),  # the first layer's input takes no gradient
    ):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            action()
        # A few levels are looked up by a product, which is no work of the model.
        parts = [subject.shape.forward_flops(levels=n).parts for n in (2, 1)]
        two, one = (sum(p.get(name, 0) for name in ("look-up", "look-up of shifts")) for p in parts)
        extra = 2 * {"forward": two, "sample": 2 * one, "train": 3 * two}[what]
        counted = counter.get_total_flops() - extra
        assert 2 * run.model_flops(subject.shape, what, 2) == pytest.approx(counted, rel=close)


def test_mfu_follows_from_operations_time_and_rate() -> None:
    timings = {GROUPED: Timing((0.5, 0.4, 0.7)), EXPANDED: Timing((0.75, 0.8, 1.05))}
    outputs = {GROUPED: torch.tensor([1.0, -3.0]), EXPANDED: torch.tensor([1.0, -3.5])}
    measured = run._Measured("forward", timings, {GROUPED: memory.Peak(10, 4, ""), EXPANDED: None}, outputs)
    flops = 2 * JOINT.forward_flops(levels=2).total
    job = run._job(Plan(preset="tiny", batch=2), JOINT, measured, rate=4.0 * flops)
    ours, expanded = job.rows
    assert job.model_flops == flops and job.magnitude == 3.0
    assert ours.seconds == 0.5 and ours.flops_per_second == 2 * flops and ours.mfu == 0.5
    assert expanded.ratio == pytest.approx(1.5)  # of 1.5, 2 and 1.5
    assert expanded.mfu == pytest.approx(1 / 0.8 / 4) and expanded.difference == 0.5
    assert (ours.peak_bytes, ours.above_bytes, expanded.peak_bytes) == (10, 4, None)


def test_weights_move_in_a_step_and_stay_in_a_comparison() -> None:
    subject = build(JOINT, 2, CPU)
    training = Training(subject, {GROUPED: lambda m: m, EXPANDED: Expanded}, torch.float32)
    weights = [p.detach() for p in subject.model.parameters()]
    before = [w.clone() for w in weights]
    first = {name: Step(training, name).result() for name in (GROUPED, EXPANDED)}
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    torch.testing.assert_close(first[GROUPED], first[EXPANDED], rtol=1e-5, atol=1e-6)
    Step(training, EXPANDED)()
    moved = [float((a - b).abs().max()) for a, b in zip(before, weights, strict=True)]
    # AdamW's second step, after a first without gradient: lr (.1 / .19) / sqrt(.001 / .001999), times the sign.
    assert max(moved) == pytest.approx(1e-4 * (0.1 / 0.19) / (0.001 / 0.001999) ** 0.5, rel=1e-3)
    followed = [float((a - b).abs().max()) for a, b in zip(before, training.teacher.parameters(), strict=True)]
    assert 0 < max(followed) < 1e-7  # the EMA, at a decay of .9999


def test_recomputed_blocks_give_the_same_gradient() -> None:
    found = [
        Step(
            Training(build(IMAGENET, 2, CPU), {GROUPED: lambda m: m}, torch.float32, recompute=again), GROUPED
        ).result()
        for again in (False, True)
    ]
    torch.testing.assert_close(found[0], found[1])


def test_json_holds_what_a_table_is_made_of(quick: None, tmp_path: Path) -> None:
    report = toy("joint", what=("forward",))
    write_json(tmp_path / "deep" / "bench.json", report)
    [file] = (tmp_path / "deep").iterdir()  # no half-written file beside it
    found = json.loads(file.read_text())
    assert (found["format"], found["version"]) == ("selfflow-bench", 1)
    assert set(found["machine"]) == {"device", "cpu", "threads", "torch", "python", "date", "command"}
    assert found["plan"]["preset"] == "tiny" and found["rate"] == {"flops": 1e12, "edge": 64, "dtype": "float32"}
    [job] = found["jobs"]
    assert set(job) == {"what", "model_flops", "compared", "magnitude", "rows"}
    for row in job["rows"]:
        assert row["flops_per_second"] == pytest.approx(job["model_flops"] / row["seconds"])
        assert row["mfu"] == pytest.approx(row["flops_per_second"] / 1e12)


def test_tables_have_a_row_per_form_and_name_machine_and_method(quick: None) -> None:
    report = toy("joint", what=("forward", "sample"))
    text, page = as_text(report), as_markdown(report)
    for shown in (text, page):
        assert shown.count(GROUPED) == shown.count(EXPANDED) == 2
        assert report.machine["torch"] in shown and report.machine["date"] in shown and "a test's invention" in shown
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {10}


def test_the_reference_is_a_third_row_with_the_same_weights(quick: None, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "model.py").write_text(STAND_IN)
    report = toy("imagenet", reference=str(tmp_path), what=("forward", "train"))
    forward, train = report.jobs
    assert [row.form for row in forward.rows] == [GROUPED, EXPANDED, REFERENCE]
    assert forward.rows[2].difference < 1e-5
    assert len(train.rows) == 2  # the published code has no training step


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "is no checkout of black-forest-labs/Self-Flow"),
        ("import no_such_package_anywhere\n", "no_such_package_anywhere"),
        ("x = 1\n", "is not the code this was written for"),
        (OTHER, "our weights do not fit it"),
    ],
)
def test_a_broken_checkout_is_named(source: str | None, message: str, quick: None, tmp_path: Path) -> None:
    if source:
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "model.py").write_text(source)
    with pytest.raises(UserError, match=message):
        toy("imagenet", reference=str(tmp_path), what=("forward",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "675n"}, "the nearest is '675m'"),
        ({"preset": "XL-2"}, "the nearest is 'xl/2'"),
        ({"what": ("forwards",)}, "the nearest is 'forward'"),
        ({"what": ()}, "nothing to measure"),
        ({"batch": 0}, "at least 1"),
        ({"tokens": 250}, "the nearest is 256"),
        ({"preset": "tiny", "reference": "somewhere"}, "--preset xl/2"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan(**settings)


def test_the_command_prints_and_writes(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    options = ["--preset", "tiny", "--device", "cpu", "--tokens", "4", "--text-tokens", "2", "--batch", "1"]
    assert main(["bench", "model", *options, "--what", "forward", "--rounds", "1", "--markdown", str(page)]) == 0
    assert GROUPED in capsys.readouterr().out and EXPANDED in page.read_text()


def test_the_command_names_the_nearest_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "model", "--preset", "tyny"]) == 2
    assert "the nearest is 'tiny'" in capsys.readouterr().err
