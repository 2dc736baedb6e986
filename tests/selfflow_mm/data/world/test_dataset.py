"""Writing the world to shards: the same bytes from any number of processes, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.data.world import dataset, make_clip
from selfflow_mm.data.world.dataset import write_world
from selfflow_mm.errors import UserError


def test_the_command_writes_a_data_set_that_reads_back(tmp_path: Path) -> None:
    out = tmp_path / "room"
    command = ["make-world", "--split", "test", "--out", str(out), "--clips", "4", "--seed", "2"]
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
    write_world(tmp_path / "one", 10, 7, workers=1, progress=False)
    write_world(tmp_path / "two", 10, 7, workers=2, progress=False)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["dataset.json", "shard-000000.tar"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_in_use_is_refused_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert main(["make-world", "--out", str(tmp_path / "mine"), "--clips", "1"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*.*")] == ["thesis.txt"]
    with pytest.raises(UserError, match="clips=0"):
        write_world(tmp_path / "new", 0, 0)


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset.encode_clip

    def interrupted(index: int, **options: object) -> object:
        if index == 2:
            raise KeyboardInterrupt
        return made(index, **options)

    monkeypatch.setattr(dataset, "encode_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "world", 4, 0, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    write_world(tmp_path / "world", 1, 0, progress=False)
    assert len(ShardDataset(tmp_path / "world")) == 1
