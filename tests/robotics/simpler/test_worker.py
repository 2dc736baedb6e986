"""The simulator's side against a stand-in with SimplerEnv's surface, and against SIMPLER's own evaluator."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.policies import load_policy
from selfflow_robotics.robot_episode import ACTION_NAMES
from selfflow_robotics.serving.msgpack_numpy import pack as openpi_pack
from selfflow_robotics.serving.msgpack_numpy import unpack as openpi_unpack
from selfflow_robotics.simpler import Trial, trials, worker
from selfflow_robotics.simpler.assets import assets_of, official_assets, with_differences
from selfflow_robotics.simpler.conventions import PRESETS
from selfflow_robotics.simpler.crew import Patience, ProcessCrew
from selfflow_robotics.simpler.runner import Acted, GaveUp, RunOptions, act_trials
from selfflow_robotics.simpler.worker import pack, unpack

STAND_IN = Path(__file__).parent / "stand_in"


class Terminating:
    """Moves a little, and says after every ``after`` questions that it is done."""

    def __init__(self, after: int, horizon: int = 2) -> None:
        self.after = after
        self.about = PolicyAbout("terminating", horizon, 3.0, (*ACTION_NAMES, "terminate"))

    def chunks(self, requests: Any) -> np.ndarray:
        chunk = np.full((len(requests), self.about.horizon, 8), 0.01, np.float32)
        chunk[..., 7] = [[(request.query + 1) % self.after == 0] * self.about.horizon for request in requests]
        return chunk


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A folder with an empty file for every asset of SIMPLER's."""
    folder = tmp_path / "assets"
    for name in official_assets():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def act(tmp_path: Path, assets: Path) -> Any:
    """``act(policy, trials, faults=(), workers=1, **options)`` -> episodes, calls that the stand-in saw, losses."""

    def run(
        policy: Any, some: list[Trial], faults: tuple[str, ...] = (), workers: int = 1, patience: float = 10.0,
        conventions: str = "ours", shader: str = "rt", filmed: tuple[int, ...] = (), model: str = "", **options: Any,
    ) -> tuple[list[Acted | GaveUp], list[list[Any]], list[str]]:  # fmt: skip
        log, plan = tmp_path / "calls.jsonl", tmp_path / "faults"
        log.unlink(missing_ok=True)
        plan.write_text("\n".join(faults))
        environment = {
            "PYTHONPATH": str(STAND_IN), "STAND_IN_LOG": str(log), "STAND_IN_FAULTS": str(plan),
            "STAND_IN_ASSETS": str(assets), "STAND_IN_MODEL": model,
        }  # fmt: skip
        command = [sys.executable, worker.__file__, "--shader", shader]
        crew = ProcessCrew(
            command, workers, tmp_path / "logs", patience=Patience(60.0, patience), environment=environment
        )
        losses: list[str] = []
        ended = list(
            act_trials(
                policy, some, crew, conventions=PRESETS[conventions], options=RunOptions(**options), filmed=filmed,
                on_loss=losses.append,
            )
        )  # fmt: skip
        return ended, [json.loads(line) for line in log.read_text().splitlines()], losses

    return run


def one(suite: str, task: str, place: int = 0) -> list[Trial]:
    return [[trial for trial in trials(suite) if trial.arrangement.task == task][place]]


def test_an_episode_goes_to_the_limit_and_counts_what_is_true_at_the_end(act: Any) -> None:
    trial = one("google-visual-matching", "pick_coke_can")
    (acted,), calls, losses = act(load_policy("zero"), trial, filmed=(trial[0].number,))
    result = acted.result
    assert (result.steps, result.success, result.success_any, result.terminated) == (80, False, True, False)
    assert result.instructions == ("do GraspSingleOpenedCokeCanInScene-v0",) and result.queries == 10
    assert result.stats == {"moved": True, "height": 0.5, "steps": 80} and not losses
    assert acted.frames.shape == (81, 512, 640, 3) and acted.actions.shape == (80, 7)
    assert [int(frame[0, 0, 0]) for frame in acted.frames] == list(range(81))  # every step's picture, in order
    assert [what for what, *_ in calls] == ["process", "build", "overlay", "reset"] + ["step"] * 80


def test_it_ends_at_success_where_that_is_asked_for(act: Any) -> None:
    (acted,), calls, _ = act(load_policy("zero"), one("widowx", "stack_cube"), until="success", any_rate=True)
    assert (acted.result.steps, acted.result.success) == (3, True)
    assert [what for what, *_ in calls].count("step") == 3


