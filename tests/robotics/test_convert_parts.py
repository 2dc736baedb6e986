"""Conversions in parts: any number of processes, any kill and any place of it give the data set of one piece."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.convert import TargetOptions, convert
from selfflow_robotics.lerobot import LeRobotWriter, open_lerobot
from selfflow_robotics.naming import lerobot_naming, rlds_naming
from selfflow_robotics.parts import PARTS
from selfflow_robotics.rlds import RldsWriter
from selfflow_robotics.sources import open_files
from selfflow_robotics.verify import verify
from tests.robotics.rich import rich_source

VIDEO = TargetOptions(to="lerobot")
IMAGE = TargetOptions(to="lerobot", pictures="image")
RLDS = TargetOptions(to="rlds", name="rich", episodes_per_shard=3)
BAD = {(0, 2), (1, 0), (1, 1), (1, 2)}  # of parts of three episodes: the end of the first, and the whole second


def run(target: Path, options: TargetOptions, source=None, **settings):
    settings = {"episodes_per_part": 3, "progress": False, **settings}
    return convert(source or rich_source(), target, options, **settings)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def in_one_piece(folder: Path, options: TargetOptions, bad=()) -> Path:
    """The truth: a writer that gets all episodes behind one another, without any part."""
    source = rich_source()
    if options.to == "lerobot":
        naming = lerobot_naming(source)
        writer = LeRobotWriter(
            folder,
            features=naming.features,
            metadata_features=naming.metadata_features,
            fps=5,
            robot_type="widowx",
            extra_info=naming.note,
            pictures=options.pictures,
        )
    else:
        naming = rlds_naming(source)
        writer = RldsWriter(
            folder,
            name="rich",
            features=naming.features,
            metadata_features=naming.metadata_features,
            episodes_per_shard=3,
            description="Converted from RLDS data by selfflow-mm.",
        )
    with writer:
        for number in range(len(source)):
            place = source.locate(number)
            if place not in bad:
                writer.write(naming.translate(source.files.read(*place)))
    return folder


def assert_same_reading(one: Path, other: Path) -> int:
    """Every column, text, value and picture of both; gives the number of episodes."""
    a, b = open_files(one), open_files(other)
    assert (a.features, a.metadata_features, a.splits) == (b.features, b.metadata_features, b.splits)
    every = [[f.read(s, i) for s, shard in enumerate(f.shards) for i in range(shard.episodes)] for f in (a, b)]
    for x, y in zip(*every, strict=True):
        assert x.length == y.length and x.columns.keys() == y.columns.keys() == x.columns.keys()
        for name, column in x.columns.items():
            assert column.dtype == y.columns[name].dtype and column.tobytes() == y.columns[name].tobytes(), name
        assert {name: list(words) for name, words in x.texts.items()} == {n: list(w) for n, w in y.texts.items()}
        assert x.metadata.keys() == y.metadata.keys()
        for name, value in x.metadata.items():
            assert np.asarray(value).tobytes() == np.asarray(y.metadata[name]).tobytes(), name
        assert x.pictures.keys() == y.pictures.keys()
    for x, y in zip(*every, strict=True):
        for name in x.pictures:
            error = np.abs(x.pictures[name].read().astype(int) - y.pictures[name].read()).mean(axis=(1, 2, 3))
            # A video's rate control knows what came before. Two different frames of noise are 85 apart.
            assert error.max() <= (8 if a.features[name].encoding == "video" else 0), (name, error)
    return len(every[0])


def table(folder: Path, what: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob(f"{what}/chunk-*/file-*.parquet"))])


@pytest.mark.parametrize("options", [VIDEO, IMAGE], ids=["video", "image"])
def test_a_joined_lerobot_set_is_that_of_one_piece(options, tmp_path):
    done = run(tmp_path / "parts", options)
    assert (done.episodes, done.steps, done.quarantine) == (10, 40, ())
    assert verify(rich_source(), done, options).good
    one = in_one_piece(tmp_path / "one", options)
    assert assert_same_reading(tmp_path / "parts", one) == 10
    assert len(list((tmp_path / "parts/data").rglob("*.parquet"))) == 4
    assert tree(tmp_path / "parts").keys() - tree(one).keys() == {
        name
        for number in (1, 2, 3)
        for name in (
            f"data/chunk-000/file-00{number}.parquet",
            *([f"videos/observation.images.front/chunk-000/file-00{number}.mp4"] if options is VIDEO else ()),
        )
    }
    # What readers do not show: the whole tables but the numbers of files, tasks, and statistics.
    mine, theirs = (table(folder, "data") for folder in (tmp_path / "parts", one))
    assert mine.schema.equals(theirs.schema, check_metadata=True)
    assert mine.drop_columns(["bits"]).equals(theirs.drop_columns(["bits"]))  # of NaN, which is not equal to itself
    moved = [n for n in table(one, "meta/episodes").column_names if n.startswith(("data/", "videos/", "stats/obs"))]
    mine, theirs = (table(folder, "meta/episodes").drop_columns(moved) for folder in (tmp_path / "parts", one))
    assert mine.schema.equals(theirs.schema) and mine.to_pydict().keys() == theirs.to_pydict().keys()
    assert str(mine.to_pydict()) == str(theirs.to_pydict())  # as text: NaN is not equal to itself
    for name in ("meta/tasks.parquet", "meta/subtasks.parquet", "meta/info.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (one / name).read_bytes()
    mine, theirs = (open_lerobot(folder).statistics for folder in (tmp_path / "parts", one))
    assert mine.keys() == theirs.keys()
    for name, entry in theirs.items():
        for key, value in entry.items():
            np.testing.assert_allclose(mine[name][key], value, rtol=1e-9, atol=1e-12, err_msg=f"{name} {key}")


def test_a_small_lerobot_set_is_one_part_and_has_the_writer_s_bytes(tmp_path):
    assert [VIDEO.episodes_per_part(total) for total in (10, 50, 1600, 87212)] == [50, 50, 100, 500]
    run(tmp_path / "parts", VIDEO, episodes_per_part=None)
    assert tree(tmp_path / "parts") == tree(in_one_piece(tmp_path / "one", VIDEO))


def test_an_rlds_set_has_the_writer_s_bytes(tmp_path):
    run(tmp_path / "parts", RLDS)
    assert tree(tmp_path / "parts") == tree(in_one_piece(tmp_path / "one", RLDS))


@pytest.mark.parametrize("options", [VIDEO, RLDS], ids=["video", "rlds"])
def test_processes_change_no_byte(options, tmp_path):
    run(tmp_path / "none", options, rich_source(BAD))
    run(tmp_path / "two", options, rich_source(BAD), workers=2)
    assert tree(tmp_path / "none") == tree(tmp_path / "two")


@pytest.mark.parametrize("options", [IMAGE, RLDS], ids=["lerobot", "rlds"])
def test_what_is_damaged_is_left_out_of_parts_too(options, tmp_path):
    source = rich_source(BAD)
    done = run(tmp_path / "parts", options, source)
    assert done.episodes == 6 and {(entry.shard, entry.index) for entry in done.quarantine} == {
        (f"shard-{shard}", index) for shard, index in BAD
    }
    lines = (tmp_path / "parts/quarantine.jsonl").read_text().splitlines()
    assert [(json.loads(line)["shard"], json.loads(line)["index"]) for line in lines] == [
        (entry.shard, entry.index) for entry in done.quarantine
    ]
    assert verify(source, done, options).good
    if options is RLDS:
        assert [shard.episodes for shard in open_files(tmp_path / "parts").shards] == [2, 3, 1]
    else:
        assert_same_reading(tmp_path / "parts", in_one_piece(tmp_path / "one", options, BAD))


def test_a_second_split_joins_the_first(tmp_path):
    run(tmp_path / "out", RLDS)
    train = {name: content for name, content in tree(tmp_path / "out").items() if ".tfrecord-" in name}
    other = rich_source()
    other.files.split = "val"
    run(tmp_path / "out", RLDS, other, episodes=range(4))
    assert open_files(tmp_path / "out").splits == {"train": 10, "val": 4}
    after = tree(tmp_path / "out")
    assert train.items() <= after.items() and len(after) == len(train) + 2 + 2
    with pytest.raises(UserError, match="already has a split 'val'"):
        run(tmp_path / "out", RLDS, other)
    assert tree(tmp_path / "out") == after
    run(tmp_path / "out", overwriting(RLDS), other, episodes=range(2))
    assert open_files(tmp_path / "out").splits == {"train": 10, "val": 2}
    assert len(tree(tmp_path / "out")) == len(train) + 1 + 2


def test_not_one_readable_episode_leaves_nothing(tmp_path):
    every = {(shard, index) for shard in range(3) for index in range(4)}
    with pytest.raises(UserError, match="not one episode .* can be read: its checksum is wrong"):
        run(tmp_path / "out", RLDS, rich_source(every))
    assert not (tmp_path / "out").exists()


KILLED = """
import sys
from pathlib import Path
from selfflow_robotics.convert import TargetOptions, convert
from tests.robotics.rich import rich_source
if __name__ == "__main__":
    options = TargetOptions(to=sys.argv[2], name="rich", episodes_per_shard=3, pictures="image")
    source = rich_source({(0, 2)}, delay=0.15)
    convert(source, Path(sys.argv[1]), options, episodes_per_part=3, workers=int(sys.argv[3]), progress=False)
