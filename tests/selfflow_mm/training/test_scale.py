"""The sums of docs/scale.md: by hand on a small run, and the page against the command that makes it."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from selfflow_mm.config import from_dict
from selfflow_mm.errors import UserError
from selfflow_mm.training.checkpoint import optimizer_tensors, save_checkpoint
from selfflow_mm.training.cluster import Cluster
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.gpus import Gpu
from selfflow_mm.training.scale import CHECKPOINT, Scale, scale

ROOT = Path(__file__).parents[3]
ROUND = Gpu("round", 100e9, 1000e12, 2e12, 1e12, "nobody's")
EXPECTS = {"samples": 1000, "captions": 2, "height": 512, "width": 256, "frames": 45, "fps": 24, "seconds": 2}


def _config(**expects: int) -> TrainConfig:
    source = {"path": "nowhere", "batch": 8, "tasks": {"t2va": 1, "t2i": 1}, "expects": {**EXPECTS, **expects}}
    return from_dict(
        TrainConfig,
        {
            "model": {"preset": "290m", "text_channels": 512},
            "tokenizers": {"image": "flux2", "video": "wan2.2", "audio": "avae"},
            "text": {"encoder": "nobody/t5", "max_tokens": 20},
            "data": {"sources": {"clips": source}},
            "run": {"steps": 100, "save_every": 10},
        },
    )


def _sums(**changes: float) -> Scale:
    return scale(_config(), Cluster(ROUND, 4, 0.5), changes)


def test_raw_media_by_hand() -> None:
    s = _sums(png=0.5, h264=0.2, aac=80e3)
    (clips,) = s.plan.data()
    assert s.raw_bytes(clips) == pytest.approx(512 * 256 * 3 * 0.5 + 512 * 256 * 45 * 0.2 / 8 + 2 * 80e3 / 8)


def test_encoding_goes_with_pixels() -> None:
    s = _sums(flux2=1e12)
    assert s.encoding_flops(s.plan.data()[0]) == pytest.approx(1e12 / 2 + s["wan2.2"] * 512 * 256 / (384 * 672))
    assert s.gpu_hours(3.6e18, 0.5) == pytest.approx(2)


def test_checkpoints_and_failures_by_hand() -> None:
    s = _sums(store=1e9, mtbf=1000, restart=600)
    assert s.checkpoint_bytes == 16 * s.plan.parameters
    assert s.save_seconds == pytest.approx(16 * s.plan.parameters / 1e9)
    assert s.mtbf_seconds == 250 * 3600
    assert s.interval == pytest.approx(10 * s.estimate.step)
    assert s.lost_share(3600) == pytest.approx(s.save_seconds / 3600 + (1800 + 600) / (250 * 3600))


def test_youngs_interval_is_where_least_is_lost() -> None:
    s = _sums()
    best = s.best_interval
    assert best == pytest.approx(math.sqrt(2 * s.save_seconds * s.mtbf_seconds))
    assert s.lost_share(best) < min(s.lost_share(0.8 * best), s.lost_share(1.25 * best))


def test_what_cannot_be_summed_is_refused() -> None:
    cluster = Cluster(ROUND)
    with pytest.raises(UserError, match="there is no assumption 'disk'; there are png, h264"):
        scale(_config(), cluster, {"disk": 1.0})
    with pytest.raises(UserError, match="the assumption store must be positive"):
        scale(_config(), cluster, {"store": 0.0})
    with pytest.raises(UserError, match=r"data\.sources\.clips\.expects\.samples says nothing"):
        scale(_config(samples=0), cluster)


def _command(*arguments: str) -> int:
    return runpy.run_path(str(ROOT / "benchmarks" / "scale.py"))["main"](list(arguments))


def test_the_page_holds_what_its_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert _command() == 0
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    begin, end = "<!-- made by benchmarks/scale.py -->\n\n", "\n<!-- end -->"
    assert page.split(begin)[1].split(end)[0] == capsys.readouterr().out


def test_a_mistake_costs_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert _command("--assume", "store=fast") == 2
    assert capsys.readouterr().err == "scale: --assume store needs a number, got 'fast'\n"


def test_a_checkpoint_has_16_bytes_a_parameter(tmp_path: Path) -> None:
    model = nn.Linear(300, 400)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    tensors = {"model": model.state_dict(), "ema": model.state_dict(), "optimizer": optimizer_tensors(optimizer, model)}
    folder = save_checkpoint(tmp_path, 1, tensors, {})
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size == pytest.approx(CHECKPOINT * sum(p.numel() for p in model.parameters()), rel=0.01)