def test_terminating_brings_the_next_subtask_and_then_the_end(act: Any) -> None:
    trial = one("google-variant-aggregation", "place_apple_in_closed_top_drawer")
    (acted,), calls, _ = act(Terminating(after=3), trial)
    # Chunks of two: the third question's first action advances and is carried out; its second one ends the episode.
    assert acted.result.terminated and acted.result.steps == 6
    assert acted.result.instructions == ("open top drawer", "place apple into top drawer")
    assert [what for what, *_ in calls][4:] == ["step"] * 4 + ["advance"] + ["step"] * 2


def test_the_simulator_is_told_what_the_trial_says(act: Any) -> None:
    trial = one("google-visual-matching", "close_drawer", 30)
    _, calls, _ = act(load_policy("zero"), trial, shader="ibl", until="success")
    arrangement, start = trial[0].arrangement, trial[0].start
    name, kwargs = calls[1][1:]
    assert name == arrangement.environment and kwargs["scene_name"] == "dummy_drawer"
    assert kwargs["render_config"] == {"camera_shader_dir": "ibl", "viewer_shader_dir": "ibl", "rt_use_denoiser": False}
    assert "shader_dir" not in kwargs and kwargs["rgb_overlay_cameras"] == ["overhead_camera"]
    assert {key: kwargs[key] for key in arrangement.options} == arrangement.options
    assert calls[2] == ["overlay", arrangement.overlay]
    robot = calls[3][1]["robot_init_options"]
    assert robot["init_xy"] == list(start.robot) and robot["init_rot_quat"] == pytest.approx(start.quaternion)


def test_ray_tracing_is_asked_for_as_the_evaluator_asks(act: Any) -> None:
    _, calls, _ = act(load_policy("zero"), one("google-visual-matching", "open_drawer"), until="success")
    assert calls[1][2]["shader_dir"] == "rt" and "render_config" not in calls[1][2]


class Looking:
    """Wants a state, and keeps what it was shown."""

    def __init__(self) -> None:
        names = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper_closed")
        self.about = PolicyAbout("looking", 4, 3.0, state_names=names, needs_state=True)
        self.seen: list[Any] = []

    def chunks(self, requests: Any) -> np.ndarray:
        self.seen += [request.observation for request in requests]
        return np.zeros((len(requests), 4, 7), np.float32)


def test_a_policy_sees_the_picture_in_its_size_and_the_hand_from_the_base(act: Any) -> None:
    looking = Looking()
    act(looking, one("google-visual-matching", "move_near"), conventions="openpi", until="success")
    seen = looking.seen[0]
    assert seen.image.shape == (224, 224, 3) and seen.instruction == "do MoveNearGoogleBakedTexInScene-v0"
    # The stand-in's tool: one metre before the base, half a metre above it, turned as it is.
    np.testing.assert_allclose(seen.state, [1, 0, 0.5, 0, 0, 0, 1, 0.25], atol=1e-7)


@pytest.mark.parametrize("fault", ["step crash", "step raise", "step hang", "reset crash", "reset raise"])
def test_a_lost_worker_costs_time_and_nothing_else(act: Any, fault: str) -> None:
    some = trials("google-variant-aggregation", ["pick_coke_can"], 3)
    policy = load_policy("random")
    whole, calls, _ = act(policy, some, until="success")
    broken, _, losses = act(policy, some, (fault,), until="success", patience=0.5)
    assert sorted(a.result.number for a in broken) == [trial.number for trial in some]
    assert {a.result.number: a.result for a in broken} == {a.result.number: a.result for a in whole}
    assert sum(a.result.attempts for a in broken) == 4 and len(losses) == 1 and "during trial" in losses[0]
    said = {"crash": "exit code 139", "raise": "ErrorDeviceLost", "hang": "taken to hang"}[fault.split()[1]]
    assert said in losses[0]


def test_a_trial_that_always_fails_is_given_up_and_the_others_go_on(act: Any) -> None:
    some = trials("google-variant-aggregation", ["pick_coke_can"], 3)
    ended, _, losses = act(load_policy("zero"), some, ("reset raise",) * 2, until="success", attempts=2)
    given_up = [one for one in ended if isinstance(one, GaveUp)]
    assert [one.trial for one in given_up] == some[:1] and "ErrorDeviceLost" in given_up[0].reason
    assert [one.result.number for one in ended if isinstance(one, Acted)] == [t.number for t in some[1:]]
    assert len(losses) == 2


