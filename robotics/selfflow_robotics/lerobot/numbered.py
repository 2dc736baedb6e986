"""LeRobot's numbered files: ``chunk-000/file-000`` and the one after it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DATA_PATH", "EPISODES_PATH", "VIDEO_PATH", "Limits", "Place"]

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class Limits:
    """When a new file or folder begins; an episode is never divided.

    Attributes:
        data_mb, video_mb: size of a data or video file, in 2^20 bytes.
        chunk: files in a folder.
    """

    data_mb: float = 100
    video_mb: float = 200
    chunk: int = 1000


@dataclass(frozen=True)
class Place:
    """The number of a file."""

    chunk: int = 0
    file: int = 0

    def following(self, size: int) -> Place:
        return Place(self.chunk + 1, 0) if self.file + 1 >= size else Place(self.chunk, self.file + 1)

    def path(self, pattern: str, **values: str) -> str:
        return pattern.format(chunk_index=self.chunk, file_index=self.file, **values)
