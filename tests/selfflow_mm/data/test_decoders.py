"""Other decoders give PyAV's frames, up to their colours, and leave to PyAV what they would read in another way."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
import torch

from selfflow_mm.data import decoders
from selfflow_mm.data.decoders import DECODERS, VARIABLE, chosen, decoder_for
from selfflow_mm.data.reading import read_media
from selfflow_mm.data.writing import encode_mp4
from selfflow_mm.errors import UserError
from selfflow_tokenizers.media import Audio, Video


def film(frames: int = 40) -> Video:
    """Grey that rises by 5 levels a frame, so that a frame out of place shows."""
    ramp = torch.arange(frames, dtype=torch.uint8).mul(5).view(-1, 1, 1, 1).expand(frames, 48, 64, 3)
    return Video(ramp.contiguous(), 16.0)


def test_decord_gives_the_same_film(monkeypatch):
    pytest.importorskip("decord")
    data = encode_mp4(film(), Audio(torch.zeros(1, 40_000), 16_000))
    expected = read_media(data)
    monkeypatch.setenv(VARIABLE, "decord")
    opened, real = [], decoders._decord
    monkeypatch.setattr(decoders, "_decord", lambda *given: opened.append(given) or real(*given))
    found = read_media(data)
    assert opened == [(data, 1)]
    assert found.notes == expected.notes == () and found.video.fps == expected.video.fps
    assert found.video.frames.shape == expected.video.frames.shape
    apart = (found.video.frames.int() - expected.video.frames.int()).abs()
    assert apart.max() <= 3
    assert torch.equal(found.audio.waveform, expected.audio.waveform)


@pytest.mark.parametrize("name", ["flipping_a_pancake.mkv", "talk_1.mp4"])
def test_spread_frames_are_those_of_the_whole_film(shared, name):
    pytest.importorskip("decord")
    data = shared(f"clips/{name}").read_bytes()
    whole = [pixels for _, _, pixels in DECODERS["decord"].frames(data, 1)]
    rows = [0, 3, len(whole) // 2, len(whole) - 1]
    assert np.array_equal(DECODERS["decord"].spread(data, rows), np.stack([whole[i] for i in rows]))


def test_a_turned_film_stays_with_pyav(shared, monkeypatch):
    path = shared("clips/rotated_90_no_audio.mov")
    expected = read_media(path)
    monkeypatch.setenv(VARIABLE, "decord")
    pytest.importorskip("decord")
    found = read_media(path)
    assert torch.equal(found.video.frames, expected.video.frames) and found.notes == expected.notes


def test_what_another_decoder_cannot_read_is_read_by_pyav(monkeypatch):
    """And so is what it reads to another length."""
    data = encode_mp4(film(), None)
    expected = read_media(data)

    class Reader:
        def __init__(self, source, num_threads):
            assert isinstance(source, io.BytesIO)

        def __len__(self):
            return 5

        def get_frame_timestamp(self, rows):
            return np.stack([rows / 16, (rows + 1) / 16], axis=1)

        def get_batch(self, rows):
            return types.SimpleNamespace(asnumpy=lambda: np.zeros((len(rows), 48, 64, 3), np.uint8))

    monkeypatch.setenv(VARIABLE, "decord")
    monkeypatch.setattr("selfflow_mm.data.decoders.chosen", lambda: "decord")
    monkeypatch.setattr("selfflow_mm.data.reading.chosen", lambda: "decord")
    for reader, note in ((Reader, "gives other times"), (None, "cannot (TypeError)")):
        monkeypatch.setitem(sys.modules, "decord", types.SimpleNamespace(VideoReader=reader))
        found = read_media(data)
        assert torch.equal(found.video.frames, expected.video.frames)
        assert len(found.notes) == 1 and note in found.notes[0]


def test_names(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen() == "pyav" and decoder_for("h264", plain=True) is None
    monkeypatch.setenv(VARIABLE, "ffmpeg")
    with pytest.raises(UserError, match="SELFFLOW_DECODER is pyav, decord or torchcodec, not 'ffmpeg'"):
        chosen()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv(VARIABLE, "torchcodec")
    with pytest.raises(UserError, match="torchcodec, which is not installed: pip install torchcodec"):
        chosen()


def test_the_rule(monkeypatch):
    monkeypatch.setattr("selfflow_mm.data.decoders.chosen", lambda: "decord")
    assert decoder_for("h264", plain=True) is DECODERS["decord"]
    assert decoder_for("av1", plain=True) is None and decoder_for("h264", plain=False) is None
    monkeypatch.setattr("selfflow_mm.data.decoders.chosen", lambda: "torchcodec")
    assert decoder_for("av1", plain=True) is DECODERS["torchcodec"]
