"""The worker in the real simulator: picture for picture what SIMPLER's own evaluator sees.

Runs where SELFFLOW_SIMULATOR_PYTHON names a Python that has SIMPLER and can draw (docs/simpler.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.simpler import trials, worker
from selfflow_robotics.simpler.conventions import preset
from selfflow_robotics.simpler.crew import ProcessCrew
from selfflow_robotics.simpler.runner import Acted, RunOptions, act_trials, start_message

PYTHON = os.environ.get("SELFFLOW_SIMULATOR_PYTHON")
pytestmark = [
    pytest.mark.simulator,
    pytest.mark.skipif(not PYTHON, reason="SELFFLOW_SIMULATOR_PYTHON names no Python that has SIMPLER"),
]
STEPS = 12
_OFFICIAL = """
import hashlib, json, sys
import mani_skill2_real2sim, numpy as np
from simpler_env.evaluation import maniskill2_evaluator as official
told, commands, seen = json.loads(sys.argv[1]), json.loads(sys.argv[2]), []
official.write_video = lambda path, images, fps: seen.extend(images)
class Model:
    steps = 0
    def reset(self, task): pass
    def step(self, image, task):
        action = np.array(commands[self.steps]); self.steps += 1
        return {}, dict(world_vector=action[:3], rot_axangle=action[3:6], gripper=action[6:], terminate_episode=[0.0])
    def visualize_epoch(self, *args, **kwargs): pass
overlay = told["overlay"] and str(mani_skill2_real2sim.ASSET_DIR / "real_inpainting" / told["overlay"])
places = dict(obj_episode_id=told["episode"])
if told["objects"] is not None:
    places = dict(obj_init_x=told["objects"][0], obj_init_y=told["objects"][1])
success = official.run_maniskill2_eval_single_episode(
    model=Model(), ckpt_path="m", robot_name=told["robot"], env_name=told["environment"], scene_name=told["scene"],
    robot_init_x=told["robot_xy"][0], robot_init_y=told["robot_xy"][1],
    robot_init_quat=np.array(told["robot_quaternion"]),
    control_mode=official.get_robot_control_mode(told["robot"], "m"), additional_env_build_kwargs=told["options"],
    rgb_overlay_path=overlay or None, control_freq=told["control_rate"], sim_freq=told["simulation_rate"],
    max_episode_steps=told["limit"], logging_dir=sys.argv[3], **places)
print(json.dumps([bool(success), [hashlib.sha1(np.ascontiguousarray(i[..., :3]).tobytes()).hexdigest() for i in seen]]))
"""


class Wandering:
    """Small random moves, the same for every episode."""

    about = PolicyAbout("wandering", STEPS, 3.0)
    chunk = np.random.default_rng(0).uniform(-0.04, 0.04, (STEPS, 7)).astype(np.float32)

    def chunks(self, requests: object) -> np.ndarray:
        return self.chunk[None]


@pytest.mark.parametrize("task", ["pick_coke_can", "move_near"])
def test_it_sees_what_the_official_evaluator_sees(task: str, tmp_path: Path) -> None:
    assert PYTHON is not None
    (trial,) = trials("google-visual-matching", [task], 1)
    told = {**start_message(trial, RunOptions(), True), "limit": STEPS}
    conventions = preset("rt-1", image_size=None)  # numbers as they are

    class Short(ProcessCrew):
        """Ends episodes early: the limit is the environment's."""

        def send(self, number: int, message: object) -> None:
            assert isinstance(message, dict)
            super().send(number, {"start": told} if "start" in message else message)

    crew = Short([PYTHON, worker.__file__], 1, tmp_path / "workers")
    (acted,) = act_trials(Wandering(), [trial], crew, conventions=conventions, filmed=[trial.number])
    assert isinstance(acted, Acted) and acted.frames is not None and acted.result.steps == STEPS
    commands = Wandering.chunk.astype(np.float64).tolist()
    command = [PYTHON, "-c", _OFFICIAL, json.dumps(told), json.dumps(commands), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    success, pictures = json.loads(done.stdout.splitlines()[-1])
    ours = [hashlib.sha1(np.ascontiguousarray(frame).tobytes()).hexdigest() for frame in acted.frames]
    assert len(set(ours)) > STEPS // 2 and ours == pictures
    assert acted.result.success == success
