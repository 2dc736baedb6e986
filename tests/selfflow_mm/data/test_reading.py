"""Media read back are upright, of constant rate and in step, compared with known content and with decord."""

from __future__ import annotations

import io
from fractions import Fraction

import decord
import numpy as np
import pytest
import scipy.io.wavfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from selfflow_mm.data.mediafile import MediaFile, Notes
from selfflow_mm.data.reading import read_media
from selfflow_mm.data.resampling import constant_rate, mix_channels, resample
from selfflow_mm.data.writing import encode_mp4
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Video

LEVELS = [20 + 9 * i for i in range(25)]


def levels_of(video: Video) -> np.ndarray:
    return video.frames.float().mean((1, 2, 3)).numpy()


@pytest.mark.parametrize(
    ("name", "video_codec", "audio_codec", "rate"),
    [
        ("a.mp4", "libx264", "aac", 16_000),
        ("a.mkv", "libx264", "aac", 48_000),
        ("a.mkv", "libx264", "libopus", 48_000),
        ("a.webm", "libvpx", "libopus", 48_000),
        ("a.mov", "mpeg4", "libmp3lame", 44_100),
        ("a.ts", "libx264", "aac", 48_000),
    ],
)
def test_containers_and_codecs(tmp_path, make_file, clicks, click_error, name, video_codec, audio_codec, rate):
    audio = clicks(1.0, [0.25, 0.7], rate, 1)
    path = make_file(tmp_path / name, LEVELS, audio=audio, video_codec=video_codec, audio_codec=audio_codec)
    for source in (path, str(path), path.read_bytes(), open(path, "rb")):
        clip = read_media(source)
        assert clip.video.frames.shape == (25, 32, 48, 3) and clip.video.fps == pytest.approx(25)
        assert np.abs(levels_of(clip.video) - LEVELS).max() < 4
        assert clip.audio.rate == rate and clip.audio.waveform.shape[0] == 1
        assert all(abs(click_error(clip.audio, t)) <= 0.0011 for t in (0.25, 0.7))


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.opus", "libopus")])
def test_sounds(tmp_path, make_file, clicks, click_error, name, codec):
    path = make_file(tmp_path / name, audio=clicks(1.0, [0.4], 48_000, 1), audio_codec=codec)
    clip = read_media(path)
    assert clip.video is None and clip.audio.waveform.shape == (1, 48_000)
    assert abs(click_error(clip.audio, 0.4)) <= 0.001


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_sample_formats(tmp_path, kind):
    """Stereo WAV files of every sample type, written by scipy, come back as fractions of full scale."""
    wave = np.stack([np.linspace(-0.9, 0.9, 3000), np.zeros(3000)], axis=1)
    scale = 1 if kind is np.float32 else 2.0 ** (8 * np.dtype(kind).itemsize - 1)
    stored = np.round(wave * scale) if scale > 1 else wave
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, (stored + (128 if kind is np.uint8 else 0)).astype(kind))
    audio = read_media(tmp_path / "a.wav").audio
    assert audio.waveform.shape == (2, 3000) and audio.waveform.dtype == torch.float32
    assert np.abs(audio.waveform.numpy() - wave.T).max() <= (0.5 / scale if scale > 1 else 0) + 1e-6


def test_variable_frame_rate_takes_the_nearest_time_stamp(tmp_path, make_file):
    stamps = np.cumsum([0, 40, 40, 40, 120, 20, 20, 20, 20, 200, 40, 40, 80, 40, 40]).tolist()
    path = make_file(tmp_path / "vfr.mkv", LEVELS[:15], stamps)
    clip = read_media(path)
    expected = [LEVELS[int(np.abs(np.array(stamps) / 1000 - k / clip.video.fps).argmin())] for k in range(15)]
    got = levels_of(clip.video)[:15]
    assert np.abs(got - expected[: len(got)]).max() < 4
    assert any(note.startswith("variable frame rate") for note in clip.notes)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.005, 0.5), min_size=1, max_size=20), st.floats(1, 60))
