"""Run by a Python that has vla-eval, not by ours: its client and runner against the server at ``argv[1]``."""

import asyncio
import json
import sys

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.connection import Connection
from vla_eval.runners.sync_runner import SyncEpisodeRunner
from vla_eval.specs import IMAGE_RGB, LANGUAGE, POSITION_DELTA, ROTATION_EULER, DimSpec, check_specs

GRIPPER = DimSpec("gripper", 1, "continuous_01", (0, 1))


class Counting(StepBenchmark):
    """Eight steps; the picture of step t is all t."""

    def __init__(self):
        super().__init__()
        self.actions = []

    def get_tasks(self):
        return [{"name": "count"}]

    def reset(self, task):
        self.actions = []
        return 0

    def step(self, action):
        self.actions.append(np.asarray(action["actions"]).tolist())
        return StepResult(obs=len(self.actions), reward=0.0, done=len(self.actions) == 8, info={})

    def make_obs(self, raw_obs, task):
        picture = np.full((24, 32, 3), raw_obs, np.uint8)
        return {"images": {"primary": picture}, "task_description": "count", "states": np.zeros(2, np.float32)}

    def check_done(self, step_result):
        return step_result.done

    def get_step_result(self, step_result):
        return {"success": True}

    def get_action_spec(self):
        return {"position": POSITION_DELTA, "rotation": ROTATION_EULER, "gripper": GRIPPER}

    def get_observation_spec(self):
        return {"primary": IMAGE_RGB, "language": LANGUAGE}


async def main(url):
    benchmark, episodes = Counting(), []
    async with Connection(url) as connection:
        said = connection.server_info
        action = {key: DimSpec.from_dict(raw) for key, raw in said["action_spec"].items()}
        seen = {key: DimSpec.from_dict(raw) for key, raw in said["observation_spec"].items()}
        mismatches = check_specs(action, benchmark.get_action_spec(), seen, benchmark.get_observation_spec())
        for episode in (0, 1, 0):
            await SyncEpisodeRunner().run_episode(benchmark, {"name": "count", "episode_idx": episode}, connection)
            episodes.append(benchmark.actions)
        await connection.start_episode({})
        try:
            await connection.act({"images": {"primary": np.zeros((2, 2), np.uint8)}, "task_description": "x"})
            error = ""
        except RuntimeError as raised:
            error = str(raised)
    print(json.dumps({"server": said["model_server"], "mismatches": mismatches, "episodes": episodes, "error": error}))


asyncio.run(main(sys.argv[1]))
