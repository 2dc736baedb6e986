"""``selfflow-mm imagine`` with a world whose truth is known: recorded films of it must be found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image as Pillow

import selfflow_robotics.adapter as adapter
from selfflow_mm.cli.main import _run
from selfflow_robotics.cli import imagine
from selfflow_robotics.episode import Episode, Feature, RawPictures
from selfflow_robotics.rlds import RldsWriter
from tests.robotics.dreams.dots import ConstantPolicy, DotWorld, spot

STEPS = 7
_LAYOUT = """format: selfflow-robot-layout
version: 1
name: dots
robot: widowx
control_rate: {rate}
action:
  - {{column: action, start: 0, stop: 6, names: [x, y, z, roll, pitch, yaw]}}
  - {{column: action, start: 6, stop: 7, names: [gripper], gripper: absolute_opening}}
state: [{{column: observation/state, names: [a, b]}}]
images: {{front: observation/image, wrist: observation/wrist}}
instruction: language_instruction
"""


class Quiet(DotWorld):
    """Without noise, and it remembers what it was asked."""

    last: DotWorld

    @classmethod
    def from_pretrained(cls, folder: Any) -> DotWorld:
        cls.last = DotWorld(noise=False)
        return cls.last


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(adapter), "FlowWorldModel", Quiet)


def actions_of() -> np.ndarray:
    actions = np.zeros((STEPS, 7), np.float32)
    actions[:, :2] = np.random.default_rng(0).integers(-1, 2, (STEPS, 2)) * 0.05
    actions[:, 6] = 0.25
    return actions


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One episode of seven steps: what the world shows while the actions are carried out."""
    return write_data(tmp_path / "dots", 5)


def write_data(folder: Path, rate: float) -> Path:
    features = {
        "action": Feature("array", (7,)),
        "observation/state": Feature("array", (2,)),
        "observation/image": Feature("picture", (24, 32, 3), "uint8", "png"),
        "observation/wrist": Feature("picture", (24, 32, 3), "uint8", "png"),
        "language_instruction": Feature("text", (), "str"),
    }
    film = DotWorld(horizon=99, noise=False).imagine(spot(12, 16)[None], actions_of()[None], seeds=[0])[0]
    frames = np.concatenate([spot(12, 16)[None], film[:-1]])
    with RldsWriter(folder, name="dots", features=features, episodes_per_shard=1) as writer:
        writer.write(
            Episode(
                id="0",
                length=STEPS,
                columns={"action": actions_of(), "observation/state": np.ones((STEPS, 2), np.float32)},
                texts={"language_instruction": ["push the spot"] * STEPS},
                pictures={"observation/image": RawPictures(frames), "observation/wrist": RawPictures(frames[::-1])},
            )
        )
    (folder / "layout.yaml").write_text(_LAYOUT.format(rate=rate))
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "start.png"
    Pillow.fromarray(spot(12, 16)).save(path)
    return path


def run(*arguments: object) -> int:
    return _run("imagine", imagine, ["runs/toy", *map(str, arguments)])


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        assert file.streams.video[0].average_rate == 5
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(int)


def centre(frame: np.ndarray, columns: slice) -> np.ndarray:
    """(row, column) of the spot in the model's pixels, from a film that shows it ten times as large."""
    part = frame[24:264, columns, 0].astype(float)
    part[part < 60] = 0
    rows, across = np.mgrid[: part.shape[0], : part.shape[1]]
    return np.array([(part * rows).sum(), (part * across).sum()]) / part.sum() / 10


