"""Films: decoded again by PyAV and compared with what went in."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import RawPictures
from selfflow_robotics.look.film import FilmOptions, play
from selfflow_robotics.look.film_sound import FilmSound
from selfflow_robotics.look.lettering import SERIES
from selfflow_robotics.look.plots import ActionPlots
from selfflow_robotics.robot_episode import RobotEpisode

from .standin import COLOURS, BrokenPictures, episode

_TOP = 16  # a single camera's picture stands in the middle, this far from the top


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def picture(frame: np.ndarray, high: int, wide: int) -> np.ndarray:
    left = (frame.shape[1] - wide) // 2
    return frame[_TOP : _TOP + high, left : left + wide]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def smooth_frames(steps: int, high: int, wide: int) -> np.ndarray:
    """Pictures as cameras have them: soft edges, another one each step."""
    y, x = np.mgrid[0:high, 0:wide] / 40
    t = np.arange(steps)[:, None, None]
    waves = [np.sin(x + 0.5 * t), np.cos(y - 0.3 * t), np.sin(x * 0.7 + y + t)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_frames_are_those_of_the_episode(tmp_path: Path) -> None:
    frames = smooth_frames(5, 256, 320)
    report = play(tmp_path / "film.mp4", [episode(5, images={"front": RawPictures(frames)})])
    shown = decoded(tmp_path / "film.mp4")
    assert shown.shape[:3] == (5, report.size[1], report.size[0]) and report.frames == 5
    for step in range(5):
        right = psnr(picture(shown[step], 256, 320), frames[step])
        wrong = psnr(picture(shown[step], 256, 320), frames[(step + 1) % 5])
        assert right > 33 > 18 > wrong


@pytest.mark.parametrize("speed", [1.0, 2.0, 0.5])
def test_duration_is_that_of_the_control_rate(tmp_path: Path, speed: float) -> None:
    play(tmp_path / "film.mp4", [episode(6), episode(9)], FilmOptions(speed=speed, height=64))
    with av.open(str(tmp_path / "film.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.frames == 15
        assert float(stream.average_rate or 0) == pytest.approx(5 * speed)
        assert float(stream.duration * stream.time_base) == pytest.approx(15 / 5 / speed)


def test_small_pictures_are_enlarged_and_cameras_stand_side_by_side(tmp_path: Path) -> None:
    blue = np.broadcast_to(COLOURS[1], (2, 32, 32, 3))
    play(tmp_path / "film.mp4", [episode(2, (64, 64), images=episode(2).images | {"wrist": RawPictures(blue)})])
    frame = decoded(tmp_path / "film.mp4")[0].astype(int)
    front = np.argwhere(np.abs(frame - COLOURS[0]).max(axis=-1) < 40)
    wrist = np.argwhere(np.abs(frame - COLOURS[1]).max(axis=-1) < 40)
    assert np.ptp(wrist[:, 0]) == pytest.approx(255, abs=2) and np.ptp(wrist[:, 1]) == pytest.approx(255, abs=2)
    assert np.ptp(front[:, 0]) == pytest.approx(255, abs=2) and np.ptp(front[:, 1]) == pytest.approx(340, abs=2)  # 4:3
    assert front[:, 1].max() < wrist[:, 1].min()


def test_only_the_cameras_asked_for_are_shown(tmp_path: Path) -> None:
    both = episode(2, images=episode(2).images | {"wrist": RawPictures(np.zeros((2, 32, 32, 3), np.uint8))})
    wide = play(tmp_path / "both.mp4", [both]).size
    play(tmp_path / "one.mp4", [both], FilmOptions(cameras=("wrist",)))
    assert not (np.abs(decoded(tmp_path / "one.mp4")[0].astype(int) - COLOURS[0]).max(axis=-1) < 40).any()
    assert wide[0] >= 2 * 256


def test_the_cursor_moves_evenly_over_the_plots(tmp_path: Path) -> None:
    play(tmp_path / "film.mp4", [episode(6)])
    shown = decoded(tmp_path / "film.mp4").astype(int)
    plots = shown[:, -280:, 60:-150]  # the plots, without numbers at either side
    bright = plots.min(axis=-1) > 190
    columns = [int(np.argmax(frame.sum(axis=0))) for frame in bright]
    assert min(frame.sum(axis=0).max() for frame in bright) > 200  # over three panels
    steps = np.diff(columns)
    assert min(steps) > 30 and np.ptp(steps) <= 1


def line(plots: ActionPlots, colour: tuple[int, int, int], rows: slice) -> np.ndarray:
    """``(n, 2)`` (x, y) of the pixels of a line, without the legend at the right."""
    pixels = np.asarray(plots.picture)[rows, 50:-130].astype(int)
    return np.argwhere(np.abs(pixels - colour).max(axis=-1) < 60)[:, ::-1]


def test_plots_are_the_actions() -> None:
    actions = np.zeros((6, 7), np.float32)
    actions[:, 6] = [1, 1, 1, 0, 0, 0]
    actions[:, 1] = [0.01, 0.02, 0.03, -0.03, -0.02, -0.01]
    plots = ActionPlots(episode(6, actions=actions), 600)
    gripper = line(plots, SERIES[0], slice(-100, None))
    middle = np.median(gripper[:, 0])
    open_, closed = gripper[gripper[:, 0] < middle - 20], gripper[gripper[:, 0] > middle + 20]
    assert np.ptp(open_[:, 1]) <= 3 and np.ptp(closed[:, 1]) <= 3
    assert closed[:, 1].mean() - open_[:, 1].mean() == pytest.approx(78 / 1.2, abs=2)  # 0 to 1 of a panel of 1.2
    y = line(plots, SERIES[1], slice(0, 107))
    heights = [float(np.mean(y[np.abs(y[:, 0] + 50 - plots.cursor_x(step)) < 12, 1])) for step in range(6)]
    assert np.corrcoef(heights, -actions[:, 1])[0, 1] > 0.999
    assert np.ptp(heights) == pytest.approx(78 * 6 / 6.2, abs=1.5)  # 3 cm up and down, in a panel of 3.1 (two digits)


def test_an_outlier_does_not_flatten_a_plot() -> None:
    actions = np.zeros((400, 7), np.float32)
    actions[:, 0] = 0.02 * np.sin(np.arange(400))
    actions[77, 0] = 22.0  # as there is one in RT-1
    x = line(ActionPlots(episode(400, (2, 2), actions=actions), 600), SERIES[0], slice(0, 107))
    assert np.ptp(np.quantile(x[:, 1], [0.05, 0.95])) > 40


def clicking(steps: int, rate: int, step: int | None) -> RobotEpisode:
    """Sound that is silent but for a tone in one step."""
    samples = rate // 5
    sound = np.zeros((steps, 1, samples), np.float32)
    if step is not None:
        sound[step, 0] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)
    return episode(steps, sound=sound, sound_rate=rate)


def loudness(path: Path, seconds: float) -> np.ndarray:
    """RMS of the film's sound in stretches of that length."""
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        wave = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    wave = wave[: round(len(wave) / rate / seconds) * round(seconds * rate)]
    return np.sqrt((wave.reshape(-1, round(seconds * rate)) ** 2).mean(axis=1))


