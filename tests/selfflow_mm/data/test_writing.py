"""Written media are what other readers, the arithmetic and the clock say they should be."""

from __future__ import annotations

import io
import wave

import av
import decord
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from selfflow_mm.data.reading import read_media
from selfflow_mm.data.writing import (
    encode_mp4,
    encode_png,
    encode_wav,
    match_length,
    write_audio,
    write_image,
    write_video,
)
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Image, Video


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 2), (16_000, 1), (44_100, 2), (48_000, 2), (20_000, 2)])
def test_clicks_stay_in_place(ramp, clicks, click_error, rate, channels, fast):
    times = (0.3, 0.5 + 1 / 3, 1.25, 2.0)
    audio = clicks(33 / 16, times, rate, channels)
    back = read_media(encode_mp4(ramp(), audio, fast=fast)).audio
    assert back.waveform.shape[0] == channels
    for time in times:
        assert abs(click_error(back, time)) <= 0.001


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 9),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    fps=st.sampled_from([8.0, 16.0, 24.0, 30000 / 1001]),
    length=st.floats(0.01, 3),
    fast=st.booleans(),
)
def test_picture_and_sound_have_equal_length(ramp, frames, height, width, fps, length, fast):
    video = ramp(frames, height, width, fps)
    samples = max(1, round(length * video.seconds * 16_000))
    clip = read_media(encode_mp4(video, Audio(torch.rand(2, samples) - 0.5, 16_000), fast=fast))
    assert clip.video.frames.shape == (frames, height + height % 2, width + width % 2, 3)
    assert clip.video.fps == pytest.approx(fps, rel=1e-6)
    assert clip.audio.waveform.shape == (2, round(video.seconds * 16_000))


def test_odd_sizes_repeat_the_last_line():
    pixels = torch.zeros(1, 33, 33, 3, dtype=torch.uint8)
    pixels[:, -1], pixels[:, :, -1] = 200, 200
    frame = read_media(encode_mp4(Video(pixels, 16.0), crf=1)).video.frames[0].int()
    assert frame.shape == (34, 34, 3)
    assert (frame[32:] > 150).all() and (frame[:, 32:] > 150).all() and (frame[:30, :30] < 50).all()


COLOURS = torch.tensor([[200, 30, 90], [10, 240, 20], [20, 30, 220], [255, 255, 255], [0, 0, 0], [128, 128, 128]])


@pytest.mark.parametrize("fast", [False, True])
def test_colours(fast):
    video = Video(COLOURS.to(torch.uint8).view(6, 1, 1, 3).expand(6, 64, 64, 3).contiguous(), 16.0)
    data = encode_mp4(video, crf=4, fast=fast)
    ours = read_media(data).video.frames[:, 32, 32].int()
    assert (ours - COLOURS).abs().max() <= 4  # 8-bit Y'CbCr rounds, and so does the codec
    theirs = np.stack([frame.asnumpy()[32, 32] for frame in decord.VideoReader(io.BytesIO(data))]).astype(int)
    assert np.abs(theirs - COLOURS.numpy()).max() <= 8  # its conversion is cruder
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)  # BT.709


def test_index_is_in_front_and_bytes_repeat(ramp, clicks):
    first, second = (encode_mp4(ramp(), clicks(1, [0.5]), fast=True) for _ in range(2))
    assert first.index(b"moov") < first.index(b"mdat")
    assert first == second


def test_wav_is_read_by_the_standard_library(tmp_path):
    values = torch.tensor([[0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 1 / 32768], [0.25] * 7])
    write_audio(tmp_path / "a.wav", Audio(values, 8000))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (2, 2, 8000, 7)
        pcm = np.frombuffer(file.readframes(7), "<i2").reshape(7, 2)
    assert pcm[:, 0].tolist() == [0, 16384, -16384, 32767, -32768, 32767, 1]
    back = read_media(tmp_path / "a.wav").audio
    assert torch.equal(back.waveform, torch.from_numpy(pcm.T / 32768).float()) and back.rate == 8000


@settings(max_examples=20, deadline=None)
@given(channels=st.integers(1, 2), samples=st.integers(1, 5000), rate=st.sampled_from([8000, 16000, 22050, 48000]))
def test_wav_round_trip(channels, samples, rate):
    audio = Audio(torch.rand(channels, samples) * 2 - 1, rate)
    back = read_media(encode_wav(audio)).audio
    assert back.waveform.shape == audio.waveform.shape and back.rate == rate
    assert (back.waveform - audio.waveform).abs().max() <= 1 / 32768


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_png_is_lossless(height, width):
    image = Image(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8))
    data = encode_png(image)
    assert np.array_equal(np.array(PillowImage.open(io.BytesIO(data))), image.pixels.numpy())
    assert torch.equal(read_media(data).image.pixels, image.pixels)


def test_match_length():
    audio = Audio(torch.ones(1, 100), 100)
    assert match_length(audio, 0.5).waveform.shape == (1, 50)
    longer = match_length(audio, 1.25).waveform
    assert longer.shape == (1, 125) and longer[0, :100].eq(1).all() and longer[0, 100:].eq(0).all()


def test_refusals_leave_nothing_behind(tmp_path, ramp):
    video, nan = ramp(2), Audio(torch.full((1, 100), float("nan")), 16_000)
    many = Audio(torch.zeros(9, 100), 16_000)
    for path, sound, message in (
        ("a.avi", None, "end it in .mp4"),
        ("a.mp4", nan, "finite"),
        ("a.mp4", many, "channels"),
    ):
        with pytest.raises(UserError, match=message):
            write_video(tmp_path / path, video, sound)
    with pytest.raises(UserError, match="crf"):
        write_video(tmp_path / "a.mp4", video, crf=52)
    with pytest.raises(UserError, match=".wav"):
        write_audio(tmp_path / "a.mp3", many)
    assert list(tmp_path.iterdir()) == []
    write_video(tmp_path / "new" / "a.mp4", video)
    write_image(tmp_path / "new" / "a.png", Image(video.frames[0]))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.mp4", "a.png"]