"""


@pytest.mark.parametrize(("options", "workers"), [(IMAGE, 0), (IMAGE, 2), (RLDS, 2)])
def test_after_a_kill_the_same_goes_on(options, workers, repository, tmp_path):
    target, script = tmp_path / "out", tmp_path / "script.py"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, script, target, options.to, str(workers)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), *sys.path])},
    )
    parts = target / PARTS
    latest = "part-000002" if workers else "part-000001"
    wait_until(lambda: (parts / "part-000000").exists() and list(parts.glob(f"{latest}.writing-*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(alive(path) for path in parts.glob("*.writing-*")))  # workers see that they are alone
    left = {path.name for path in parts.glob("part-??????")}
    assert "part-000000" in left and latest not in left
    with pytest.raises(UserError):  # what is not finished does not open
        open_files(target)
    source = rich_source({(0, 2)})
    done = run(target, options, source)
    again = {source.locate(number) for number in range(10) if f"part-{number // 3:06d}" not in left}
    assert sorted(source.files.reads) == sorted(again)
    assert [(entry.shard, entry.index) for entry in done.quarantine] == [("shard-0", 2)]
    assert (done.episodes, done.steps) == (9, 34)
    run(tmp_path / "never", options, rich_source({(0, 2)}))
    assert tree(target) == tree(tmp_path / "never")


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def alive(begun: Path) -> bool:
    try:
        os.kill(int(begun.name.rpartition("-")[2]), 0)
    except ProcessLookupError:
        return False
    return True


class Cut(BaseException):
    """A kill at one moment."""


@pytest.fixture(scope="module")
def every_part_done(tmp_path_factory):
    """Kind of target -> a folder with an old data set in which all parts of a new one are done."""
    places = {}
    for options in (VIDEO, RLDS):
        folder, fresh = (tmp_path_factory.mktemp(name) / "out" for name in ("done", "fresh"))
        convert(rich_source(), folder, options, episodes=range(7), progress=False)
        unfinished(folder, overwriting(options), episodes_per_part=5)
        run(fresh, options, episodes_per_part=5)
        places[options] = folder, tree(fresh)
    return places


def unfinished(target: Path, options: TargetOptions = IMAGE, **settings) -> None:
    """A conversion that was cut off when all its parts were done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfflow_robotics.convert.Target.join", cut)
        with pytest.raises(Cut):
            run(target, options, **settings)