def test_recorded_actions_with_what_was_recorded_beside(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "film.mp4"
    assert run("--data", data, "--step", 1, "--compare", "--out", out, "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["length"] == STEPS - 2 and done["instruction"] == "push the spot" and done["in_one_go"] == 4
    assert done["outside"] == [] and done["start"].endswith("step 1")
    assert len(done["psnr_rgb_openloop"]) == STEPS - 2 and min(done["psnr_rgb_openloop"]) > 45
    film = frames_of(out)
    assert len(film) == STEPS - 1 and film.shape[1:3] == (done["size"][1], done["size"][0])
    left = (film.shape[2] - 648) // 2
    places = [[centre(f, slice(s, s + 320)) for s in (left, left + 328)] for f in film]
    expected = [12, 16] - 20 * np.cumsum(actions_of()[:-1, :2], axis=0)
    for (recorded, imagined), place in zip(places, expected, strict=True):
        np.testing.assert_allclose(recorded, imagined, atol=0.15)
        np.testing.assert_allclose(imagined, place + 0.5, atol=0.4)  # a pixel's middle is half a pixel from its edge
    assert [path.name for path in out.parent.iterdir()] == ["film.mp4"]


def test_actions_from_files_and_a_warning_outside_the_trained_range(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = np.zeros((6, 7))
    actions[:, 6], actions[2, 0], actions[3, 0] = 1, 0.25, -0.5
    np.save(tmp_path / "a.npy", actions)
    (tmp_path / "a.json").write_text(json.dumps({"actions": actions.tolist()}))
    films = []
    for name in ("a.npy", "a.json"):
        settings = ("--steps", 3, "--context-level", 0.2, "--seed", 5, "--instruction", "go")
        assert run("--image", image, "--actions", tmp_path / name, "--out", tmp_path / "f.mp4", *settings) == 0
        told = capsys.readouterr()
        assert "not trained on such actions: x leaves [-0.2, 0.2] in 2 of 6, up to -0.5" in told.err
        assert "6 actions" in told.out and "7 frames" in told.out and "every 4 actions" in told.out
        assert Quiet.last.calls == [{"rows": 1, "steps": 3, "level": 0.2, "instructions": ["go"]}]
        films.append(frames_of(tmp_path / "f.mp4"))
    np.testing.assert_array_equal(*films)
    assert run("--image", image, "--actions", tmp_path / "a.npy", "--length", 2, "--out", tmp_path / "f.mp4") == 0
    assert len(frames_of(tmp_path / "f.mp4")) == 3 and "leaves" not in capsys.readouterr().err


def test_holding_still(data: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "film.mp4"
    assert run("--image", image, "--actions", "zero", "--out", out) == 0
    assert "4 actions (zero)" in capsys.readouterr().out  # the model's horizon
    film = frames_of(out)
    assert np.abs(film[:, 24:264] - film[0, 24:264]).max() < 12
    assert run("--data", data, "--actions", "zero", "--length", 9, "--compare", "--out", out) == 0
    assert "PSNR" not in capsys.readouterr().out  # another motion than was recorded
    film, expected = frames_of(out), [12, 16] - 20 * np.cumsum(actions_of()[:-1, :2], axis=0)
    left = (film.shape[2] - 648) // 2
    recorded, imagined = ([centre(frame, slice(s, s + 320)) for frame in film] for s in (left, left + 328))
    np.testing.assert_allclose(imagined, [[12.5, 16.5]] * 10, atol=0.4)
    np.testing.assert_allclose(recorded[1:STEPS], expected + 0.5, atol=0.4)
    np.testing.assert_allclose(recorded[STEPS:], [expected[-1] + 0.5] * (10 - STEPS), atol=0.4)  # the record ended


def test_a_policy_acts_in_the_dream(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = ConstantPolicy(horizon=3)
    monkeypatch.setitem(vars(adapter), "FlowPolicy", _folder_of(policy))
    out, folder = tmp_path / "film.mp4", tmp_path
    assert run("--data", data, "--actions", f"policy:{folder}", "--length", 7, "--out", out, "--seed", 2) == 0
    assert len(frames_of(out)) == 8 and "7 actions" in capsys.readouterr().out
    assert [call["rows"] for call in Quiet.last.calls] == [1, 1, 1]  # three chunks, the last one cut
    seeds = [request.seed for request in policy.requests]
    assert [request.query for request in policy.requests] == [0, 1, 2] and len(set(seeds)) == 3
    moved = 20 * sum(n * ConstantPolicy.move(seed) for n, seed in zip((3, 3), seeds[:2], strict=True))
    seen = policy.requests[2].observation  # it sees what was imagined, not what was recorded
    np.testing.assert_array_equal(
        seen.image, Quiet.last.imagine(spot(12, 16)[None], _moves(seeds[:2]), seeds=[0])[0, -1]
    )
    assert seen.instruction == "push the spot" and seen.state is None and np.abs(moved).max() < 13


def _moves(seeds: list[int]) -> np.ndarray:
    actions = np.zeros((1, 6, 7), np.float32)
    actions[0, :, :2] = np.repeat([ConstantPolicy.move(seed) for seed in seeds], 3, axis=0)
    return actions


def _folder_of(policy: ConstantPolicy) -> type:
    class Folder:
        @classmethod
        def from_pretrained(cls, folder: Any) -> ConstantPolicy:
            return policy

    return Folder


def test_a_policy_that_needs_a_state_has_that_of_the_first_step_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = ConstantPolicy(horizon=3, needs_state=True)
    monkeypatch.setitem(vars(adapter), "FlowPolicy", _folder_of(policy))
    out = tmp_path / "film.mp4"
    assert run("--data", data, "--actions", f"policy:{tmp_path}", "--out", out) == 0
    assert policy.requests[0].observation.state is not None and len(frames_of(out)) == 4
    assert run("--data", data, "--actions", f"policy:{tmp_path}", "--length", 4, "--out", out) == 2
    assert "imagine at most 3 actions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "{image}", "--out", "{tmp}/f.avi", "--actions", "zero"], "end it in .mp4"),
        (["--image", "{image}"], "a single picture has no recorded actions"),
        (["--image", "{image}", "--actions", "zero", "--compare"], "begin from --data"),
        (["--image", "{image}", "--actions", "zero", "--step", "2", "--camera", "a"], "--step and --camera choose"),
        (["--image", "{tmp}/none.png", "--actions", "zero"], "no picture can be read from"),
        (["--image", "{tmp}/words.json", "--actions", "zero"], "no picture can be read from"),
        (["--image", "{image}", "--actions", "{tmp}/none.npy"], "no actions can be read from"),
        (["--image", "{image}", "--actions", "{tmp}/words.json"], "no actions can be read from"),
        (["--image", "{image}", "--actions", "{tmp}/short.json"], "holds shape (1, 3); actions are (T, 7): x, y"),
        (["--image", "{image}", "--actions", "{tmp}/nan.npy"], "yaw of action 1 is nan"),
        (["--image", "{image}", "--actions", "{tmp}/huge.json"], "x of action 0 is inf, not a finite number"),
        (["--image", "{image}", "--actions", "zero", "--out", "{image}/film.mp4"], "film.mp4 lies in the file"),
        (["--image", "{image}", "--actions", "still"], "read from .npy or .json, and 'still' is neither"),
        (["--image", "{image}", "--actions", "{tmp}/nan.npy", "--length", "0"], "at least 1 action"),
        (["--image", "{image}", "--actions", "zero", "--steps", "0"], "--steps is at least 1"),
        (["--image", "{image}", "--actions", "zero", "--context-level", "1"], "a noise level in [0, 1)"),
        (["--image", "{image}", "--actions", "zero", "--seed", "-1"], "--seed is at least 0"),
        (["--image", "{image}", "--actions", "policy:nobody"], "no policy and no folder 'nobody'"),
        (["--image", "{image}", "--actions", "policy:zero"], "the policy 'zero' acts by"),
        (["--data", "{data}", "--episode", "1"], "there is no episode 1"),
        (["--data", "{data}", "--step", "7"], "there is no step 7 in episode 0; it has 7"),
        (["--data", "{data}", "--step", "6"], "step 6 is the episode's last"),
        (["--data", "{data}", "--length", "7"], "there are only 6 actions"),
        (["--data", "{data}", "--camera", "top"], "no camera 'top'; it has front, wrist"),
        (["--data", "{slow}"], "3 actions per second, the model 5"),
        (["--data", "{slow}", "--actions", "zero", "--compare"], "3 actions per second, the model 5"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(
    data: Path, image: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.json").write_text('{"words": 1}')
    (tmp_path / "short.json").write_text("[[1, 2, 3]]")
    (tmp_path / "huge.json").write_text("[[1e39, 0, 0, 0, 0, 0, 0]]")
    np.save(tmp_path / "nan.npy", np.where(np.arange(14).reshape(2, 7) == 12, np.nan, 0))
    slow = write_data(tmp_path / "slow", 3) if "{slow}" in arguments else None
    words = [word.format(image=image, tmp=tmp_path, data=data, slow=slow) for word in arguments]
    out = [] if "--out" in words else ["--out", str(tmp_path / "film.mp4")]
    assert run(*words, *out) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not list(tmp_path.glob("**/*.mp4*"))


def test_a_folder_is_no_film(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "film.mp4"
    folder.mkdir()
    assert run("--image", str(image), "--actions", "zero", "--out", str(folder)) == 2
    assert f"--out is the folder '{folder}'; name a file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) in ([folder, image], [image, folder])
