"""RLDS data sets (TensorFlow Datasets' record files of robot episodes), read and written without TensorFlow."""

from .features import Tree, read_tree
from .fractal import FRACTAL_FEATURES, FRACTAL_METADATA, FRACTAL_TREE
from .reader import RldsFiles, is_rlds, open_rlds
from .treemaking import make_tree
from .writer import RldsWriter

__all__ = [
    "FRACTAL_FEATURES",
    "FRACTAL_METADATA",
    "FRACTAL_TREE",
    "RldsFiles",
    "RldsWriter",
    "Tree",
    "is_rlds",
    "make_tree",
    "open_rlds",
    "read_tree",
]
