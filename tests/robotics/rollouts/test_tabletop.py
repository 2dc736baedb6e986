"""What a policy is shown is what it would have read in a recording, and looking changes nothing."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.episode import EncodedPictures
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.record import RecordOptions, _jpeg, record
from selfflow_robotics.rollouts import TabletopOptions, tabletop_observation
from selfflow_robotics.rollouts.simulation import Job
from selfflow_robotics.rollouts.tabletop import CONTROL_RATE, STATE_NAMES, TabletopSimulation, check_policy
from selfflow_robotics.sources import open_episodes
from selfflow_robotics.tabletop import ID, Expert


@pytest.mark.parametrize("task", ["pick", "place_in_drawer"])
@pytest.mark.parametrize("pictures", [True, False])
def test_an_observation_is_what_a_recording_has_at_that_step(tmp_path, task, pictures):
    options = RecordOptions(tasks=(task,), episodes=1, seed=3, noise=0.2)
    assert not any(record(tmp_path / "data", options, progress=False).failed.values())
    source = open_episodes(tmp_path / "data")
    layout = int(np.random.SeedSequence([3, 0, 0]).generate_state(1)[0])
    env = gymnasium.make(ID, task=task, pictures=pictures, render_mode="rgb_array")
    obs, _ = env.reset(options={"episode": layout})
    expert = Expert(env, noise=0.2, seed=layout)
    for number in range(len(source)):
        episode = source.read(0, number)
        assert episode.state_names == STATE_NAMES and episode.control_rate == CONTROL_RATE
        for step in range(len(episode) - 1):
            action = expert.act()  # which advances to the second instruction, as it did while recording
            seen = tabletop_observation(env, obs)
            assert seen.instruction == episode.instruction
            assert seen.state.dtype == np.float32
            np.testing.assert_array_equal(seen.state, episode.states[step])
            if step % 5 == 0:
                again = EncodedPictures([_jpeg(seen.image, options.quality)]).read()
                np.testing.assert_array_equal(again, episode.images["image"].read([step]))
            obs, *_ = env.step(action)


def _actions(count):
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (count, 7))
    actions[:, 6] = np.arange(count) % 3 > 0
    return actions


def test_drawing_less_often_shows_the_same():
    """Every step's picture drawn, as a film needs, or only where a policy looks."""
    job = Job("place_in_drawer", 0, layout=5, seed=0)
    often, seldom = TabletopSimulation(TabletopOptions()), TabletopSimulation(TabletopOptions())
    films = [often.start(Job(job.task, 0, job.layout, 0, filmed=True)).frames]
    seldom.start(job)
    for chunk in np.split(_actions(30), 3):
        one, two = often.carry_out(chunk), seldom.carry_out(chunk)
        np.testing.assert_array_equal(one.observation.image, two.observation.image)
        np.testing.assert_array_equal(one.observation.state, two.observation.state)
        assert two.frames == ()
        films.append(one.frames)
    assert [len(frames) for frames in films] == [1, 10, 10, 10]


def test_an_episode_ends_at_its_limit():
    simulation = TabletopSimulation(TabletopOptions(max_steps=7))
    simulation.start(Job("pick", 0, layout=1, seed=0))
    assert simulation.carry_out(np.zeros((5, 7))).observation is not None
    over = simulation.carry_out(np.zeros((5, 7)))
    assert over.observation is None and over.steps == 7 and not over.success


def test_the_second_instruction_comes_at_step_100():
    simulation = TabletopSimulation(TabletopOptions(max_steps=101))
    simulation.start(Job("place_in_drawer", 0, layout=1, seed=0))
    still = np.zeros((99, 7))
    still[:, 6] = 1
    assert len(simulation.carry_out(still).instructions) == 1
    after = simulation.carry_out(still[:1])
    assert len(after.instructions) == 2 and after.observation.instruction == after.instructions[1]
    assert after.instructions[1].startswith("place ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": 0}, "at least one step"),
        ({"until": "noon"}, "until 'success' or 'limit'"),
        ({"advance": "never"}, "'environment' or 'success'"),
        ({"variant": ("nice",)}, "nice"),
        ({"gripper": "magic"}, "'change' or by 'level'"),
        ({"sticky": 0}, "sticky"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(UserError, match=words):
        TabletopOptions(**options)


def test_one_variant_may_be_named_alone():
    assert TabletopOptions(variant="light") == TabletopOptions(variant=("light",))
    job = Job("pick", 0, layout=3, seed=0)
    base, light = (TabletopSimulation(TabletopOptions(v)).start(job).observation for v in ("base", "light"))
    assert not np.array_equal(base.image, light.image) and base.instruction == light.instruction


def test_policies_that_do_not_fit():
    def about(**values):
        return PolicyAbout(**{"name": "p", "horizon": 4, "control_rate": 3.0, **values})

    check_policy(about())
    check_policy(about(state_names=STATE_NAMES))
    with pytest.raises(UserError, match="3 actions per second; p gives 5"):
        check_policy(about(control_rate=5.0))
    with pytest.raises(UserError, match="p gives j1, j2"):
        check_policy(about(action_names=("j1", "j2")))
    with pytest.raises(UserError, match="takes a state of a"):
        check_policy(about(state_names=("a",)))
