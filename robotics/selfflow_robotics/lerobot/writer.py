"""Writing LeRobot v3.0 data sets that lerobot itself reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Episode, Feature
from ..extras import require
from .cameras import Camera, ImageCamera, Taken, VideoCamera
from .columns import PURPOSE, to_arrow
from .declared import Declared
from .episodes_table import EPISODES_PER_GROUP, data_schema_note, episode_row, placed, text_table
from .info import FEATURES_KEY, MADE_COLUMNS, feature_to_json, feature_to_lerobot
from .movies import codec_named, described
from .numbered import DATA_PATH, EPISODES_PATH, VIDEO_PATH, Limits, Place
from .parquet_files import ParquetFiles
from .stats import Statistics, aggregate, array_statistics

__all__ = ["NOTE_KEY", "LeRobotWriter"]

#: The key of ``meta/info.json`` for ``extra_info``.
NOTE_KEY = "selfflow_conversion"
_ROWS_PER_GROUP = 1024
#: What unfinished work lies in, in a data set's folder.
_BEGUN = (".writing-", ".parts")


class LeRobotWriter:
    """A LeRobot v3.0 data set under construction, an ``EpisodeWriter``: a context manager.

    Numbers are stored bit for bit (NaN payloads too). ``pictures="image"`` keeps JPEG and PNG files bit for bit;
    ``"video"`` is lossy. With the default quality each measured frame of RT-1 (256 x 320) and of filmed talk (704 x
    1280) has at least 40 dB PSNR as H.264 and 36 dB as AV1. Small pictures fare worse: the worst of 750 frames of
    Bridge (64 x 64) has 33.8 dB as H.264 and 31.3 dB as AV1. Pictures that are not 8-bit colour (depth, grey) are
    kept as PNG in either case.

    The columns ``timestamp`` (float32, step / fps), ``frame_index``, ``episode_index``, ``index`` and ``task_index``
    are made here, also where an episode brings its own. An episode's instruction is ``texts["task"]``, one string per
    step.

    Everything is written into a folder beside its place and moved when complete, ``meta`` with ``info.json`` last;
    leaving with an exception removes what was begun. An episode that cannot be written leaves the data set as it was.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        features: Mapping[str, Feature],
        fps: float,
        robot_type: str | None = None,
        metadata_features: Mapping[str, Feature] | None = None,
        extra_info: Mapping[str, Any] | None = None,
        video_codec: str = "h264",
        crf: int | None = None,
        pictures: Literal["video", "image"] = "video",
        overwrite: bool = False,
        data_files_size_in_mb: float = 100,
        video_files_size_in_mb: float = 200,
        chunks_size: int = 1000,
    ) -> None:
        """
        Args:
            folder: of the data set; not there yet or empty, unless ``overwrite``.
            features: column -> what it is; names with dots, not slashes.
            fps: steps per second.
            robot_type: LeRobot's word for the robot.
            metadata_features: values of whole episodes, stored as further columns of ``meta/episodes``.
            extra_info: JSON data for ``meta/info.json``, under the key ``selfflow_conversion``.
            video_codec: ``"h264"`` or ``"av1"``.
            crf: constant quality, lower is better; 18 for H.264 and 20 for AV1 unless given.
            pictures: ``"video"``, or ``"image"`` for picture files in the parquet.
            overwrite: replace the data set in ``folder`` (its ``meta``, ``data`` and ``videos``).
            data_files_size_in_mb, video_files_size_in_mb: a new file begins before an episode that would exceed it.
            chunks_size: files per folder.

        Raises:
            UserError: something that the format cannot hold, or a folder that is in use.
        """
        if pictures not in ("video", "image"):
            raise UserError(f"pictures is '{pictures}'; it can be 'video' or 'image'")
        if not fps > 0:
            raise UserError(f"fps is {fps}; it must be above 0")
        if chunks_size < 1 or data_files_size_in_mb <= 0 or video_files_size_in_mb <= 0:
            raise UserError("chunks_size and the sizes of files must be above 0")
        self._declared = Declared(features, metadata_features or {}, pictures == "video")
        if self._declared.videos:
            codec_named(video_codec, crf)
        self._features = features
        self._fps = Fraction(fps).limit_denominator(1001)
        self._fps_number: float = int(fps) if float(fps).is_integer() else float(fps)
        self._robot_type, self._extra_info = robot_type, dict(extra_info or {})
        self._limits = Limits(data_files_size_in_mb, video_files_size_in_mb, chunks_size)
        self.folder = Path(folder)
        self._replaces = _usable(self.folder, overwrite)
        self._made = not self.folder.exists()
        self._staging = self.folder / f".writing-{os.getpid()}"
        self._cameras: dict[str, Camera] = {
            name: VideoCamera(self._staging, name, self._fps, video_codec, crf, self._limits)
            if name in self._declared.videos
            else ImageCamera((feature.shape[-1:] or (3,))[0] or 3)
            for name, feature in self._declared.pictures.items()
        }
        size = self._limits.data_mb * 2**20
        self._data = ParquetFiles(self._staging, DATA_PATH, size, chunks_size, _ROWS_PER_GROUP)
        self._table = ParquetFiles(self._staging, EPISODES_PATH, size, chunks_size, EPISODES_PER_GROUP)
        self._known: dict[str, dict[str, int]] = {name: {} for name in self._declared.indexed}
        self._statistics: dict[str, Statistics] = {}
        self._episodes = self._steps = 0
        self._open = False

    def __enter__(self) -> LeRobotWriter:
        require("pyarrow", PURPOSE)
        self._staging.mkdir(parents=True)
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        try:
            if kind is None:
                self._finish()
        finally:
            self._data.abandon()
            self._table.abandon()
            for camera in self._cameras.values():
                camera.abandon()
            shutil.rmtree(self._staging, ignore_errors=True)
            if self._made and self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def write(self, episode: Episode) -> None:
        """Append one episode.

        Raises:
            UserError: its columns are not those declared, it has no steps, or a picture cannot be decoded.
        """
        if not self._open:
            raise UserError("a LeRobotWriter is used in a with statement")
        if episode.length == 0:
            raise UserError(f"episode {episode.id} has no steps, which LeRobot cannot hold")
        declared = self._declared
        columns = declared.columns_of(episode)
        texts = declared.texts_of(episode)
        declared.check_pictures(episode)
        metadata = declared.metadata_of(episode)
        taken = {name: camera.take(episode.pictures[name]) for name, camera in self._cameras.items()}
        # From here on nothing can be wrong with the episode: numbers and tables change.
        columns |= self._made_columns(episode.length)
        for name, column in declared.indexed.items():
            known = self._known[name]
            columns[column] = np.array([known.setdefault(word, len(known)) for word in texts[name]], np.int64)
        statistics = {name: array_statistics(values) for name, values in columns.items()}
        statistics |= {name: value.statistics for name, value in taken.items()}
        place = self._write_rows(columns, texts, taken)
        self._write_episode(episode.length, texts["task"], place, taken, statistics, metadata)
        self._statistics = aggregate(self._statistics, statistics)
        self._episodes += 1
        self._steps += episode.length

    def _made_columns(self, length: int) -> dict[str, np.ndarray]:
        steps = np.arange(length)
        return {
            "timestamp": (steps / float(self._fps)).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, self._episodes),
            "index": self._steps + steps,
        }

    def _write_rows(
        self, columns: dict[str, np.ndarray], texts: dict[str, list[str]], taken: dict[str, Taken]
    ) -> Place:
        pa = require("pyarrow", PURPOSE)
        arrays: dict[str, Any] = {}
        for name, feature in self._stored_features().items():
            if name in self._declared.videos:
                continue
            if name in taken:
                arrays[name] = taken[name].column
            elif name in columns:
                arrays[name] = to_arrow(columns[name], [size or 0 for size in feature.shape])
            else:
                arrays[name] = pa.array(texts[name], pa.string())
        table = pa.table(arrays).replace_schema_metadata(
            data_schema_note(self._stored_features(), self._declared.videos)
        )
        place = self._data.place_for(table.nbytes)
        self._data.write(table)
        return place

    def _write_episode(
        self,
        length: int,
        tasks: list[str],
        place: Place,
        taken: dict[str, Taken],
        statistics: dict[str, Statistics],
        metadata: dict[str, Any],
    ) -> None:
        values: dict[str, Any] = {
            "episode_index": self._episodes,
            "tasks": list(dict.fromkeys(tasks)),
            "length": length,
            "data/chunk_index": place.chunk,
            "data/file_index": place.file,
            "dataset_from_index": self._steps,
            "dataset_to_index": self._steps + length,
        }
        for value in taken.values():
            values |= value.place
        extras = {
            self._declared.metadata_columns[name]: (value, self._declared.metadata[name])
            for name, value in metadata.items()
        }
        row = episode_row(values, statistics, extras)
        self._table.write(placed(row, self._table.place_for(row.nbytes)))

    def _stored_features(self) -> dict[str, Feature]:
        """Columns in the order of the file: the user's, then LeRobot's own."""
        declared = self._declared
        own = {**declared.arrays, **declared.texts, **declared.pictures}
        ordered = {name: own[name] for name in self._features if name in own}
        made = {name: Feature("array", (), dtype) for name, dtype in MADE_COLUMNS.items()}
        return ordered | made | {column: Feature("array", (), "int64") for column in declared.indexed.values()}

    def _finish(self) -> None:
        if not self._episodes:
            raise UserError(f"{self.folder}: no episode was written, so there is no data set")
        self._data.close()
        self._table.close()
        for camera in self._cameras.values():
            camera.close()
        meta = self._staging / "meta"
        for name, column in self._declared.indexed.items():
            parquet = require("pyarrow.parquet", PURPOSE)
            parquet.write_table(text_table(list(self._known[name]), column), meta / f"{name}s.parquet")
        stats = {name: {key: value.tolist() for key, value in one.items()} for name, one in self._statistics.items()}
        _write_json(stats, meta / "stats.json")
        _write_json(self._info(), meta / "info.json")
        if self._replaces:
            # The old description goes first: a folder without one is not read as a data set.
            for name in ("meta", "data", "videos"):
                if (self.folder / name).exists():
                    (self.folder / name).rename(self._staging / f"old-{name}")
        for name in ("data", "videos", "meta"):
            if (self._staging / name).exists():
                (self._staging / name).rename(self.folder / name)

    def _info(self) -> dict[str, Any]:
        declared = self._declared
        features: dict[str, Any] = {}
        for name, feature in self._stored_features().items():
            if name in self._cameras:
                feature = Feature("picture", self._cameras[name].shape or (0, 0, 0), feature.dtype)
            features[name] = feature_to_lerobot(feature, name in declared.videos)
            if name in declared.videos:
                path = self._staging / Place().path(VIDEO_PATH, video_key=name)
                features[name]["info"] = described(path, float(self._fps_number))
        own = {**declared.arrays, **declared.texts, **declared.pictures}
        info = {
            "codebase_version": "v3.0",
            "robot_type": self._robot_type,
            "total_episodes": self._episodes,
            "total_frames": self._steps,
            "total_tasks": len(self._known["task"]),
            "chunks_size": self._limits.chunk,
            "data_files_size_in_mb": self._limits.data_mb,
            "video_files_size_in_mb": self._limits.video_mb,
            "fps": self._fps_number,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if declared.videos else None,
            "features": features,
            FEATURES_KEY: {
                "features": {name: feature_to_json(feature) for name, feature in own.items()},
                "metadata_features": {
                    name: {"column": declared.metadata_columns[name], "feature": feature_to_json(feature)}
                    for name, feature in declared.metadata.items()
                },
            },
        }
        return info | ({NOTE_KEY: self._extra_info} if self._extra_info else {})


def _usable(folder: Path, overwrite: bool) -> bool:
    """Whether there is a data set to replace.

    Raises:
        UserError: the folder holds something that is not ours to replace.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; a LeRobot data set is a folder")
    if not folder.is_dir() or not any(not entry.name.startswith(_BEGUN) for entry in folder.iterdir()):
        return False
    if not (folder / "meta" / "info.json").is_file():
        raise UserError(f"{folder} is not empty and holds no LeRobot data set; choose another folder")
    if not overwrite:
        raise UserError(f"{folder} holds a data set already; choose another folder, or overwrite it")
    return True


def _write_json(content: Any, path: Path) -> None:
    try:
        text = json.dumps(content, indent=4, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"what should go into {path.name} is not JSON: {error}") from error
    path.write_text(text + "\n", encoding="utf-8")
