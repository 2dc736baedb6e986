"""LeRobot data sets made by hand as the format describes them, with pyarrow and PyAV alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CAMERA = "observation.images.front"
FPS = 5
SIZE = (64, 96)


@dataclass(frozen=True)
class Made:
    """A data set made by hand and what is in it, per episode."""

    folder: Path
    states: list[np.ndarray]
    tasks: list[list[str]]
    frames: list[np.ndarray] = field(default_factory=list)


def moving_square(length: int, seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Smooth colours with a square at a place of its own in every frame, ``(T, H, W, 3)``."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((length, height, width, 3), np.uint8)
    for step in range(length):
        frames[step] = np.stack([rows * 2, columns, (rows + columns) // 2 + 10 * seed], axis=-1) % 200
        left = (8 * step + 16 * seed) % (width - 16)
        frames[step, 16:32, left : left + 16] = (250, 250, 40 * (step % 6))
    return frames


def encode(path: Path, frames: np.ndarray, codec: str, fps: int = FPS, gop: int = 4, **options: str) -> None:
    """Frames into a video with FFmpeg's own defaults for colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options={"g": str(gop), **options})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def columns_of(episode: int, start: int, state: np.ndarray, task_indices: Sequence[int]) -> dict[str, Any]:
    length = len(state)
    return {
        "observation.state": pa.array(list(state), pa.list_(pa.float32())),
        "timestamp": pa.array((np.arange(length) / FPS).astype(np.float32)),
        "frame_index": pa.array(np.arange(length)),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(start + np.arange(length)),
        "task_index": pa.array(list(task_indices), pa.int64()),
    }


def features(camera: str | None) -> dict[str, Any]:
    scalars = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
    result: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "z"]}},
        **{name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in scalars.items()},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }
    if camera:
        result[CAMERA] = {"dtype": "video", "shape": [*SIZE, 3], "names": ["height", "width", "channel"]}
    return result


