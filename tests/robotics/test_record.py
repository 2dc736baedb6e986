"""Recording: RT-1's features exactly, actions that do again what was recorded, and data that workers do not change."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.actions.rotations import rpy_to_axis_angle
from selfflow_robotics.record import RecordOptions, record
from selfflow_robotics.rlds import FRACTAL_TREE
from selfflow_robotics.sources import open_episodes, open_files
from selfflow_robotics.tabletop import ID


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "data"
    options = RecordOptions(tasks=("pick", "close_drawer"), episodes=3, seed=5, noise=0.3)
    return folder, options, record(folder, options, progress=False)


def test_the_features_are_rt_1s(recorded):
    folder, _, _ = recorded
    assert open_files(folder).tree.json == FRACTAL_TREE.json
    assert open_episodes(folder).layout.name == "fractal20220817_data"


def test_counts_and_marks(recorded):
    folder, _, done = recorded
    source = open_episodes(folder)
    assert dict(done.episodes) == {"pick": 2, "close_drawer": 1} and len(source) == 3
    assert sum(done.steps.values()) == sum(source.files.read(0, n).length for n in range(3))
    for number in range(3):
        episode = source.files.read(0, number)
        last = np.arange(episode.length) == episode.length - 1
        np.testing.assert_array_equal(episode.columns["is_last"], last)
        np.testing.assert_array_equal(episode.columns["reward"], last)
        np.testing.assert_array_equal(episode.columns["action/terminate_episode"][:, 0], last)
        assert bool(episode.metadata["aspects/success"])
        assert source.read(0, number).terminate.tolist() == last.tolist()


def test_the_recorded_actions_do_it_again(recorded):
    """RT-1's columns back into the environment's action: the same poses step by step, and success."""
    folder, options, done = recorded
    assert sum(done.failed.values()) == 0, "the seeds below are those of first attempts"
    for number in range(3):
        episode = open_files(folder).read(0, number)
        layout = int(np.random.SeedSequence([options.seed, number, 0]).generate_state(1)[0])
        env = gymnasium.make(ID, task=options.tasks[number % 2], pictures=False)
        observation, info = env.reset(options={"episode": layout})
        assert info["instruction"] == episode.texts["observation/natural_language_instruction"][0]
        for step in range(episode.length - 1):
            pose = episode.columns["observation/base_pose_tool_reached"][step]
            np.testing.assert_allclose(observation["extra"]["tcp_pose"][:3], pose[:3], atol=1e-5)
            np.testing.assert_allclose(observation["extra"]["tcp_pose"][3:], pose[[6, 3, 4, 5]], atol=1e-5)
            turn = rpy_to_axis_angle(episode.columns["action/rotation_delta"][step])
            parts = (
                episode.columns["action/world_vector"][step],
                turn,
                episode.columns["action/gripper_closedness_action"][step],
            )
            observation, _, ended, _, info = env.step(np.concatenate(parts).astype(np.float32))
        assert ended and info["success"]


def test_wandering_begins_anywhere_and_succeeds_from_there(recorded, tmp_path):
    """The usual beginning is one place to the millimetre; from elsewhere the recorded actions solve the task too."""
    options = RecordOptions(tasks=("pick", "move_near", "open_drawer"), episodes=12, seed=3, wander=1.0)
    record(tmp_path / "away", options, progress=False)
    files = open_files(tmp_path / "away")
    first = {"observation/base_pose_tool_reached": [], "observation/gripper_closed": []}
    for number in range(12):
        episode = files.read(0, number)
        assert episode.columns["reward"][-1] == 1 and bool(episode.columns["is_first"][0])
        for name, values in first.items():
            values.append(episode.columns[name][0])
    places, closed = (
        np.stack(first["observation/base_pose_tool_reached"])[:, :3],
        np.stack(first["observation/gripper_closed"]),
    )
    usual = open_files(recorded[0]).read(0, 0).columns["observation/base_pose_tool_reached"][0, :3]
    assert np.median(np.linalg.norm(places - usual, axis=1)) > 0.1 and np.ptp(places[:, 1]) > 0.3
    assert closed.max() > 0.5 > 0.05 > closed.min()


def test_wandering_is_a_share_of_demonstrations(recorded, tmp_path):
    folder, options, _ = recorded
    half = RecordOptions(**{**vars(options), "wander": 0.5, "episodes": 8})
    record(tmp_path / "half", half, progress=False)
    begins = [
        open_files(tmp_path / "half").read(0, n).columns["observation/base_pose_tool_reached"][0, :3] for n in range(8)
    ]
    usual = open_files(folder).read(0, 0).columns["observation/base_pose_tool_reached"][0, :3]
    away = [np.linalg.norm(begin - usual) > 0.02 for begin in begins]
    assert any(away) and not all(away)
    with pytest.raises(UserError, match="wander is a share"):
        record(tmp_path / "more", RecordOptions(tasks=("pick",), episodes=1, wander=2), progress=False)


def test_the_data_do_not_depend_on_the_workers(recorded, tmp_path):
    folder, options, _ = recorded
    record(tmp_path / "again", options, workers=2, progress=False)
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_task_of_two_parts_is_two_episodes(tmp_path):
    done = record(tmp_path / "data", RecordOptions(tasks=("place_in_drawer",), episodes=1), progress=False)
    assert dict(done.episodes) == {"place_in_drawer": 2}
    source = open_episodes(tmp_path / "data")
    first, second = (source.read(0, n) for n in range(2))
    assert first.instruction.startswith("open ") and second.instruction.startswith("place ")
    assert first.terminate[-1] and second.terminate[-1]
    np.testing.assert_array_equal(first.states[-1, :7], second.states[0, :7])  # it goes on where it was


def test_the_second_instruction_comes_while_the_hand_is_on_the_handle(tmp_path):
    """As in rollouts, where it comes as soon as the drawer is open: who learns from this has seen how to go on."""
    record(tmp_path / "data", RecordOptions(("place_in_drawer",), 2, seed=4), progress=False)
    source = open_episodes(tmp_path / "data")
    for number in range(0, len(source), 2):
        first, second = (source.read(*source.locate(number + part)) for part in (0, 1))
        closed = second.state_names.index("gripper_closed")
        assert second.instruction.startswith("place") and second.states[0][closed] > 0.1
        assert np.array_equal(second.states[0], first.states[-1]) and second.states[-1][closed] < 0.1


def test_sound_is_recorded_on_request(tmp_path):
    record(tmp_path / "data", RecordOptions(tasks=("close_drawer",), episodes=1, sound=True), progress=False)
    episode = open_episodes(tmp_path / "data").read(0, 0)
    assert episode.sound.shape == (len(episode), 2, 8000) and episode.sound_rate == 24000
    assert np.abs(episode.sound).max() > 0.01 and np.abs(episode.sound[0]).max() == 0


def test_what_cannot_be_recorded(tmp_path):
    with pytest.raises(UserError, match="no task 'juggle'; there are pick"):
        record(tmp_path / "a", RecordOptions(tasks=("juggle",), episodes=1), progress=False)
    with pytest.raises(UserError, match="at least one episode"):
        record(tmp_path / "b", RecordOptions(tasks=("pick",), episodes=0), progress=False)
    with pytest.raises(UserError, match="variant"):
        record(tmp_path / "c", RecordOptions(tasks=("pick",), episodes=1, variant=("nice",)), progress=False)
    assert not any(tmp_path.iterdir())


def test_every_name_of_a_scene_one_after_another(tmp_path):
    """The same first picture with three, and with six instructions; then another scene. Cut off, nobody is done."""
    options = RecordOptions(tasks=("pick_among", "move_near"), episodes=14, seed=3, noise=0.5, every_name=True, first=4)
    record(tmp_path, options, progress=False)
    source = open_episodes(tmp_path)
    episodes = [source.read(*source.locate(number)) for number in range(14)]
    raw = [source.files.read(*source.locate(number)) for number in range(14)]
    first = [episode.images["image"].read([0])[0] for episode in episodes]
    for begin, every, count in ((0, 2, 3), (1, 2, 6)):
        of_scene = [begin + every * i for i in range(count)]
        assert len({episodes[n].instruction for n in of_scene}) == count
        assert all((first[n] == first[begin]).all() for n in of_scene)
        after = begin + every * count
        assert (first[after] != first[begin]).any()
    assert {len(episode) for episode in episodes} == {4}
    assert not any(episode.terminate.any() for episode in episodes)
    assert not any(one.columns["is_last"].any() or one.metadata["aspects/success"] for one in raw)
    # Named differently, the hand goes elsewhere from the first step on.
    assert not np.allclose(episodes[0].actions[0], episodes[2].actions[0], atol=1e-3)
