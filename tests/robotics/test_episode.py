"""Pictures of an episode: the same bits with and without the fast decoder, gaps, damage; lengths that must agree."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import EncodedPictures, Episode, RawPictures, _simplejpeg
from selfflow_robotics.extras import require


def encoded(frame: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(frame).save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(5, 100), st.sampled_from([0, 1, 2]), st.sampled_from([1, 3]))
def test_jpeg_is_decoded_to_the_bits_of_pillow(height, width, quality, subsampling, channels):
    data = encoded(noise(height, width, channels=channels), quality=quality, subsampling=subsampling)
    expected = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(EncodedPictures([data]).read()[0], expected)


def test_it_works_without_the_fast_decoder(monkeypatch):
    data = [encoded(noise(8, 12, seed)) for seed in range(3)]
    fast = EncodedPictures(data).read()
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # importing it now fails
    _simplejpeg.cache_clear()
    try:
        assert _simplejpeg() is None
        np.testing.assert_array_equal(EncodedPictures(data).read(), fast)
    finally:
        _simplejpeg.cache_clear()


def test_steps_in_any_order_and_more_than_once():
    frames = [noise(4, 6, seed) for seed in range(5)]
    pictures = EncodedPictures([encoded(frame, "PNG") for frame in frames])
    np.testing.assert_array_equal(pictures.read([4, 0, 4]), np.stack([frames[4], frames[0], frames[4]]))
    np.testing.assert_array_equal(pictures.read([4, 0]), RawPictures(np.stack(frames)).read([4, 0]))


def test_grey_keeps_its_depth_and_alpha_its_channel():
    deep = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
    found = EncodedPictures([encoded(deep, "PNG")], channels=1).read()
    assert found.dtype == np.uint16 and np.array_equal(found[0, ..., 0], deep)
    rgba = noise(6, 8, channels=4)
    np.testing.assert_array_equal(EncodedPictures([encoded(rgba, "PNG")], channels=4).read()[0], rgba)


def test_a_step_without_a_picture_is_black():
    frame = noise(4, 6)
    found = EncodedPictures([b"", encoded(frame, "PNG"), b""]).read()
    assert not found[0].any() and not found[2].any() and np.array_equal(found[1], frame)
    assert EncodedPictures([b"", b""], size=(3, 5)).read().shape == (2, 3, 5, 3)
    with pytest.raises(UserError, match="does not tell its size"):
        EncodedPictures([b""]).read()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_is_a_user_error_or_a_picture(data):
    whole = bytearray(encoded(noise(16, 16)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        assert EncodedPictures([cut]).read().ndim == 4
    except UserError as error:
        assert "step 0 cannot be decoded" in str(error)


def test_a_header_that_claims_too_much_is_refused():
    data = bytearray(encoded(noise(16, 16)))
    start = data.index(b"\xff\xc0") + 5  # SOF0: height and width follow length and precision
    data[start : start + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(UserError, match="cannot be decoded"):
        EncodedPictures([bytes(data)]).read()


def test_sizes_and_lengths_must_agree():
    with pytest.raises(UserError, match="different sizes"):
        EncodedPictures([encoded(noise(4, 4)), encoded(noise(4, 6))]).read()
    with pytest.raises(UserError, match="'action' has 3 steps, the episode 4"):
        Episode("e", 4, {"action": np.zeros((3, 7))})


def test_a_missing_extra_is_named():
    with pytest.raises(UserError, match=r"reading clay needs 'no_such_library'.*selfflow-mm\[robot\]"):
        require("no_such_library.inner", "reading clay")
    assert require("json", "nothing").loads("1") == 1
