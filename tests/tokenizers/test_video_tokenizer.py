"""VideoTokenizer: positions, batches of different sizes, statistics, files, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import Audio, Image, TokenStream, UserError, Video, VideoTokenizer, load_tokenizer
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig

CONFIG = VideoAutoencoderConfig(latent_channels=3, fine_width=12, width=16, frame_width=8, fine_blocks=1, blocks=1)


def make(**settings) -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(VideoAutoencoder(CONFIG), **settings)


def clip(frames: int, height: int, width: int, fps: float = 16.0) -> Video:
    generator = torch.Generator().manual_seed(frames * height + width)
    return Video(torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=generator), fps)


def test_positions_are_the_centres_of_the_frames_covered() -> None:
    positions = make().positions(9, 32, 48, fps=10)
    assert positions.shape == (3 * 2 * 3, 4)
    # Frame n is shown from n/10 to (n+1)/10 s: frame 0 alone, then frames 1-4, then 5-8.
    expected = [0.05, (0.1 + 0.5) / 2, (0.5 + 0.9) / 2]
    torch.testing.assert_close(positions[::6, 0], torch.tensor(expected))
    assert positions[:6, 1].tolist() == [0, 0, 0, 1, 1, 1]
    assert positions[:6, 2].tolist() == [0, 1, 2, 0, 1, 2]
    assert not positions[:, 3].any()


def test_a_still_is_at_zero_seconds() -> None:
    tokenizer = make()
    assert not tokenizer.positions(1, 32, 32, fps=16)[:, 0].any()
    assert not tokenizer.encode([Image(clip(1, 32, 32).frames[0])]).positions[..., 0].any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2), st.integers(1, 2), st.integers(1, 3), st.sampled_from([8.0, 16.0, 23.976, 30.0]))
def test_decode_finds_size_and_rate(k: int, rows: int, columns: int, fps: float) -> None:
    tokenizer, video = make(), clip(1 + 4 * k, 16 * rows, 16 * columns, fps)
    stream = tokenizer.encode([video])
    assert stream.values.shape == (1, (1 + k) * rows * columns, tokenizer.spec.channels)
    (back,) = tokenizer.decode(stream, fps=None if k else fps)
    assert back.frames.shape == video.frames.shape
    assert back.fps == pytest.approx(fps, abs=2e-3)


def test_a_batch_of_different_media_is_each_alone() -> None:
    tokenizer = make()
    media = [clip(5, 32, 32), Image(clip(1, 16, 48).frames[0]), clip(9, 16, 16), clip(5, 32, 32, 8.0)]
    stream = tokenizer.encode(media)
    alone = [tokenizer.encode([m]) for m in media]
    for row, single in enumerate(alone):
        n = single.values.shape[1]
        torch.testing.assert_close(stream.values[row, :n], single.values[0], atol=1e-5, rtol=1e-4)
        assert torch.equal(stream.positions[row, :n], single.positions[0])
        assert stream.sample[row].tolist() == [0] * n + [-1] * (stream.values.shape[1] - n)
    shapes = [v.frames.shape for v in tokenizer.decode(stream, fps=16)]
    assert shapes == [(5, 32, 32, 3), (1, 16, 48, 3), (9, 16, 16, 3), (5, 32, 32, 3)]


def test_packed_samples_come_apart() -> None:
    tokenizer = make()
    a, b = tokenizer.encode([clip(5, 16, 32)]), tokenizer.encode([clip(1, 32, 16)])
    packed = TokenStream(
        torch.cat([a.values, b.values], 1),
        torch.cat([a.positions, b.positions], 1),
        torch.cat([a.sample, b.sample + 1], 1),
    )
    videos = tokenizer.decode(packed, fps=16)
    assert torch.equal(videos[0].frames, tokenizer.decode(a)[0].frames)
    assert torch.equal(videos[1].frames, tokenizer.decode_images(b)[0].pixels[None])


def test_a_token_holds_its_own_cells() -> None:
    """Patching: changing one token's values changes (for a model without blocks) its 16 x 16 pixels only."""
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(
        VideoAutoencoder(VideoAutoencoderConfig(latent_channels=3, fine_width=12, width=16, frame_width=8, blocks=0,
                                                fine_blocks=0, frame_blocks=0))
    )  # fmt: skip
    values = torch.zeros(1, 4, 12)
    before = tokenizer.decode_batch(values, 2, 2)
    values[0, 1] = 50.0
    changed = (tokenizer.decode_batch(values, 2, 2) != before).any(-1)[0, 0]
    assert changed[:16, 16:].any()
    assert not changed[16:].any() and not changed[:, :16].any()