def test_constant_rate_is_nearest_neighbour(steps, fps):
    times = np.concatenate([[0], np.cumsum(steps)])
    items = [(t, 0.04, i) for i, t in enumerate(times)]
    out = list(constant_rate(items, fps))
    assert len(out) >= max(1, round((times[-1] + 0.04) * fps))
    for k, chosen in enumerate(out):
        assert abs(times[chosen] - k / fps) <= np.abs(times - k / fps).min() + 1e-9


def test_constant_rate_keeps_what_is_constant():
    items = [(k / 16, 1 / 16, k) for k in range(100)]
    assert list(constant_rate(items, 16.0)) == list(range(100))


TURNS = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0)]


@pytest.mark.parametrize("turn", TURNS)
def test_display_matrix(tmp_path, turn, set_display_matrix):
    """A bright corner goes where the matrix sends it: (x, y) -> (ax + cy, bx + dy)."""
    pixels = torch.zeros(2, 32, 64, 3, dtype=torch.uint8)
    pixels[:, :16, 48:] = 240  # right and up: (+1, -1) from the centre
    path = tmp_path / "turned.mp4"
    path.write_bytes(encode_mp4(Video(pixels, 16.0), crf=4))
    set_display_matrix(path, turn)
    clip = read_media(path)
    a, b, c, d = turn
    height, width = (32, 64) if a else (64, 32)
    assert clip.video.frames.shape == (2, height, width, 3)
    x, y = a - c, b - d
    row, column = (height - 5 if y > 0 else 4), (width - 5 if x > 0 else 4)
    assert (clip.video.frames[:, row, column] > 200).all()
    assert (clip.video.frames[:, height - 1 - row, column] < 40).all()
    assert ("rotated: turned upright" in clip.notes) == (turn != TURNS[0])


def test_streams_that_start_apart_are_aligned(tmp_path, make_file, clicks, click_error):
    audio = clicks(1.0, [0.5], 48_000, 1)
    late = read_media(make_file(tmp_path / "late.mkv", LEVELS, audio=audio, audio_start=0.25, audio_codec="flac"))
    assert abs(click_error(late.audio, 0.75)) <= 0.001
    assert late.audio.waveform[0, :12_000].abs().max() == 0
    stamps = [300 + 40 * i for i in range(25)]
    early = read_media(make_file(tmp_path / "early.mkv", LEVELS, stamps, audio, audio_codec="flac"))
    assert abs(click_error(early.audio, 0.2)) <= 0.001
    assert all(any(n.startswith("offset") for n in clip.notes) for clip in (late, early))