@pytest.mark.parametrize("lacking", ["stage", "real picture", "model"])
def test_a_trial_whose_scene_is_incomplete_is_refused_at_once(act: Any, assets: Path, lacking: str) -> None:
    """SAPIEN would only log it, and the episode would count as a failure of the policy."""
    some = trials("google-visual-matching", ["pick_coke_can", "close_drawer"], 1)
    can = some[0].arrangement
    gone = {
        "stage": f"hab2_bench_assets/stages/{can.scene}.glb",
        "real picture": f"real_inpainting/{can.overlay}",
        "model": "custom/models/opened_coke_can/textured.dae",
    }
    (assets / gone[lacking]).unlink()
    chosen = some if lacking != "model" else some[:1]
    ended, _, losses = act(load_policy("zero"), chosen, until="success", model="opened_coke_can")
    refused = [one for one in ended if isinstance(one, GaveUp)]
    assert [one.trial for one in refused] == some[:1] and not losses
    assert lacking in refused[0].reason and Path(gone[lacking]).parent.name in refused[0].reason
    assert len(ended) == len(chosen)  # the drawer, which is made of boxes before another picture, is acted


def test_what_renders_otherwise_is_acted_by_a_new_process(act: Any) -> None:
    """SAPIEN's shader holds for a whole process."""
    some = trials("google-visual-matching", ["pick_coke_can", "open_drawer"], 2)
    ended, calls, losses = act(load_policy("zero"), some, until="success")
    assert len(ended) == 4 and not losses
    assert [call[2].get("shader_dir") for call in calls if call[0] == "build"] == [None, None, "rt", "rt"]
    processes = [call[1] for call in calls if call[0] == "process"]
    assert processes[0] == processes[1] != processes[2] == processes[3]


def test_foreign_and_missing_assets_are_told(assets: Path) -> None:
    """Against git's own hash."""
    name = "hab2_bench_assets/stages/bridge_table_1_v1.glb"
    (assets / name).write_bytes(b"something else")
    (assets / "custom/models/eggplant/textured.dae").unlink()
    found = worker.asset_hashes(str(assets))
    expected = subprocess.run(["git", "hash-object", str(assets / name)], check=True, capture_output=True, text=True)
    assert found[name] == expected.stdout.strip()
    told = with_differences({"shader": "rt", "assets": {**official_assets(), name: found[name]}})
    assert told == {"shader": "rt", "missing_assets": [], "other_assets": [name]}
    assert "custom/models/eggplant/textured.dae" in with_differences({"assets": found})["missing_assets"]
    assert len(found) == len(official_assets()) - 1
    needed = assets_of(trials("widowx", ["put_eggplant_in_basket"]))
    assert (
        "custom/models/eggplant/textured.dae" in needed and "hab2_bench_assets/stages/bridge_table_1_v2.glb" in needed
    )
    assert name not in needed


def test_workers_are_renewed(act: Any) -> None:
    some = trials("google-variant-aggregation", ["pick_coke_can"], 5)
    ended, _, losses = act(load_policy("zero"), some, until="success", renew=2)
    assert len(ended) == 5 and not losses


