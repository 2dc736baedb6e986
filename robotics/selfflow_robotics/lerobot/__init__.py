"""LeRobot data sets: v2.0, v2.1 and v3.0 are read, v3.0 is written, without the lerobot package."""

from .reader import LeRobotFiles, is_lerobot, open_lerobot
from .video import VideoPictures
from .writer import LeRobotWriter

__all__ = ["LeRobotFiles", "LeRobotWriter", "VideoPictures", "is_lerobot", "open_lerobot"]
