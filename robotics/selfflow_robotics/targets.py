"""What a conversion writes: a LeRobot or an RLDS data set, in parts that are joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selfflow_mm.errors import UserError

from .files import EpisodeWriter
from .naming import Naming, lerobot_naming, rlds_naming
from .rlds import RldsWriter
from .sources import RobotFiles

__all__ = ["QUARANTINE", "Target", "TargetOptions"]

QUARANTINE = "quarantine.jsonl"
#: Of one part of a LeRobot data set: files of a sensible size, some minutes of work that a kill can cost, and enough
#: parts for several processes.
_FEWEST, _MOST, _PARTS = 50, 500, 16


@dataclass(frozen=True)
class TargetOptions:
    """How the new data set is written.

    Attributes:
        to: ``lerobot`` (v3.0) or ``rlds``.
        name: of an RLDS data set; the source's unless given.
        pictures: of a LeRobot data set: ``video``, or ``image`` to keep JPEG and PNG files bit for bit.
        video_codec, crf: of the videos; crf None is the codec's usual.
        episodes_per_shard: of an RLDS data set.
        overwrite: replace the folder if it holds a data set.
    """

    to: Literal["lerobot", "rlds"]
    name: str = ""
    pictures: Literal["video", "image"] = "video"
    video_codec: str = "h264"
    crf: int | None = None
    episodes_per_shard: int = 100
    overwrite: bool = False

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded on the way."""
        return self.to == "lerobot" and self.pictures == "video"

    def episodes_per_part(self, total: int) -> int:
        """Of so many episodes in all; a part of an RLDS data set is a shard."""
        if self.to == "rlds":
            return self.episodes_per_shard
        return min(_MOST, max(_FEWEST, total // _PARTS))


class Target:
    """The writers of one conversion.

    Attributes:
        naming: what the target calls what the source has.
    """

    def __init__(self, source: RobotFiles, options: TargetOptions) -> None:
        self._source, self._options = source, options
        self.naming: Naming = (lerobot_naming if options.to == "lerobot" else rlds_naming)(source)

    def writer(self, folder: Path, overwrite: bool = False) -> EpisodeWriter:
        """Of a whole data set: a part's, or with the final folder the one that tells whether it may be written.

        Raises:
            UserError: something that the format cannot hold, or a folder that is in use.
        """
        return self._lerobot(folder, overwrite) if self._options.to == "lerobot" else self._rlds(folder, overwrite)

    def join(self, parts: Sequence[Path], joined: Path, folder: Path, progress: bool) -> None:
        """Make one data set in ``joined`` of those in ``parts``; what an earlier attempt has done is done.

        Args:
            folder: where it will be in the end, perhaps beside other splits.
        """
        if self._options.to == "lerobot":
            from .lerobot.join import join_lerobot

            join_lerobot(parts, joined, progress=progress)
        else:
            from .rlds.join import join_rlds

            join_rlds(self._rlds(folder, self._options.overwrite), parts, joined)

    def replaced(self, folder: Path) -> list[str]:
        """Names in ``folder`` that make way for the new data set."""
        if self._options.to == "lerobot":
            return ["meta", "data", "videos", QUARANTINE]
        return [path.name for path in self._rlds(folder, self._options.overwrite).replaced]

    def _lerobot(self, folder: Path, overwrite: bool) -> EpisodeWriter:
        from .lerobot import LeRobotWriter

        source, options, naming = self._source, self._options, self.naming
        return LeRobotWriter(
            folder,
            features=naming.features,
            metadata_features=naming.metadata_features,
            fps=source.control_rate,
            robot_type=source.layout.robot,
            extra_info=naming.note,
            pictures=options.pictures,
            video_codec=options.video_codec,
            crf=options.crf,
            overwrite=overwrite,
        )

    def _rlds(self, folder: Path, overwrite: bool) -> RldsWriter:
        source, options, naming = self._source, self._options, self.naming
        if "+" in source.files.split:
            raise UserError(f"RLDS data are converted one split at a time, not '{source.files.split}'")
        return RldsWriter(
            folder,
            name=options.name or re.sub(r"\W+", "_", source.files.name).lower(),
            split=source.files.split or "train",
            features=None if naming.tree else naming.features,
            metadata_features=None if naming.tree else naming.metadata_features,
            tree=naming.tree,
            episodes_per_shard=options.episodes_per_shard,
            description=f"Converted from {source.files.format} data by selfflow-mm.",
            overwrite=overwrite,
        )