def test_pixels_that_are_not_square_are_noted(tmp_path, make_file):
    path = make_file(tmp_path / "wide.mp4", LEVELS, aspect=Fraction(2, 1))
    clip = read_media(path)
    assert any(note.startswith("not square") for note in clip.notes) and clip.video.frames.shape[1:3] == (32, 48)
    with MediaFile(path, Notes()) as file:
        shapes = []
        next(file.frames(lambda height, width: shapes.append((height, width)) or (16, 48)))
    assert shapes == [(32.0, 96.0)]


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_damage(tmp_path, make_file, ramp, kind):
    """Wherever a file is cut off, nine tenths of it come back or it is refused."""
    if kind == "mkv":
        data = make_file(tmp_path / "a.mkv", [20 + i for i in range(200)], video_codec="mpeg4").read_bytes()
    else:
        data = encode_mp4(ramp(200, step=1))
    kept = []
    for percent in range(30, 100, 3):
        try:
            kept.append(read_media(data[: len(data) * percent // 100]).video.frames.shape[0])
        except UserError as error:
            assert "damaged" in str(error)
            kept.append(0)
    assert kept[0] == 0 and max(kept) > 180 and len(set(kept)) > 1
    assert all(count == 0 or count >= 0.9 * 200 - 6 for count in kept)


def test_what_is_no_medium(tmp_path):
    for data in (b"", b"hello", b"\xff\xd8\xff broken jpeg", bytes(1000)):
        with pytest.raises(UserError):
            read_media(data)
    with pytest.raises(UserError, match="no file"):
        read_media(tmp_path / "missing.mp4")


def test_stills(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255, 0, 0
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # shown turned 90 degrees clockwise
    PillowImage.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    clip = read_media(tmp_path / "turned.png")
    assert clip.image.pixels.shape == (6, 4, 3) and clip.image.pixels[0, 3].tolist() == [255, 0, 0]
    assert clip.notes == ("rotated: turned upright",)
    PillowImage.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = read_media(tmp_path / "clear.png")
    assert clear.image.pixels.eq(255).all() and clear.notes[0].startswith("transparent")
    PillowImage.fromarray(np.full((2, 2), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert read_media(tmp_path / "deep.png").image.pixels.eq(0x80).all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([8000, 11025, 44_100, 48_000]), st.integers(1500, 5000), st.integers(1, 3))
def test_resample_is_a_sine_again(rate, samples, channels):
    """A tone far below both limits comes out as the same tone at the new rate, in amplitude and phase."""
    time = torch.arange(samples, dtype=torch.float64) / rate
    tone = torch.sin(2 * torch.pi * 440 * time).float().expand(channels, -1)
    out = resample(Audio(tone, rate), 16_000)
    assert out.waveform.shape == (channels, round(samples * 16_000 / rate)) and out.rate == 16_000
    new_time = torch.arange(out.waveform.shape[1], dtype=torch.float64) / 16_000
    inside = slice(100, -100)
    error = out.waveform[:, inside] - torch.sin(2 * torch.pi * 440 * new_time).float()[inside]
    assert error.abs().max() < 0.02


def test_mix_channels():
    mono = Audio(torch.rand(1, 50), 8000)
    assert torch.equal(mix_channels(mono, 2).waveform, mono.waveform.expand(2, 50))
    stereo = Audio(torch.stack([torch.ones(50), torch.zeros(50)]), 8000)
    assert torch.allclose(mix_channels(stereo, 1).waveform, torch.full((1, 50), 0.5))
    surround = torch.zeros(6, 50)
    surround[2] = 1.0  # front centre
    left, right = mix_channels(Audio(surround, 8000), 2).waveform
    assert torch.equal(left, right) and 0.2 < left[10] < 1
    surround = torch.zeros(6, 50)
    surround[0] = 1.0  # front left
    left, right = mix_channels(Audio(surround, 8000), 2).waveform
    assert left[10] > 0.3 and right.abs().max() == 0


@pytest.mark.parametrize("name", ["flipping_a_pancake.mkv", "rotated_90_no_audio.mov"])
def test_frames_agree_with_decord(shared, name):
    path = shared(f"clips/{name}")
    ours = read_media(path).video
    theirs = decord.VideoReader(str(path))
    assert len(theirs) == ours.frames.shape[0] and theirs.get_avg_fps() == pytest.approx(ours.fps, rel=0.01)
    for index in (0, len(theirs) // 2, len(theirs) - 1):
        difference = theirs[index].asnumpy().astype(float) - ours.frames[index].numpy()
        assert np.abs(difference).mean() < 2  # decord's colours are about 1.2 levels darker


def test_real_files(shared):
    with pytest.raises(UserError, match="damaged"):
        read_media(shared("clips/corrupted.mp4"))
    dog = read_media(shared("clips/dog.wav"))
    rate, pcm = scipy.io.wavfile.read(shared("clips/dog.wav"))
    assert dog.audio.rate == rate and np.allclose(dog.audio.waveform.numpy(), pcm.T / 32768, atol=1e-7)
    with open(shared("clips/dog.wav"), "rb") as file:
        assert torch.equal(read_media(io.BytesIO(file.read())).audio.waveform, dog.audio.waveform)