def write_lines(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def content(lengths: Sequence[int]) -> tuple[list[np.ndarray], list[list[str]], dict[str, int]]:
    states = [
        np.random.default_rng(number).normal(size=(length, 3)).astype("f4") for number, length in enumerate(lengths)
    ]
    known = {"pick the can": 0, "öffne die Schublade": 1}
    names = list(known)
    # The last step of every second episode has the other task.
    tasks = [[names[0]] * (length - 1) + [names[number % 2]] for number, length in enumerate(lengths)]
    return states, tasks, known


@pytest.fixture
def make_v2(tmp_path: Path) -> Callable[..., Made]:
    """v2.0 or v2.1: a parquet and an MP4 per episode, tables as lines of JSON."""

    def make(
        version: str = "v2.1",
        lengths: Sequence[int] = (7, 5, 6),
        codec: str | None = "libx264",
        chunks_size: int = 1000,
        extras: Sequence[Mapping[str, Any]] | None = None,
    ) -> Made:
        folder = tmp_path / "team" / f"data_{version}"
        states, tasks, known = content(lengths)
        frames, start, episodes, stats = [], 0, [], []
        for number, state in enumerate(states):
            place = f"chunk-{number // chunks_size:03d}"
            parquet = folder / "data" / place / f"episode_{number:06d}.parquet"
            parquet.parent.mkdir(parents=True, exist_ok=True)
            indices = [known[task] for task in tasks[number]]
            pq.write_table(pa.table(columns_of(number, start, state, indices)), parquet)
            if codec:
                frames.append(moving_square(len(state), number))
                encode(folder / "videos" / place / CAMERA / f"episode_{number:06d}.mp4", frames[-1], codec)
            more = extras[number] if extras else {}
            unique = list(dict.fromkeys(tasks[number]))
            episodes.append({"episode_index": number, "tasks": unique, "length": len(state), **more})
            stats.append({"episode_index": number, "stats": statistics(state, start, number, indices, bool(codec))})
            start += len(state)
        write_lines(folder / "meta/tasks.jsonl", [{"task_index": at, "task": task} for task, at in known.items()])
        write_lines(folder / "meta/episodes.jsonl", episodes)
        if version == "v2.1":
            write_lines(folder / "meta/episodes_stats.jsonl", stats)
        else:
            (folder / "meta/stats.json").write_text("{}")
        info = {
            "codebase_version": version,
            "robot_type": "arm",
            "total_episodes": len(lengths),
            "total_frames": start,
            "total_tasks": len(known),
            "total_videos": len(lengths) if codec else 0,
            "total_chunks": 1,
            "chunks_size": chunks_size,
            "fps": FPS,
            "splits": {"train": f"0:{len(lengths)}"},
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            "features": features(CAMERA if codec else None),
        }
        (folder / "meta/info.json").write_text(json.dumps(info))
        return Made(folder, states, tasks, frames)

    return make


@pytest.fixture
def make_v3(tmp_path: Path) -> Callable[..., Made]:
    """v3.0: several episodes per parquet and MP4. ``files`` says which episodes each data file holds."""

    def make(
        files: Sequence[Sequence[int]] = ((0, 1), (2,)),
        lengths: Sequence[int] = (7, 5, 6),
        codec: str | None = "libx264",
        row_group: int = 1000,
        splits: Mapping[str, str] | None = None,
    ) -> Made:
        folder = tmp_path / "data_v3.0"
        states, tasks, known = content(lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows: list[dict[str, Any]] = []
        for file, held in enumerate(files):
            parts = [
                pa.table(columns_of(n, int(starts[n]), states[n], [known[task] for task in tasks[n]])) for n in held
            ]
            path = folder / f"data/chunk-000/file-{file:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.concat_tables(parts), path, row_group_size=row_group)
            rows += [
                {
                    "episode_index": n,
                    "tasks": list(dict.fromkeys(tasks[n])),
                    "length": lengths[n],
                    "data/chunk_index": 0,
                    "data/file_index": file,
                    "dataset_from_index": int(starts[n]),
                    "dataset_to_index": int(starts[n + 1]),
                    "stats/observation.state/min": states[n].min(axis=0).tolist(),
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                }
                for n in held
            ]
        frames = [moving_square(length, number) for number, length in enumerate(lengths)] if codec else []
        if codec:
            encode(folder / f"videos/{CAMERA}/chunk-000/file-000.mp4", np.concatenate(frames), codec)
            for row in rows:
                n = row["episode_index"]
                place = {"chunk_index": 0, "file_index": 0, "from_timestamp": starts[n] / FPS}
                row |= {f"videos/{CAMERA}/{name}": value for name, value in place.items()}
                row[f"videos/{CAMERA}/to_timestamp"] = starts[n + 1] / FPS
        (folder / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
        note = {"index_columns": ["__index_level_0__"], "columns": [], "column_indexes": []}
        table = pa.table({"task_index": list(known.values()), "__index_level_0__": list(known)})
        pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), folder / "meta/tasks.parquet")
        info = {
            "codebase_version": "v3.0",
            "robot_type": "arm",
            "total_episodes": len(lengths),
            "total_frames": int(starts[-1]),
            "total_tasks": len(known),
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": FPS,
            "splits": dict(splits or {"train": f"0:{len(lengths)}"}),
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": features(CAMERA if codec else None),
        }
        (folder / "meta/info.json").write_text(json.dumps(info))
        return Made(folder, states, tasks, frames)

    return make


def statistics(
    state: np.ndarray, start: int, episode: int, tasks: Sequence[int], camera: bool
) -> dict[str, dict[str, Any]]:
    length = len(state)
    columns = {
        "observation.state": state,
        "timestamp": (np.arange(length) / FPS)[:, None],
        "frame_index": np.arange(length)[:, None],
        "episode_index": np.full((length, 1), episode),
        "index": start + np.arange(length)[:, None],
        "task_index": np.array(tasks)[:, None],
    }
    result = {
        name: {
            "min": values.min(axis=0).tolist(),
            "max": values.max(axis=0).tolist(),
            "mean": values.mean(axis=0).tolist(),
            "std": values.std(axis=0).tolist(),
            "count": [length],
        }
        for name, values in columns.items()
    }
    if camera:
        grey = {name: [[[value]]] * 3 for name, value in (("min", 0.0), ("max", 1.0), ("mean", 0.5), ("std", 0.1))}
        result[CAMERA] = {**grey, "count": [length]}
    return result


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray], float]:
    """Of the worst frame, in dB, over all colours."""

    def worst(one: np.ndarray, other: np.ndarray) -> float:
        assert one.shape == other.shape and one.dtype == other.dtype == np.uint8
        error = np.mean((one.astype(np.float64) - other) ** 2, axis=(1, 2, 3))
        return float(10 * np.log10(255**2 / max(error.max(), 1e-9)))

    return worst


@pytest.fixture(scope="session")
def film(shared_data: Path) -> Callable[[str, int], np.ndarray]:
    """The first frames of a real video, ``(T, H, W, 3)``."""

    def read(name: str, count: int) -> np.ndarray:
        path = shared_data / name
        if not path.is_file():
            pytest.skip(f"there is no {path}")
        frames = []
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == count:
                    break
        return np.stack(frames)

    return read


@pytest.fixture(scope="session")
def encode_video() -> Callable[..., None]:
    return encode


@pytest.fixture(scope="session")
def square_film() -> Callable[..., np.ndarray]:
    return moving_square
