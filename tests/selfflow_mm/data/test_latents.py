"""Latents on disk against encoding the media directly; other tokenizers, samples without sound, damaged folders."""

from __future__ import annotations

import json

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.data.encode_batch import media_of
from selfflow_mm.data.encode_dataset import encode_dataset
from selfflow_mm.data.latents import LatentDataset
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
    frame = media_of(data[5], "image").pixels
    assert any(torch.equal(frame, f) for f in data[5].video.frames)
    assert main(["inspect", str(tmp_path / "x")]) == 0
    assert "audio  8 samples of 15 tokens of 4 channels, tokenizer audio-" in (said := capsys.readouterr().out)
    assert " (hash b)" in said


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


def test_a_folder_that_was_not_copied_whole_is_refused(small_clips, tokenizers, tmp_path):
    folder = tmp_path / "x"
    encode_dataset(ShardDataset(small_clips), tokenizers, HASHES, folder)
    part = folder / "part-00000.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="part-00000.safetensors is missing or damaged"):
        LatentDataset(folder)
    part.unlink()
    with pytest.raises(UserError, match="holds 0 parts, its latents.json says 1"):
        LatentDataset(folder)
