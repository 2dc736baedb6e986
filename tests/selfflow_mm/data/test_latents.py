"""Latents on disk against encoding the media directly; other tokenizers, samples without sound, damaged folders."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from selfflow_mm.cli.main import main
from selfflow_mm.data.encode_batch import media_of
from selfflow_mm.data.encode_dataset import encode_dataset
from selfflow_mm.data.latents import LatentDataset
from selfflow_mm.data.shards import Members, Sample, ShardDataset
from selfflow_mm.errors import UserError
from selfflow_tokenizers import load_tokenizer
from selfflow_tokenizers.media import Audio, Video


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


def test_clips_of_several_sizes_are_what_each_is_alone(mixed_clips, tokenizers, tmp_path, capsys):
    """Plain tars of mixed sizes: values and positions of every sample are those of encoding it by itself."""
    data = ShardDataset(mixed_clips)
    latents = encode_dataset(data, tokenizers, HASHES, tmp_path / "x")
    for modality in ("image", "video", "audio"):
        assert latents.having((modality,)) == list(range(6 if modality == "audio" else 12))
        for i in latents.having((modality,)):
            alone = tokenizers[modality].encode([media_of(data[i], modality)])
            stream = latents.stream(modality, [i])
            assert torch.allclose(stream.values, alone.values, atol=2e-3, rtol=2e-3)  # stored as float16
            assert torch.equal(stream.positions, alone.positions) and stream.full
            assert torch.equal(latents.place(modality, i), alone.positions[0])
            assert latents.tokens(modality, i) == alone.values.shape[1]
    # The last two have as many tokens, on other grids.
    wide = [1, 5, 7, 11]
    assert latents.buckets(("video",)) == {
        "video 3x2x2": [0, 2, 4, 6, 8, 10],
        "video 2x1x3": wide,
        "video 2x3x1": [3, 9],
    }
    assert latents.buckets(("video", "audio")) == {
        "video 3x2x2 + audio 15": [0, 2, 4],
        "video 2x1x3 + audio 8": [1, 5],
        "video 2x3x1 + audio 8": [3],
    }
    assert latents.buckets(("audio",)) == {"audio 15": [0, 2, 4], "audio 8": [1, 3, 5]}
    assert latents.stream("video", wide).values.shape[:2] == (4, 6)
    with pytest.raises(UserError, match=r"differ in shape \(video 2x1x3 and video 2x3x1\)"):
        latents.stream("video", [1, 3])
    few = LatentDataset(tmp_path / "x", max_samples=2)
    assert few.buckets(("video",)) == {"video 3x2x2": [0], "video 2x1x3": [1]}
    about = json.loads((tmp_path / "x/latents.json").read_text())
    assert about["version"] == 2 and about["sizes"] == {
        "frames": 9, "height": 32, "width": 32, "fps": 16.0, "samples": 9000
    }  # fmt: skip
    assert about["shapes"]["video"][2] == {"tokens": 6, "grid": "2x3x1", "samples": 2}
    assert main(["inspect", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().out
    assert "video  12 samples of 6 to 12 tokens" in said and "    video 2x3x1: 2 samples of 6 tokens" in said


def test_a_data_set_of_one_size_is_of_version_1(small_clips, tokenizers, tmp_path):
    """What an earlier release reads, it goes on reading."""
    encode_dataset(ShardDataset(small_clips), tokenizers, HASHES, tmp_path / "x")
    about = json.loads((tmp_path / "x/latents.json").read_text())
    assert about["version"] == 1 and "shapes" not in about
    tensors = load_file(tmp_path / "x/part-00000.safetensors")
    assert sorted(tensors) == sorted(f"{m}.{n}" for m in HASHES for n in ("ids", "positions", "values"))
    assert sorted(load_file(tmp_path / "x/positions.safetensors")) == sorted(HASHES)


@settings(max_examples=8)
@given(
    clips=st.lists(
        st.tuples(*[st.integers(1, 12)] + [st.integers(1, 24)] * 2, st.sampled_from([8.0, 16.0])), max_size=6
    ),
    sounds=st.lists(st.integers(1, 3000), max_size=6),
)
def test_any_sizes_are_encoded_as_alone(clips, sounds, tokenizers, tmp_path_factory):
    """Sizes that fill no whole tokens, one frame, other rates: in batches of three, against each by itself."""
    root = tmp_path_factory.mktemp("sizes")
    generator = torch.Generator().manual_seed(0)
    media: list[Video | Audio] = [Audio(torch.rand(2, n, generator=generator) - 0.5, 16000) for n in [700, *sounds]]
    media += [Video(torch.randint(0, 256, (*shape, 3), generator=generator).byte(), fps) for *shape, fps in clips]

    class Held:
        """Media in memory, as a data set gives them."""

        folder, info = root, {"modalities": ["video", "audio"]}

        def __len__(self) -> int:
            return len(media)

        def __getitem__(self, i: int) -> Sample:
            return Sample(i, str(i), **{"video" if isinstance(media[i], Video) else "audio": media[i]})

        def key(self, i: int) -> str:
            return str(i)

        def members(self, i: int) -> Members:
            return Members(root / "none.tar", {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfflow_mm.data.latent_parts.BATCH", 3)
        latents = encode_dataset(Held(), tokenizers, HASHES, root / "x")
    assert latents.left_out == []
    for i, medium in enumerate(media):
        modality = "video" if isinstance(medium, Video) else "audio"
        alone = tokenizers[modality].encode([medium])
        stream = latents.stream(modality, [i])
        assert torch.allclose(stream.values, alone.values, atol=4e-3, rtol=2e-3)
        assert torch.allclose(stream.positions, alone.positions, atol=2e-4)
    for modality, count in (("video", len(clips)), ("audio", len(sounds) + 1)):
        found = latents.buckets((modality,))
        assert sorted(i for ids in found.values() for i in ids) == latents.having((modality,))
        assert len(latents.having((modality,))) == count
        for ids in found.values():
            latents.stream(modality, ids)
