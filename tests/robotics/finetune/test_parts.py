"""Data, statistics, spec and model of a run, from its config; and what is refused before there is a folder."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import ObjectiveConfig
from selfflow_robotics.finetune.config import FinetuneConfig
from selfflow_robotics.finetune.parts import (
    episodes_of,
    joint_config,
    open_data,
    robot_spec,
    robot_statistics,
    robot_tokenizer,
)
from selfflow_robotics.measuring import measure
from selfflow_robotics.sources import open_episodes
from selfflow_robotics.statistics import FILE_NAME, Statistics
from selfflow_tokenizers import ByteTextEncoder
from tests.robotics.tiny_robot import config, write_data


def test_the_first_episodes_are_held_out(make_parts):
    parts = make_parts()
    assert (parts.held_out, parts.train) == ((0, 1), (2, 3, 4, 5, 6, 7, 8, 9))
    assert parts.left_out == ((0, 0), (0, 1))  # shards of four
    parts = make_parts("data.episodes=3")
    assert parts.train == (2, 3, 4)
    assert parts.left_out == ((0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1))


def test_or_a_split_of_their_own(dot_config):
    data = open_data(config(dot_config, "data.held_out=val", "data.held_out_episodes=3"))
    assert data.train == tuple(range(10)) and data.held_out == (0, 1, 2) and data.left_out == ()
    assert data.held_out_files.files.split == "val" and data.files.files.split == "train"
    assert open_data(config(dot_config, "data.held_out=val", "data.held_out_episodes=50")).held_out == (0, 1, 2, 3)


def test_at_least_one_episode_is_left_to_train_on(dot_config, dot_data):
    data = open_data(config(dot_config, "data.held_out_episodes=50"))
    assert len(data.held_out) == 9 and data.train == (9,)


def test_too_few_episodes_and_none_at_all(tmp_path, still_tokenizer, dot_config):
    one = write_data(tmp_path / "one" / "1.0.0", {"train": 1})
    with pytest.raises(UserError, match="holds 1 episodes, too few to hold 2 out"):
        open_data(config(dot_config, f"data.path={one}"))
    with pytest.raises(UserError, match="there is no robot data to fine-tune on; name a folder with --data"):
        open_data(config(dot_config, "data.path=''"))
    with pytest.raises(UserError, match="there is no"):
        open_data(config(dot_config, "data.path=nowhere"))


def test_files_that_were_never_downloaded_are_no_episodes(dot_config, dot_data, tmp_path):
    folder = shutil.copytree(dot_data, tmp_path / "partial" / "1.0.0")
    sorted(folder.glob("*train.tfrecord*"))[0].unlink()
    data = open_data(config(dot_config, f"data.path={folder}"))
    assert data.held_out == (4, 5) and data.train == (6, 7, 8, 9)


def test_a_damaged_first_episode_is_passed_over(dot_config, dot_data, tmp_path):
    folder = shutil.copytree(dot_data, tmp_path / "damaged" / "1.0.0")
    file = sorted(folder.glob("*train.tfrecord*"))[1]
    content = bytearray(file.read_bytes())
    content[100] ^= 255  # in the first record of the second shard: episode 4
    file.write_bytes(content)
    settings = config(dot_config, f"data.path={folder}")
    data = open_data(settings)
    assert [e.id for e in episodes_of(data.files, (3, 4, 5))] == ["train-00000-of-00003/3", "train-00001-of-00003/1"]
    with pytest.raises(UserError, match="not one of 1 episodes .* can be read"):
        episodes_of(data.files, (4,))
    later = dataclasses.replace(data, train=(4, 5))
    spec = robot_spec(settings, later, robot_statistics(settings, later, None), robot_tokenizer(settings))
    assert spec.control_rate == 3


def test_statistics_named_beside_the_data_or_measured(dot_config, dot_data, tmp_path, capsys):
    settings = config(dot_config)
    beside = robot_statistics(settings, open_data(settings), None)
    assert beside == Statistics.load(dot_data / FILE_NAME)
    assert "measuring" not in capsys.readouterr().out

    bare = shutil.copytree(dot_data, tmp_path / "bare" / "1.0.0")
    (bare / FILE_NAME).unlink()
    settings = config(dot_config, f"data.path={bare}")
    measured = robot_statistics(settings, open_data(settings), tmp_path / "run")
    assert "measuring actions and states of the whole split" in capsys.readouterr().out
    assert measured == beside
    # A run measures once: going on, it finds its own.
    assert robot_statistics(settings, open_data(settings), tmp_path / "run", begun=True) == measured
    assert "measuring" not in capsys.readouterr().out

    other = measure(open_episodes(dot_data, None, "val"), progress=False)
    other.save(tmp_path / "other.json")
    named = config(dot_config, f"data.statistics={tmp_path / 'other.json'}")
    assert robot_statistics(named, open_data(named), None) == other != beside


def test_statistics_of_other_data_are_never_taken_for_a_runs_own(dot_config, dot_data, tmp_path):
    """What an earlier try left in the folder is of that try's data; what lies beside the data may be made anew while a
    run is stopped, and the run's actions mean what they meant.
    """
    run, bare = tmp_path / "run", shutil.copytree(dot_data, tmp_path / "bare" / "1.0.0")
    beside = Statistics.load(bare / FILE_NAME)
    (bare / FILE_NAME).unlink()
    other = measure(open_episodes(dot_data, None, "val"), progress=False)
    run.mkdir()
    other.save(run / FILE_NAME)
    settings = config(dot_config, f"data.path={bare}")
    data = open_data(settings)
    assert robot_statistics(settings, data, run) == beside == Statistics.load(run / FILE_NAME)

    robot_spec(settings, data, beside, robot_tokenizer(settings)).save(run / "model")
    other.save(bare / FILE_NAME)
    assert robot_statistics(settings, data, run, begun=True, resumed=True) == beside != other
    assert robot_statistics(settings, data, run) == other  # a new run


def test_the_spec_is_the_datas_and_the_configs(make_parts):
    parts = make_parts("data.fit=pad", "data.video_rate=6", "tasks={policy: 1, world: 0.5, joint: 0}")
    spec = parts.spec
    assert (spec.robot, spec.control_rate, spec.video_rate, spec.horizon) == ("google_robot", 3, 6, 3)
    assert (spec.height, spec.width, spec.fit, spec.camera) == (32, 32, "pad", "")
    assert make_parts("data.camera=image").spec.camera == "image"
    assert spec.action_names == ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    assert spec.state_names == ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper_closed")
    assert spec.tasks == ("policy", "world") and spec.state_optional
    actions = spec.actions
    assert actions.kinds == ("quantile",) * 6 + ("unit",) and actions.constant == ("z", "roll", "pitch")
    assert spec.states.kinds == ("quantile",) * 8


def test_how_things_are_normalised_is_a_setting(make_parts):
    spec = make_parts("data.actions=gaussian", "data.gripper=identity", "data.states=bounds").spec
    assert spec.actions.kinds == ("gaussian",) * 6 + ("identity",)
    assert set(spec.states.kinds) == {"bounds"}
    raw = np.array([[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]], np.float32)
    assert spec.seen_actions(raw)[:, 6].tolist() == [1, 0]


def test_the_state_may_be_absent_optional_or_needed(make_parts):
    absent = make_parts("data.state=absent").spec
    assert absent.state_names == () and absent.states is None and absent.state_optional
    assert not make_parts("data.state_dropout=0").spec.state_optional


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.video_rate=4"], "video_rate 4 is no whole multiple of the control rate 3"),
        (["data.video_rate=1"], "no whole multiple"),
        (["data.camera=wrist"], "has no camera 'wrist'; there are image"),
        (["data.split=test"], "split"),
        (["data.layout=nothing"], "there is no layout 'nothing'"),
        (["tokenizer=tiny/audio"], "^tokenizer: .* is a tokenizer of audio"),
        (["tokenizer=nowhere"], "^tokenizer: there is no folder 'nowhere'"),
        (["data.statistics=nowhere.json"], "nowhere.json"),
        (["model.modalities={action: 6}"], "model.modalities.action is 6; here there are"),
        (["model.modalities={sound: 6}"], "model.modalities.sound is 6"),
    ],
)
def test_what_a_run_refuses(dot_config, overrides, sentence):
    settings = config(dot_config, *overrides)
    with pytest.raises(UserError, match=sentence) as caught:
        data = open_data(settings)
        tokenizer = robot_tokenizer(settings)
        spec = robot_spec(settings, data, robot_statistics(settings, data, None), tokenizer)
        joint_config(settings, spec, tokenizer, ByteTextEncoder(), {})
    assert "\n" not in str(caught.value)


def test_statistics_of_other_numbers_are_refused(dot_config, dot_data, tmp_path):
    whole = Statistics.load(dot_data / FILE_NAME)
    cut = dataclasses.replace(
        whole.actions, **{f.name: getattr(whole.actions, f.name)[:6] for f in dataclasses.fields(whole.actions)}
    )
    dataclasses.replace(whole, actions=cut).save(tmp_path / "six.json")
    settings = config(dot_config, f"data.statistics={tmp_path / 'six.json'}")
    data = open_data(settings)
    with pytest.raises(UserError, match="actions of 6 numbers, those of .* have 7"):
        robot_spec(settings, data, robot_statistics(settings, data, None), robot_tokenizer(settings))


def test_clips_fill_the_tokenizers_latent_frames(make_parts, clip_tokenizer):
    compressed = f"tokenizer={clip_tokenizer}"
    for rate in (12, 24):
        assert make_parts(compressed, f"data.video_rate={rate}").spec.video_rate == rate
    with pytest.raises(UserError, match="takes 1 \\+ 4k; set data.video_rate to a multiple of 12"):
        make_parts(compressed)
    # Whole horizons fill them, single actions do not; these are drawn unless data.shorter is 0.
    even = (compressed, "data.video_rate=6", "data.horizon=4")
    with pytest.raises(UserError, match="1 actions at 3 a second are 3 frames at 6"):
        make_parts(*even)
    assert make_parts(*even, "data.shorter=0").spec.frames(4) == 9


def test_the_model_takes_the_robots_channels(make_parts):
    parts = make_parts()
    shape = joint_config(parts.config, parts.spec, parts.tokenizer, ByteTextEncoder(), {"audio": 32})
    assert shape.modalities == {"video": 12, "action": 7, "state": 8, "audio": 32}
    assert shape.text_channels == ByteTextEncoder().spec.channels and shape.width == 32
    blind = make_parts("data.state=absent")
    shape = joint_config(blind.config, blind.spec, blind.tokenizer, ByteTextEncoder(), {})
    assert shape.modalities == {"video": 12, "action": 7}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["tasks={fly: 1}"], "tasks names 'fly'; a robot's tasks are policy, joint, world, video, inverse"),
        (["tasks={policy: -1}"], "tasks.policy is a share"),
        (["tasks={policy: 0}"], "at least one task with a positive share"),
        (["objective.name=repa", "objective.encoders={video: x}"], "repa has no encoder for a robot's tokens"),
        (["lora.rank=4"], "lora adapts a model that there is"),
        (["audio=kept"], "name one with --init"),
        (["data.horizon=0"], "horizon is at least 1"),
        (["data.stride=0"], "stride is at least 1"),
        (["data.shorter=1.5"], "shorter is a share"),
        (["data.state_dropout=-1"], "state_dropout is a share"),
        (["data.episodes=-1"], "cannot be negative"),
        (["data.held_out=train"], "held_out names a split that is trained on, 'train' of 'train'"),
        (["data.held_out=val+train"], "held_out names a split that is trained on, 'train' of 'train'"),
        (["offline.windows=0"], "at least 1"),
        (["data.colour=red"], "colour"),
    ],
)
def test_impossible_settings(dot_config, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        config(dot_config, *overrides)


def test_what_the_objective_leaves_open():
    open_ones = load_config(FinetuneConfig).robot_objective()
    assert open_ones.mask_ratio == {"action": 0.1, "state": 0.0}
    assert open_ones.given_levels == {"video": 0.2, "action": 0.0, "state": 0.0}
    stated = FinetuneConfig(
        objective=ObjectiveConfig(mask_ratio={"action": 0.3}, given_levels={"action": 0.1}, given_level=0.4)
    ).robot_objective()
    assert stated.mask_ratio == {"action": 0.3, "state": 0.0}
    assert stated.given_levels == {"video": 0.4, "action": 0.1, "state": 0.0}
    named = FinetuneConfig(objective=ObjectiveConfig(given_levels={"video": 0.0}, given_level=0.4)).robot_objective()
    assert named.given_levels["video"] == 0