def test_values_are_standardised_by_the_spec() -> None:
    raw = make()
    media = [clip(9, 32, 32)]
    latents = raw.encode(media).values.view(-1, 4, 3)
    mean, deviation = latents.mean((0, 1)), latents.std((0, 1))
    tokenizer = make(mean=mean, deviation=deviation)
    values = tokenizer.encode(media).values.view(-1, 4, 3)
    torch.testing.assert_close(values.mean((0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std((0, 1)), torch.ones(3), atol=1e-4, rtol=0)
    difference = (
        tokenizer.decode(tokenizer.encode(media))[0].frames.int() - raw.decode(raw.encode(media))[0].frames.int()
    )
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_saved_and_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    tokenizer = make(mean=torch.tensor([0.1, 0.2, 0.3]), deviation=torch.tensor([1.0, 2.0, 3.0]), train_shift=1.5)
    tokenizer.save_pretrained(tmp_path / "t", dtype=dtype)
    again = load_tokenizer(tmp_path / "t")
    assert isinstance(again, VideoTokenizer)
    assert again.spec == tokenizer.spec and again.patch == tokenizer.patch
    assert next(again.model.parameters()).dtype == torch.float32
    tolerance = 0 if dtype == torch.float32 else 2e-2
    media = [clip(5, 32, 16)]
    torch.testing.assert_close(again.encode(media).values, tokenizer.encode(media).values, atol=tolerance, rtol=0)
    assert (tmp_path / "t/model.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it
    again.save_pretrained(tmp_path / "u")  # as it was stored
    assert (tmp_path / "u/model.safetensors").read_bytes() == (tmp_path / "t/model.safetensors").read_bytes()


def test_the_name_tells_weights_apart() -> None:
    torch.manual_seed(1)
    other = VideoTokenizer(VideoAutoencoder(CONFIG))
    assert other.spec.name != make().spec.name == make().spec.name


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 10), st.integers(1, 40), st.integers(1, 40))
def test_odd_sizes_are_filled_up_and_cropped_back(frames: int, height: int, width: int) -> None:
    tokenizer, video = make(), clip(frames, height, width, 23.976)
    filled = tokenizer.filled(frames, height, width)
    stream = tokenizer.encode([video])
    assert stream.values.shape[1] == (1 + (filled[0] - 1) // 4) * (filled[1] // 16) * (filled[2] // 16)
    (back,) = tokenizer.decode(stream)
    assert isinstance(back, Video) and back.fps == 23.976
    assert back.frames.shape == video.frames.shape
    # The tokens are those of the clip with its last frame, row and column repeated.
    index = [torch.arange(full).clamp(max=size - 1) for full, size in zip(filled, (frames, height, width), strict=True)]
    by_hand = video.frames[index[0]][:, index[1]][:, :, index[2]]
    if frames > 1:
        assert torch.equal(tokenizer.encode([Video(by_hand, 23.976)]).values, stream.values)


def test_what_went_in_comes_out() -> None:
    """Images as images, clips at their rate and size, in the order of a mixed batch."""
    tokenizer = make()
    media = [clip(1, 20, 20, 7.0), Image(clip(1, 17, 30).frames[0]), clip(6, 16, 16, 30.0)]
    back = tokenizer.decode(tokenizer.encode(media))
    assert [type(m) for m in back] == [Video, Image, Video]
    assert [m.fps for m in back if isinstance(m, Video)] == [7.0, 30.0]
    assert back[0].frames.shape == (1, 20, 20, 3) and back[1].pixels.shape == (17, 30, 3)
    assert [e.frames for e in tokenizer.encode(media).extents] == [1, 1, 6]


def test_an_image_codec_takes_clips_frame_by_frame() -> None:
    torch.manual_seed(0)
    sizes = dict(latent_channels=3, fine_width=12, width=16, frame_width=8, fine_blocks=1, blocks=1)
    tokenizer = VideoTokenizer(VideoAutoencoder(VideoAutoencoderConfig(time_compression=1, **sizes)), patch=1)
    assert tokenizer.spec.modality == "image" and tokenizer.spec.time_compression == 1
    video = clip(3, 16, 8)
    stream = tokenizer.encode([video])
    alone = tokenizer.encode([Image(frame) for frame in video.frames])
    torch.testing.assert_close(stream.values.view(3, 2, 3), alone.values, atol=1e-5, rtol=0)
    # Frame n is shown from n / 16 to (n + 1) / 16 s.
    torch.testing.assert_close(stream.positions[0, ::2, 0], (torch.arange(3) + 0.5) / 16)
    assert tokenizer.decode(stream)[0].frames.shape == video.frames.shape


def test_patching_is_a_wrapper() -> None:
    """2 x 2 patches hold the values of four cells; statistics go with their channels."""
    fine = make(patch=1, mean=torch.tensor([0.1, 0.2, 0.3]), deviation=torch.tensor([1.0, 2.0, 3.0]))
    coarse = fine.patched(2)
    assert coarse.spec.channels == 12 and coarse.spec.space_compression == 16
    assert coarse.spec.name == fine.spec.name
    media = [clip(5, 32, 48)]
    cells = fine.encode(media).values.view(2, 4, 6, 3)
    tokens = coarse.encode(media).values.view(2, 2, 3, 2, 2, 3)
    torch.testing.assert_close(tokens, cells.unflatten(1, (2, 2)).unflatten(3, (3, 2)).transpose(2, 3))
    assert torch.equal(coarse.decode(coarse.encode(media))[0].frames, fine.decode(fine.encode(media))[0].frames)


def test_mistakes_are_said() -> None:
    tokenizer = make()
    stream = tokenizer.encode([clip(5, 32, 32)])
    with pytest.raises(UserError, match="list"):
        tokenizer.encode(clip(5, 16, 16))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="grid"):
        tokenizer.decode(TokenStream.dense(stream.values[:, :-1], stream.positions[:, :-1]))
    with pytest.raises(UserError, match="channels"):
        tokenizer.decode(stream.with_values(stream.values[..., :5]))
    still = tokenizer.encode([clip(1, 16, 16)])
    with pytest.raises(UserError, match="fps"):
        tokenizer.decode(TokenStream.dense(still.values, still.positions))
    with pytest.raises(UserError, match="images and videos"):
        tokenizer.encode([Audio(torch.zeros(1, 5), 16000)])
    with pytest.raises(UserError, match="NaN"):
        tokenizer.decode(still.with_values(still.values * float("nan")))
    with pytest.raises(UserError, match="one frame"):
        tokenizer.decode_images(stream)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not the config of a tokenizer"),
        ({"class": "Else"}, "Else"),
        ({"model": {"latent_channels": 3, "depth": 2}}, "depth"),
        ({"model": {"latent_channels": 5}}, "weights"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    make().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.json"):
        load_tokenizer(tmp_path / "nowhere")
    make().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="weights"):
        load_tokenizer(tmp_path)
