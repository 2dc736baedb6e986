"""Writing the playroom to shards, by the command; and version 1 is what it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.data import world
from selfflow_mm.data.playroom import make_clip
from selfflow_mm.data.playroom.dataset import write_playroom
from selfflow_mm.data.shards import ShardDataset


def test_the_command_writes_a_data_set_that_reads_back(tmp_path: Path) -> None:
    out = tmp_path / "room"
    command = ["make-world", "--world", "2", "--split", "test", "--out", str(out), "--clips", "4", "--seed", "2"]
    assert main([*command, "--start", "3"]) == 0
    data = ShardDataset(out)
    assert len(data) == 4
    assert data.info["video"] == {"frames": 33, "height": 64, "width": 64, "fps": 16}
    assert (data.info["world"], data.info["split"]) == (2, "test")
    for index in range(4):
        sample, clip = data[index], make_clip(2, index + 3, "test")
        assert sample.captions == tuple(caption.text for caption in clip.captions)
        assert sample.meta["caption_kinds"] == [caption.kind for caption in clip.captions]
        assert sample.meta["events"] == list(clip.events)
        assert {key: sample.meta[key] for key in clip.meta} == clip.meta
        assert sample.video is not None and sample.audio is not None
        error = sample.video.frames.float() - clip.video.frames.float()
        assert 10 * np.log10(255**2 / float(error.square().mean())) > 30
        assert sample.audio.waveform.shape == (2, 33_000)
        # Compression moves no onset by more than a frame and puts little before it.
        onset, true = (
            int(torch.nonzero(a.waveform.abs().amax(dim=0) > 0.05)[0]) / 16_000 for a in (sample.audio, clip.audio)
        )
        assert abs(onset - true) < 1 / 16


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    write_playroom(tmp_path / "one", 10, 7, workers=1, progress=False)
    write_playroom(tmp_path / "two", 10, 7, workers=2, progress=False)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["dataset.json", "shard-000000.tar"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_version_1_has_no_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-world", "--out", str(tmp_path / "w"), "--clips", "1", "--split", "test"]) == 2
    assert "holds nothing out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seed", "index", "text", "brightness", "energy"),
    [
        (0, 0, "84c1a0c8a38f382b", 138.055, 36.548),
        (5, 8, "ea43a0c8ca11b504", 137.341, 34.597),
        (3, 17, "f6114905ba8ac9e3", 141.919, 31.076),
    ],
)
def test_version_1_makes_the_clips_that_the_bundled_weights_learned(
    seed: int, index: int, text: str, brightness: float, energy: float
) -> None:
    clip = world.make_clip(seed, index)
    told = json.dumps([clip.captions, [[event["who"], round(event["time"], 3)] for event in clip.events]])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == text
    assert float(clip.video.frames.float().mean()) == pytest.approx(brightness, abs=0.001)
    assert float(clip.audio.waveform.double().square().sum()) == pytest.approx(energy, abs=0.001)
