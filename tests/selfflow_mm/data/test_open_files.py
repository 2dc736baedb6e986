"""Many shards are read through few descriptors, by many threads at once."""

from __future__ import annotations

import os
import pickle
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfflow_mm.data.open_files import OpenFiles


@pytest.fixture
def files(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{i}.bin" for i in range(30)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 1000)
    return paths


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_descriptors_are_bounded_and_closed(files):
    before = descriptors()
    shared = OpenFiles(limit=4)
    for i in range(90):
        assert shared.read(files[i % 30], 10, 5) == bytes([i % 30]) * 5
        assert len(shared) <= 4 and descriptors() <= before + 4
    del shared
    assert descriptors() == before


def test_threads_never_read_a_file_that_another_closed(files):
    """A closed descriptor's number is given to the next file, whose bytes differ."""
    shared = OpenFiles(limit=2)

    def reads(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(400):
            i = draw.randrange(30)
            assert shared.read(files[i], draw.randrange(900), 50) == bytes([i]) * 50

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reads, range(8)))
    assert len(shared) <= 2


def test_the_end_of_a_file_and_a_pickle(files):
    shared = OpenFiles()
    assert shared.read(files[3], 990, 50) == bytes([3]) * 10
    copy = pickle.loads(pickle.dumps(shared))
    assert len(copy) == 0 and copy.read(files[3], 0, 2) == b"\3\3"
    with pytest.raises(FileNotFoundError):
        shared.read(files[0].with_name("none"), 0, 1)
