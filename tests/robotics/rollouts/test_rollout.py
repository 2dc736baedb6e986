"""Closed loops on the tabletop: actions mean what recordings mean, and figures are functions of the seed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.policies import ActingOptions, load_policy
from selfflow_robotics.rollouts import Film, TabletopOptions, read_results, rollout
from selfflow_robotics.rollouts.run import jobs_of
from selfflow_robotics.tabletop import TASKS

SHORT = TabletopOptions(max_steps=12)
FOUR = ActingOptions(executed=4)


class Wandering:
    """Small random steps that depend on the question's seed and on what is seen."""

    about = PolicyAbout(name="wandering", horizon=6, control_rate=3)

    def chunks(self, requests):
        return np.stack([self._chunk(request) for request in requests])

    def _chunk(self, request):
        seen = request.observation
        looks = int(seen.image.astype(np.int64).sum()) + int(1e6 * np.abs(seen.state).sum())
        chunk = np.random.default_rng([request.seed, looks]).uniform(-0.1, 0.1, (6, 7))
        chunk[:, 6] = chunk[:, 6] > 0
        return chunk.astype(np.float32)


@pytest.fixture(scope="module")
def wandered():
    return rollout(Wandering(), ["pick", "close_drawer"], 5, seed=1, batch=3, acting=FOUR, tabletop=SHORT)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_experts_recorded_actions_succeed(scripts, task):
    """Recording -> house convention -> SimplerControl -> environment: the whole chain, in scenes of the rollout."""
    jobs = jobs_of([task], range(3), 11, 0)
    results = rollout(scripts(jobs), task, 3, seed=11, batch=2, tabletop=TabletopOptions(advance="success"))
    assert [row.success for row in results] == [True] * 3
    for row in results:
        assert row.success_any and row.queries == -(-row.steps // 4)
        assert len(row.instructions) == (2 if task == "place_in_drawer" else 1)


def test_the_environments_own_rule_brings_the_second_instruction_later(scripts):
    jobs = jobs_of(["place_in_drawer"], range(1), 11, 0)
    (row,) = rollout(scripts(jobs), "place_in_drawer", 1, seed=11)
    assert row.success and row.steps == 101  # the apple lies there by step 60, but nobody asked for it before 100


def test_success_is_what_is_true_at_the_last_step(scripts):
    """The expert picks it up, and then the gripper opens."""

    def dropping(script):
        opened = np.zeros((4, 7), np.float32)
        opened[:, 6] = 1
        held = np.zeros((4, 7), np.float32)
        return np.concatenate([script, held, opened])

    jobs = jobs_of(["pick"], range(1), 11, 0)
    options = TabletopOptions(until="limit", max_steps=40)
    (row,) = rollout(scripts(jobs, dropping), "pick", 1, seed=11, tabletop=options)
    assert row.success_any and not row.success and row.steps == 40


def test_an_episode_depends_on_its_number_and_the_seed_alone(wandered):
    for workers, batch in ((0, 1), (1, 2), (2, 16)):
        again = rollout(
            Wandering(), ["pick", "close_drawer"], 5, seed=1, batch=batch, workers=workers, acting=FOUR, tabletop=SHORT
        )
        assert again == wandered
    some = rollout(Wandering(), "close_drawer", [4, 2], seed=1, acting=FOUR, tabletop=SHORT)
    assert some == [wandered[9], wandered[7]]
    other = rollout(Wandering(), "pick", 5, seed=2, acting=FOUR, tabletop=SHORT)
    assert not {row.layout for row in other} & {row.layout for row in wandered}


def test_scenes_are_none_of_a_recordings():
    """record() numbers demonstration n's scene by SeedSequence([seed, n, attempt]), 32 bits."""
    layouts = {job.layout for job in jobs_of(["pick"], range(200), 0, 0)}
    recorded = {
        int(np.random.SeedSequence([0, n, attempt]).generate_state(1)[0]) for n in range(200) for attempt in range(20)
    }
    assert len(layouts) == 200 and not layouts & recorded


def test_doing_nothing_fails():
    results = rollout(load_policy("zero"), list(TASKS), 2, tabletop=SHORT)
    assert len(results) == 10 and not any(row.success_any for row in results)
    assert all(row.steps == 12 and row.queries == 2 for row in results)


def test_what_is_done_is_not_done_again(tmp_path, wandered):
    path = tmp_path / "results.jsonl"

    class Stops(Wandering):
        left = 9

        def chunks(self, requests):
            Stops.left -= 1
            if Stops.left < 0:
                raise KeyboardInterrupt
            return super().chunks(requests)

    settings = {"seed": 1, "batch": 2, "acting": FOUR, "tabletop": SHORT, "results": path}
    with pytest.raises(KeyboardInterrupt):
        rollout(Stops(), ["pick", "close_drawer"], 5, **settings)
    there = read_results(path)[1]
    assert 0 < len(there) < 10
    with open(path, "a") as file:
        file.write('{"task": "pick", "epi')  # what a killed process may leave
    new = []
    results = rollout(Wandering(), ["pick", "close_drawer"], 5, **settings, progress=new.append)
    assert results == wandered and len(new) == 10 - len(there)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 11 and len({(line["task"], line["episode"]) for line in lines[1:]}) == 10

    class Never(Wandering):
        def chunks(self, requests):
            raise AssertionError("nothing is left to ask")

    assert rollout(Never(), ["pick", "close_drawer"], 5, **settings) == wandered
    assert len(rollout(Wandering(), "pick", 6, **settings)) == 6  # more of the same


def test_other_settings_do_not_go_into_the_same_file(tmp_path):
    path = tmp_path / "results.jsonl"
    rollout(load_policy("zero"), "pick", 1, tabletop=SHORT, results=path)
    with pytest.raises(UserError, match="episodes with seed 0, and now it is 1"):
        rollout(load_policy("zero"), "pick", 1, seed=1, tabletop=SHORT, results=path)
    with pytest.raises(UserError, match=r"episodes with tabletop\.max_steps \d+, and now it is None; take"):
        rollout(load_policy("zero"), "pick", 1, results=path)
    with pytest.raises(UserError, match=r"episodes with policy\.name 'zero', and now it is 'random'; take"):
        rollout(load_policy("random"), "pick", 1, tabletop=SHORT, results=path)
    path.write_text("something else\n")
    with pytest.raises(UserError, match="holds no results"):
        rollout(load_policy("zero"), "pick", 1, tabletop=SHORT, results=path)
    with pytest.raises(UserError, match="there are no results"):
        read_results(tmp_path / "none.jsonl")


def test_films_do_not_change_results(tmp_path, wandered):
    from selfflow_robotics.rollouts.tabletop import CONTROL_RATE

    film = Film(tmp_path / "films", 1)
    results = rollout(Wandering(), ["pick", "close_drawer"], 5, seed=1, batch=3, acting=FOUR, tabletop=SHORT, film=film)
    assert results == wandered
    assert sorted(path.name for path in film.folder.iterdir()) == ["close_drawer-0000.mp4", "pick-0000.mp4"]
    import av

    with av.open(str(film.path("pick", 0))) as file:
        stream = file.streams.video[0]
        assert stream.frames == wandered[0].steps + 1 and stream.average_rate == CONTROL_RATE


def test_what_cannot_be_acted():
    zero = load_policy("zero")
    for tasks, episodes, words in (
        ("juggle", 1, "no task 'juggle'; there are pick"),
        ([], 1, "at least one task"),
        (["pick", "pick"], 1, "each once"),
        ("pick", 0, "at least one episode"),
        ("pick", [1, 1], "each once"),
        ("pick", [-1], "from 0"),
    ):
        with pytest.raises(UserError, match=words):
            rollout(zero, tasks, episodes)
    with pytest.raises(UserError, match="3 actions per second"):
        rollout(load_policy("zero", control_rate=5), "pick", 1)