def cut(*_, **__):
    raise Cut


def overwriting(options: TargetOptions) -> TargetOptions:
    return replace(options, overwrite=True)


def cut_moves(patch, count: int) -> list[int]:
    """Every renaming and removal after the first ``count`` is cut off; gives a list that counts them."""
    seen: list[int] = []
    originals = {"replace": os.replace, "rename": Path.rename, "unlink": Path.unlink, "rmtree": shutil.rmtree}

    def counted(original):
        def moved(*arguments, **settings):
            if len(seen) >= count:
                raise Cut
            seen.append(1)
            return original(*arguments, **settings)

        return moved

    patch.setattr(os, "replace", counted(originals["replace"]))
    patch.setattr(Path, "rename", counted(originals["rename"]))
    patch.setattr(Path, "unlink", counted(originals["unlink"]))
    patch.setattr(shutil, "rmtree", counted(originals["rmtree"]))
    return seen


@pytest.mark.parametrize("options", [VIDEO, RLDS], ids=["lerobot", "rlds"])
def test_joining_may_be_cut_off_anywhere(options, every_part_done, tmp_path):
    prepared, expected = every_part_done[options]
    cuts = 0
    while True:
        target = tmp_path / str(cuts)
        shutil.copytree(prepared, target)
        with pytest.MonkeyPatch.context() as patch:
            cut_moves(patch, cuts)
            try:
                run(target, overwriting(options), episodes_per_part=5)
            except Cut:
                pass
            else:
                break
        if described_as_new(target):
            assert expected.items() <= tree(target).items()  # the description came last
        if (target / PARTS / "plan.json").exists():
            source = rich_source()
            run(target, overwriting(options), source, episodes_per_part=5)
            assert source.files.reads == []  # no part is done again
            assert tree(target) == expected
        else:  # all but the last of the cleaning was done
            shutil.rmtree(target / PARTS)
            assert tree(target) == expected
        cuts += 1
    assert cuts > 6 and tree(target) == expected


