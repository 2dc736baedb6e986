"""Which samples a comparison runs on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from selfflow_mm.data.shards import ShardDataset, ShardWriter
from selfflow_mm.data.writing import encode_png, encode_wav, write_audio, write_image
from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.media_set import MediaSet, held_out_places
from selfflow_mm.training.tokenizer_data import load_waveforms
from selfflow_tokenizers import Audio, Image, Video


def keys(media: MediaSet) -> list[str]:
    return [item.key for item in media if item is not None]


def test_all_samples_or_some_evenly_spread(small_clips: Path) -> None:
    assert keys(MediaSet([str(small_clips)], "picture")) == [f"{i:06d}" for i in range(10)]
    assert keys(MediaSet([str(small_clips)], "picture", most=4)) == ["000000", "000002", "000005", "000007"]
    media = MediaSet([str(small_clips)], "sound")
    assert keys(media) == [f"{i:06d}" for i in range(8)]
    assert media.left_out == ["000008", "000009"]
    first = media.first(2)
    assert [type(f.medium) for f in first] == [Audio, Audio] and first[1].caption == "clip 1"


def test_files_and_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "red.png", Image(torch.zeros(8, 8, 3, dtype=torch.uint8)))
    (tmp_path / "a" / "red.txt").write_text("all red\n")
    write_audio(tmp_path / "hum.wav", Audio(torch.zeros(1, 100), 8000))
    media = MediaSet([str(tmp_path / "a"), str(tmp_path / "hum.wav")], "picture")
    assert [(f.key, f.caption, type(f.medium)) for f in media.first(9)] == [("red.png", "all red", Image)]
    assert keys(MediaSet([str(tmp_path)], "sound")) == ["hum.wav"]


def test_a_videos_picture_comes_before_an_image(small_clips: Path) -> None:
    assert isinstance(MediaSet([str(small_clips)], "picture").first(1)[0].medium, Video)


@pytest.mark.parametrize(("most", "held_out"), [(40, 5), (17, 3), (9, 48)])
def test_held_out_samples_are_those_of_the_training(tmp_path: Path, most: int, held_out: int) -> None:
    """Sounds whose length is their number, every fifth sample without one: training's own loader is the truth."""
    with ShardWriter(tmp_path / "data", samples_per_shard=16, info={"modalities": ["audio", "image"]}) as writer:
        for i in range(33):
            sound = {"wav": encode_wav(Audio(torch.full((1, 100 + i), 0.1), 16_000))}
            picture = {"png": encode_png(Image(torch.zeros(4, 4, 3, dtype=torch.uint8)))}
            writer.add(f"{i:03d}", picture if i % 5 == 0 else sound, {"captions": [str(i)]})
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps({"data": {"max_clips": most, "held_out": held_out}}))
    media = MediaSet([str(tmp_path / "data")], "sound", split=f"run:{run}")
    ours = [item.medium.waveform.shape[1] for item in media if item is not None]
    truth = load_waveforms(ShardDataset(tmp_path / "data"), most, held_out, 16_000, 1)
    assert ours == [w.shape[1] for w in truth.held_out]
    assert len(truth.train) + len(ours) == len({*ours, *(w.shape[1] for w in truth.train)})


def test_held_out_places_are_apart() -> None:
    assert held_out_places(40, 4) == [5, 15, 25, 35]
    assert held_out_places(4, 48) == [2]


def test_what_cannot_be_used(small_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    data = str(small_clips)
    for sources, kind, split, sentence in (
        ([str(tmp_path / "none")], "sound", "all", "there is no"),
        ([str(tmp_path / "empty")], "sound", "all", "empty"),
        ([data], "picture", "half", "--split is"),
        ([data], "picture", f"run:{tmp_path}", "no config.yaml"),
        ([data, data], "picture", f"run:{tmp_path}", "the only --data"),
    ):
        with pytest.raises(UserError, match=sentence):
            MediaSet(sources, kind, split)
    with pytest.raises(UserError, match="not a media file"):
        MediaSet([str(tmp_path / "bad.wav")], "sound").first(1)
