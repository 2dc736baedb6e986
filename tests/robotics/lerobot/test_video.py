"""Frames out of videos: each step's own frame, whatever the codec, order and place in the file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfflow_robotics.files import BadEpisode
from selfflow_robotics.lerobot import VideoPictures

FPS = 10
COUNT = 40


def numbered(count: int) -> np.ndarray:
    """Frames that tell their number in eight large black and white fields, readable after any codec."""
    frames = np.zeros((count, 64, 64, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            if number >> bit & 1:
                frames[number, 32 * (bit // 4) : 32 * (bit // 4) + 32, 16 * (bit % 4) : 16 * (bit % 4) + 16] = 255
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    return [
        sum(1 << bit for bit in range(8) if frame[32 * (bit // 4) + 16, 16 * (bit % 4) + 8].mean() > 127)
        for frame in frames
    ]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("videos")
    settings_of = {
        "h264": ("libx264", 12, {"bf": "3"}),
        "hevc": ("libx265", 12, {"x265-params": "log-level=none"}),
        "vp9": ("libvpx-vp9", 12, {"cpu-used": "8", "deadline": "realtime"}),
        "av1": ("libsvtav1", 12, {"preset": "12", "crf": "10"}),
    }

    def video(name: str) -> Path:
        path = folder / f"{name}.mp4"
        if not path.exists():
            codec, gop, options = settings_of[name]
            encode_video(path, numbered(COUNT), codec, FPS, gop, **options)
        return path

    return video


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "av1"])
def test_every_codec_gives_the_frames_of_the_times(codec: str, videos: Callable) -> None:
    with av.open(str(videos(codec))) as container:
        assert container.streams.video[0].codec_context.name.replace("libdav1d", "av1") == codec
    stretch = VideoPictures(videos(codec), 1.3 + np.arange(20) / FPS, FPS)
    assert len(stretch) == 20
    frames = stretch.read()
    assert frames.shape == (20, 64, 64, 3) and frames.dtype == np.uint8
    assert numbers(frames) == list(range(13, 33))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, COUNT - 1), max_size=12))
def test_any_steps_in_any_order(videos: Callable, steps: list[int]) -> None:
    pictures = VideoPictures(videos("h264"), np.arange(COUNT) / FPS, FPS)
    assert numbers(pictures.read(steps)) == steps


def test_a_jump_over_a_long_gap(tmp_path: Path, encode_video: Callable) -> None:
    path = tmp_path / "long.mp4"
    encode_video(path, numbered(200), "libx264", FPS, 5)
    pictures = pickle.loads(pickle.dumps(VideoPictures(path, np.arange(200) / FPS, FPS)))
    assert numbers(pictures.read([199, 3, 60, 4, 120])) == [199, 3, 60, 4, 120]
    # The frames of the gap are not needed: without them the file still gives these.
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[60:140]:
        content[position : position + size] = b"\0" * size
    path.write_bytes(content)
    assert numbers(pictures.read([199, 3, 4])) == [199, 3, 4]


def test_tolerance(videos: Callable) -> None:
    path = videos("h264")
    near = VideoPictures(path, np.array([0.50009]), FPS)
    assert numbers(near.read()) == [5]
    with pytest.raises(BadEpisode, match=r"episode 7 of shard b: .*h264\.mp4 has no frame at 0\.5200 s; .* 0\.0200 s"):
        VideoPictures(path, np.array([0.52]), FPS, shard="shard b", index=7).read()
    assert numbers(VideoPictures(path, np.array([0.54, 0.46]), FPS, tolerance=0.05).read()) == [5, 5]


def test_time_stamps_of_float32_far_from_the_start(tmp_path: Path, encode_video: Callable) -> None:
    """An hour from its start a float32 time stamp is up to 0.00012 s off, more than the tolerance."""
    path = tmp_path / "late.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "2", "bf": "0"})
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(numbered(6)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if number == 0 else number + 30 * 3601
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    times = (3601 + np.arange(1, 6) / 30).astype(np.float32).astype(np.float64)
    assert np.abs(times - (3601 + np.arange(1, 6) / 30)).max() > 5e-5
    assert numbers(VideoPictures(path, times, 30).read()) == [1, 2, 3, 4, 5]


def test_after_the_end(videos: Callable) -> None:
    with pytest.raises(BadEpisode, match=r"no frame at 4\.0000 s; its last frame at 3\.9000 s comes first"):
        VideoPictures(videos("h264"), np.array([3.9, 4.0]), FPS).read()


def test_half_a_file_and_no_file(videos: Callable, tmp_path: Path) -> None:
    content = videos("h264").read_bytes()
    half = tmp_path / "half.mp4"
    half.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadEpisode, match="half.mp4 cannot be decoded"):
        VideoPictures(half, np.array([0.0]), FPS).read()
    with pytest.raises(BadEpisode, match="none.mp4 cannot be decoded"):
        VideoPictures(tmp_path / "none.mp4", np.array([0.0]), FPS).read()


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_damage_in_the_middle_names_file_and_time(codec: str, videos: Callable, tmp_path: Path) -> None:
    content = bytearray(videos(codec).read_bytes())
    with av.open(str(videos(codec))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        broken = max(packets[20:], key=lambda packet: packet.size)
        time = float(broken.pts * broken.time_base)
        content[broken.pos : broken.pos + broken.size] = b"\xff" * broken.size
    path = tmp_path / f"{codec}.mp4"
    path.write_bytes(content)
    pictures = VideoPictures(path, np.arange(COUNT) / FPS, FPS)
    with pytest.raises(
        BadEpisode, match=rf"{codec}\.mp4 (is damaged at|cannot be decoded after|has no frame at) [23]\."
    ):
        pictures.read()
    assert time >= 2 and numbers(pictures.read(range(10))) == list(range(10))


def test_grey(videos: Callable) -> None:
    frames = VideoPictures(videos("h264"), np.arange(3) / FPS, FPS, channels=1).read()
    assert frames.shape == (3, 64, 64, 1) and numbers(frames) == [0, 1, 2]


def test_no_steps(videos: Callable) -> None:
    assert len(VideoPictures(videos("h264"), np.arange(3) / FPS, FPS).read([])) == 0
