"""Latents on disk against encoding the media directly; interruption, other tokenizers, samples without sound."""

from __future__ import annotations

import json

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.data import latents
from selfflow_mm.data.latents import LatentDataset, encode_dataset
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.errors import UserError
from selfflow_tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def tokenizers(small_tokenizers):
    video, audio = load_tokenizer(small_tokenizers["video"]), load_tokenizer(small_tokenizers["audio"])
    return {"image": video, "video": video, "audio": audio}


HASHES = {"image": "a", "video": "a", "audio": "b"}


def test_latents_are_those_of_the_media_and_keep_who_has_what(small_clips, tokenizers, tmp_path, capsys):
    data = ShardDataset(small_clips)
    encoded = encode_dataset(data, tokenizers, HASHES, tmp_path / "x")
    assert encoded.having(("video",)) == list(range(10))
    assert encoded.having(("video", "audio")) == list(range(8))  # the last two have no sound
    assert encoded.captions[3] == ("clip 3", "number 3")
    for modality in ("video", "audio"):
        direct = tokenizers[modality].encode([getattr(data[i], modality) for i in (5, 2)])
        stream = encoded.stream(modality, [5, 2])
        assert torch.allclose(stream.values, direct.values, atol=2e-3, rtol=2e-3)  # stored as float16
        assert torch.equal(stream.positions, direct.positions)
    frame = latents.media_of(data[5], "image").pixels
    assert any(torch.equal(frame, f) for f in data[5].video.frames)
    assert main(["inspect", str(tmp_path / "x")]) == 0
    assert "audio  8 samples of 15 tokens of 4 channels, tokenizer b" in capsys.readouterr().out


def test_an_interrupted_encoding_goes_on_and_gives_the_same(small_clips, tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "PART", 4)
    data = ShardDataset(small_clips)
    whole = encode_dataset(data, tokenizers, HASHES, tmp_path / "whole")
    real, calls = latents._encode, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(latents, "_encode", dies)
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(data, tokenizers, HASHES, tmp_path / "cut")
    assert not (tmp_path / "cut/latents.json").exists()
    before = len(calls)
    cut = encode_dataset(data, tokenizers, HASHES, tmp_path / "cut")
    assert len(calls) - before == 6 - 1  # three modalities in two parts, the last of which has no sound
    assert torch.equal(whole.stream("video", list(range(10))).values, cut.stream("video", list(range(10))).values)
    assert not list((tmp_path / "cut").glob("*.tmp"))


def test_latents_of_other_tokenizers_or_data_are_refused(small_clips, tokenizers, tmp_path):
    data = ShardDataset(small_clips)
    encode_dataset(data, tokenizers, HASHES, tmp_path / "x")
    with pytest.raises(UserError, match="latents of another tokenizers"):
        encode_dataset(data, tokenizers, HASHES | {"audio": "c"}, tmp_path / "x")
    with pytest.raises(UserError, match="latents of another samples"):
        encode_dataset(data, tokenizers, HASHES, tmp_path / "x", max_samples=5)
    about = json.loads((tmp_path / "x/latents.json").read_text())
    (tmp_path / "x/latents.json").write_text(json.dumps(about | {"version": 9}))
    with pytest.raises(UserError, match="version 9"):
        LatentDataset(tmp_path / "x")