@pytest.mark.parametrize(("rate", "speed"), [(16000, 1.0), (16000, 2.0), (10000, 1.0)])
def test_sounds_are_heard_at_their_steps(tmp_path: Path, rate: int, speed: float) -> None:
    silent = episode(4)
    film = [clicking(6, rate, 2), silent, clicking(5, rate, 4)]
    assert play(tmp_path / "film.mp4", film, FilmOptions(speed=speed, height=64)).sound
    heard = loudness(tmp_path / "film.mp4", 0.2 / speed)
    assert len(heard) in (15, 16)  # AAC's last block may reach over the end
    assert set(np.flatnonzero(heard > 0.2)) == {2, 6 + 4 + 4}
    assert heard[[0, 4, 7, 8, 12]].max() < 0.02


def test_a_film_that_begins_without_sound_has_none(tmp_path: Path) -> None:
    assert not play(tmp_path / "film.mp4", [episode(2), clicking(2, 16000, 0)], FilmOptions(height=64)).sound
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert not file.streams.audio


def test_sound_never_drifts_from_the_picture() -> None:
    # 22050 Hz at 3 steps a second are 7350 samples a step; at 7 Hz no whole number.
    first = episode(3, control_rate=7.0, sound=np.zeros((3, 1, 3150), np.float32), sound_rate=22050)
    sound = FilmSound.of(first, 1.0)
    assert sound is not None
    total = sum(sound.next(first, 3 * (n + 1) / 7).shape[1] for n in range(100))
    assert total == round(300 / 7 * 22050)


def test_other_sizes_are_fitted_into_the_first_one_s_place(tmp_path: Path) -> None:
    tall = episode(1, images={"front": RawPictures(np.broadcast_to(COLOURS[1], (1, 80, 40, 3)))})
    play(tmp_path / "film.mp4", [episode(1, (256, 256)), tall])
    frame = decoded(tmp_path / "film.mp4")[1].astype(int)
    blue = np.argwhere(np.abs(frame - COLOURS[1]).max(axis=-1) < 40)
    assert np.ptp(blue[:, 0]) == pytest.approx(255, abs=2) and np.ptp(blue[:, 1]) == pytest.approx(127, abs=2)


def test_a_failure_leaves_the_old_film_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"old")
    broken = episode(40, images={"front": BrokenPictures(40, 37)})
    with pytest.raises(UserError, match="step 37 cannot be decoded"):
        play(tmp_path / "film.mp4", [episode(2), broken], FilmOptions(height=64))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("film.mp4", b"old")]


def test_long_instructions_odd_numbers_and_other_actions_can_be_drawn(tmp_path: Path) -> None:
    names = tuple(f"joint_{i}" for i in range(14))
    actions = np.linspace(-1, 1, 42, dtype=np.float32).reshape(3, 14)
    actions[1, 3] = np.nan
    report = play(
        tmp_path / "film.mp4",
        [episode(3, actions=actions, action_names=names, instruction="pick " * 200, images={})],
    )
    assert report.frames == len(decoded(tmp_path / "film.mp4")) == 3


def test_mistakes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with pytest.raises(UserError, match="no episode with a step"):
        play(path, [episode(0)])
    with pytest.raises(UserError, match="no camera 'back'; it has front"):
        play(path, [episode(2)], FilmOptions(cameras=("back",)))
    with pytest.raises(UserError, match=r"end it in \.mp4"):
        play(tmp_path / "film.avi", [episode(2)])
    other = episode(2, actions=np.zeros((2, 2), np.float32), action_names=("a", "b"))
    with pytest.raises(UserError, match="other action columns"):
        play(path, [episode(2), other], FilmOptions(height=64))
    for speed in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="speed goes from 0.01 to 100"):
            FilmOptions(speed=speed)
    with pytest.raises(UserError, match="1 to 2160"):
        FilmOptions(height=-5)
    assert not list(tmp_path.iterdir())