def test_the_wire_is_openpis() -> None:
    """What one side packs the other unpacks, and each reads the bytes of openpi's own form."""
    message = {"image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "actions": np.eye(3, 7), "over": False, "n": 3}
    for ours, theirs in ((pack, openpi_unpack), (openpi_pack, unpack)):
        found = theirs(ours(message))
        assert set(found) == set(message) and found["over"] is False and found["n"] == 3
        np.testing.assert_array_equal(found["image"], message["image"])
        np.testing.assert_array_equal(found["actions"], message["actions"])


def test_the_worker_imports_nothing_of_ours() -> None:
    """It runs in SIMPLER's Python, where this project is not."""
    tree = ast.parse(Path(worker.__file__).read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in named if name.startswith(("selfflow", "."))]
    allowed = {"numpy", "msgpack", "websockets", "simpler_env"}
    assert {name.split(".")[0] for name in named} <= allowed | set(sys.stdlib_module_names)


@pytest.mark.skipif("SIMPLER_HOME" not in os.environ, reason="SIMPLER_HOME names no checkout of SimplerEnv")
@pytest.mark.parametrize(
    ("suite", "task", "place"),
    [
        ("google-visual-matching", "pick_coke_can", 77),
        ("google-visual-matching", "move_near", 100),
        ("google-visual-matching", "open_drawer", 40),
        ("google-variant-aggregation", "place_apple_in_closed_top_drawer", 60),
        ("google-variant-aggregation", "move_near", 300),
        ("widowx", "put_eggplant_in_basket", 5),
    ],
)
def test_simplers_own_evaluator_makes_the_same_calls(
    act: Any, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: str, task: str, place: int
) -> None:
    """Its ``run_maniskill2_eval_single_episode`` on the stand-in, with a policy that terminates as ours does."""
    (trial,) = one(suite, task, place)
    ended, ours, _ = act(Terminating(after=3, horizon=1), [trial], any_rate=True)
    log = tmp_path / "theirs.jsonl"
    monkeypatch.setenv("STAND_IN_LOG", str(log))
    monkeypatch.delenv("STAND_IN_FAULTS", raising=False)
    overlays = assets / "real_inpainting"
    success = _official(trial, overlays, tmp_path, monkeypatch, 3, _commands(ours))
    theirs = [json.loads(line) for line in log.read_text().splitlines()]
    assert [call for call in theirs if call[0] != "process"] == [call for call in ours if call[0] != "process"]
    assert success == ended[0].result.success


def _commands(calls: list[list[Any]]) -> list[list[float]]:
    return [call[1] for call in calls if call[0] == "step"]


def _official(
    trial: Trial, overlays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, commands: list[Any]
) -> bool:
    """The official evaluator's episode; its model gives the same commands, so the calls can be compared."""

    class Model:
        steps = 0

        def reset(self, task: str) -> None:
            pass

        def step(self, image: np.ndarray, task: str) -> Any:
            action = np.array(commands[self.steps])
            self.steps += 1
            done = np.array([float(self.steps % after == 0)])
            return {}, {
                "world_vector": action[:3],
                "rot_axangle": action[3:6],
                "gripper": action[6:],
                "terminate_episode": done,
            }

        def visualize_epoch(self, *args: Any, **kwargs: Any) -> None:
            pass

    monkeypatch.syspath_prepend(str(STAND_IN))
    video = types.ModuleType("simpler_env.utils.visualization")
    video.write_video = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    euler = types.ModuleType("transforms3d.euler")
    euler.quat2euler = lambda q: (0.0, 0.0, 0.0)  # type: ignore[attr-defined]  # names a file, nothing else
    for name, module in (
        ("simpler_env.utils.visualization", video),
        ("transforms3d", types.ModuleType("transforms3d")),
        ("transforms3d.euler", euler),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    path = Path(os.environ["SIMPLER_HOME"]) / "simpler_env/evaluation/maniskill2_evaluator.py"
    spec = importlib.util.spec_from_file_location("maniskill2_evaluator", path)
    assert spec is not None and spec.loader is not None
    evaluator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluator)
    a, s = trial.arrangement, trial.start
    objects: dict[str, Any] = {"obj_episode_id": s.episode}
    if s.objects is not None:
        objects = {"obj_init_x": s.objects[0], "obj_init_y": s.objects[1]}
    return bool(
        evaluator.run_maniskill2_eval_single_episode(
            model=Model(), ckpt_path="model", robot_name=a.robot, env_name=a.environment, scene_name=a.scene,
            robot_init_x=s.robot[0], robot_init_y=s.robot[1], robot_init_quat=np.array(s.quaternion),
            control_mode=evaluator.get_robot_control_mode(a.robot, "model"),
            additional_env_build_kwargs=dict(a.options),
            rgb_overlay_path=str(overlays / a.overlay) if a.overlay else None,
            control_freq=a.control_rate, sim_freq=a.simulation_rate, max_episode_steps=a.limit,
            enable_raytracing=a.ray_tracing, logging_dir=str(tmp_path), **objects,
        )
    )  # fmt: skip


def test_a_worker_that_cannot_start_is_told_of_with_its_last_words(tmp_path: Path) -> None:
    """Here: a Python without SIMPLER."""
    crew = ProcessCrew([sys.executable, worker.__file__], 1, tmp_path, tries=1)
    with pytest.raises(Exception, match="No module named 'simpler_env'"):
        list(act_trials(load_policy("zero"), one("widowx", "stack_cube"), crew, conventions=PRESETS["ours"],
                        options=RunOptions(any_rate=True)))  # fmt: skip


def test_it_runs_as_a_file_of_any_python() -> None:
    told = subprocess.run([sys.executable, worker.__file__, "--help"], check=True, capture_output=True, text=True)
    assert "--shader" in told.stdout
