"""Sound read, resampled and written piece by piece is the sound as a whole."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.data.mediafile import MediaFile, Notes
from selfflow_mm.data.movie import MovieWriter, WavWriter
from selfflow_mm.data.reading import read_media
from selfflow_mm.data.resampling import resample, resample_pieces
from selfflow_mm.data.writing import encode_wav, write_audio, write_video
from selfflow_mm.errors import UserError
from selfflow_tokenizers import Audio


@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    st.sampled_from([(8000, 16_000), (44_100, 16_000), (16_000, 48_000), (16_000, 16_000)]),
)
def test_resampling_in_pieces_is_resampling_the_whole(sizes: list[int], rates: tuple[int, int]) -> None:
    whole = Audio(torch.rand(2, sum(sizes)) - 0.5, rates[0])
    pieces = [Audio(part, rates[0]) for part in whole.waveform.split(sizes, dim=1)]
    found = torch.cat([piece.waveform for piece in resample_pieces(pieces, rates[1])], dim=1)
    assert torch.equal(found, resample(whole, rates[1]).waveform)
    assert found.shape[1] == max(1, round(sum(sizes) * rates[1] / rates[0]))


def test_no_pieces_give_none() -> None:
    assert list(resample_pieces([], 8000)) == []


@pytest.mark.parametrize("start", [0.0, 0.5, -0.3])
def test_blocks_of_a_sound_are_in_step_with_the_picture(make_file, clicks, tmp_path: Path, start: float) -> None:
    sound = clicks(2.0, (0.9, 1.4), 16_000, 2)
    shift = max(0.0, -start)  # time stamps are not negative: then the picture begins later
    stamps = [round(1000 * (shift + i / 10)) for i in range(20)]
    path = make_file(
        tmp_path / "clip.mp4", levels=[10 * i for i in range(20)], stamps=stamps, audio=sound, audio_start=start + shift
    )
    with MediaFile(path, Notes()) as file:
        blocks = list(file.sound_blocks())
    whole = read_media(path).audio
    assert len(blocks) > 5 or len(blocks) == 1
    assert torch.equal(torch.cat([b.waveform for b in blocks], dim=1), whole.waveform)
    assert whole.waveform.shape[1] == pytest.approx(32_000 + start * 16_000, abs=2048)


def test_a_movie_in_pieces_is_the_movie(ramp, clicks, tmp_path: Path) -> None:
    video, sound = ramp(33, 31, 48), clicks(33 / 16, (0.5, 1.0))
    write_video(tmp_path / "whole.mp4", video, sound)
    with MovieWriter(tmp_path / "pieces.mp4", 31, 48, 16.0, (16_000, 2)) as movie:
        for frames, wave in zip(video.frames.split(10), sound.waveform.split(10_000, dim=1), strict=True):
            movie.add_frames(frames)
            movie.add_sound(wave)
    whole, pieces = (read_media(tmp_path / name) for name in ("whole.mp4", "pieces.mp4"))
    assert torch.equal(whole.video.frames, pieces.video.frames)
    assert torch.equal(whole.audio.waveform, pieces.audio.waveform)
    with av.open(str(tmp_path / "pieces.mp4")) as file:
        assert [s.codec_context.name for s in file.streams] == ["h264", "aac"]


def test_a_wav_in_pieces_is_the_wav(tmp_path: Path) -> None:
    sound = Audio(torch.rand(2, 5000) * 3 - 1.5, 8000)
    with WavWriter(tmp_path / "pieces.wav", 8000, 2) as wav:
        for part in sound.waveform.split(700, dim=1):
            wav.add_sound(part)
    assert (tmp_path / "pieces.wav").read_bytes() == encode_wav(sound)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="crf"):
        MovieWriter(tmp_path / "a.mp4", 16, 16, 8.0, crf=60)
    with pytest.raises(UserError, match="9"):
        MovieWriter(tmp_path / "a.mp4", 16, 16, 8.0, (16_000, 9))
    with pytest.raises(UserError, match="not finite"):
        write_audio(tmp_path / "a.wav", Audio(torch.full((1, 5), float("nan")), 8000))
    assert list(tmp_path.iterdir()) == []
