"""Film strips show the frames they say; spectrograms show a tone at its pitch and time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.evaluation.pictures import film_strip, mel_spectrogram_db, spectrogram
from selfflow_tokenizers.media import Audio, Video


def _tone(hertz: float, seconds: float = 1.0, rate: int = 16000, channels: int = 2) -> Audio:
    time = torch.arange(round(seconds * rate)) / rate
    return Audio(torch.sin(2 * math.pi * hertz * time).expand(channels, -1).contiguous(), rate)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(2, 40), st.integers(2, 40))
def test_a_film_strip_shows_first_to_last(count: int, n: int, height: int, width: int) -> None:
    shades = torch.arange(count, dtype=torch.uint8) * 6
    video = Video(shades[:, None, None, None].expand(count, height, width, 3).contiguous(), 16)
    strip = np.asarray(film_strip(video, n=n, height=32))
    assert strip.shape[0] == 32 and strip.shape[2] == 4
    shown = strip[16][strip[16][:, 3] == 255][:, 0]  # one row, without the gaps
    found = shown[np.insert(np.diff(shown.astype(int)) != 0, 0, True)]
    assert len(found) == min(n, count)
    assert found[0] == 0 and list(found) == sorted(found)
    if n > 1:
        assert found[-1] == shades[-1]


def test_a_film_strip_of_a_whole_multiple_of_the_height_keeps_pixels() -> None:
    video = Video(torch.randint(0, 256, (3, 8, 12, 3), dtype=torch.uint8), 16)
    strip = np.asarray(film_strip(video, n=3, height=24))[..., :3]
    for place in range(3):
        frame = strip[:, place * (36 + 2) : place * (36 + 2) + 36]
        assert np.array_equal(frame, video.frames[place].numpy().repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("hertz", [300, 1000, 3000, 6000])
def test_a_tone_lies_in_the_band_of_its_pitch(hertz: float) -> None:
    audio = _tone(hertz)
    level = mel_spectrogram_db(audio, columns=100, bands=96)
    assert level.max() == 0 and level.min() >= -80
    # The centre of band i by the HTK formula, inverted independently of the code under test.
    mel_top = 1127.0 * math.log(1 + 8000 / 700)
    centres = [700 * (math.exp((i + 1) * mel_top / 97 / 1127.0) - 1) for i in range(96)]
    expected = min(range(96), key=lambda i: abs(centres[i] - hertz))
    assert abs(int(level[:, 50].argmax()) - expected) <= 1


def test_a_click_shows_at_its_time_and_opposite_channels_do_not_cancel() -> None:
    waveform = torch.zeros(2, 16000)
    waveform[0, 8000], waveform[1, 8000] = 1.0, -1.0
    level = mel_spectrogram_db(Audio(waveform, 16000), columns=100)
    assert abs(int(level.mean(dim=0).argmax()) - 50) <= 1
    assert level[:, :40].max() == -80


def test_a_long_sound_has_no_gaps() -> None:
    waveform = torch.zeros(1, 8000 * 60)
    waveform[0, 8000 * 45 + 123] = 1.0
    level = mel_spectrogram_db(Audio(waveform, 8000), columns=60)
    assert level.shape[1] == 60 and abs(int(level.mean(dim=0).argmax()) - 45) <= 1


def test_silence_and_faint_noise_stay_dark() -> None:
    assert mel_spectrogram_db(Audio(torch.zeros(2, 16000), 16000)).max() == -80
    faint = Audio(torch.randn(2, 16000) * 1e-7, 16000)
    assert mel_spectrogram_db(faint).max() < -40


@settings(max_examples=10)
@given(st.integers(1, 30000), st.sampled_from([8000, 16000, 44100, 48000]), st.integers(1, 2))
def test_a_spectrogram_of_any_length_has_its_size(samples: int, rate: int, channels: int) -> None:
    picture = spectrogram(Audio(torch.randn(channels, samples) * 0.1, rate), width=300, height=120)
    assert picture.size == (300, 120) and picture.mode == "RGBA"