def described_as_new(target: Path) -> bool:
    """Whether the description in the folder is of all ten episodes."""
    for name in ("meta/info.json", "dataset_info.json"):
        if (target / name).exists():
            content = json.loads((target / name).read_text())
            stated = content.get("total_episodes") or sum(map(int, content["splits"][0]["shardLengths"]))
            return stated == 10
    return False


def test_what_killed_processes_left_is_removed_when_the_run_goes_on(tmp_path):
    unfinished(tmp_path / "out")
    left = tmp_path / "out" / PARTS / "part-000002.writing-4711" / "data" / ".writing-4711"
    left.mkdir(parents=True)
    (left / "half.mp4").write_bytes(b"half")
    unfinished(tmp_path / "out")
    assert not left.parent.parent.exists()


@pytest.mark.parametrize(
    ("options", "settings", "difference"),
    [
        (VIDEO, {}, 'the option pictures: "image" then, "video" now'),
        (IMAGE, {"episodes": range(5)}, r"the episodes: \[0, 10, 1\] then, \[0, 5, 1\] now"),
        (IMAGE, {"episodes_per_part": 4}, "the episodes of a part: 3 then, 4 now"),
        (IMAGE, {"source": "other"}, "the source's shards: others than then"),
        (RLDS, {}, 'the option to: "lerobot" then, "rlds" now'),
    ],
)
def test_another_plan_is_refused_until_it_overwrites(options, settings, difference, tmp_path):
    target = tmp_path / "out"
    unfinished(target)
    if "source" in settings:
        settings = {"source": rich_source()}
        settings["source"].files.shards[0] = settings["source"].files.shards[0].__class__("renamed", 3)
    before = tree(target)
    with pytest.raises(UserError, match=f"{difference}.*--overwrite"):
        run(target, options, **settings)
    assert tree(target) == before
    run(target, overwriting(options), **settings)
    run(tmp_path / "fresh", options, **settings)
    assert tree(target) == tree(tmp_path / "fresh")


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    target = tmp_path / "out"
    unfinished(target)
    with open(target / PARTS / "lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is converting into"):
            run(target, IMAGE)
    assert run(target, IMAGE).episodes == 10


def test_a_folder_of_that_name_which_is_somebody_else_s_is_kept(tmp_path):
    (tmp_path / "out" / PARTS).mkdir(parents=True)
    (tmp_path / "out" / PARTS / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="letter.txt"):
        run(tmp_path / "out", RLDS)
    assert tree(tmp_path / "out" / PARTS)["letter.txt"] == b"dear"


def test_the_bar_counts_what_was_done_before(tmp_path, capsys):
    unfinished(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / PARTS / "part-000002")
    run(tmp_path / "out", IMAGE, progress=True)
    text = capsys.readouterr().err
    assert " 7/10 [" in text and " 10/10 [" in text and " 6/10 [" not in text
