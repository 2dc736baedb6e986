"""A guard for torchaudio's compiled extension.

Some torchaudio builds carry an extension linked to CUDA libraries that a CPU-only PyTorch does not
have; ``import torchaudio`` then raises OSError, and so does every library that imports it
(transformers, diffusers). Nothing we use needs the extension. Call :func:`ensure_torchaudio` before
importing any of the three.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

_EXTENSION = "torchaudio._extension"


def ensure_torchaudio() -> bool:
    """Make ``import torchaudio`` work, without its compiled extension if that cannot be loaded.

    Returns:
        True when torchaudio can be imported, False when it is not installed.
    """
    if "torchaudio" in sys.modules:
        return True
    if importlib.util.find_spec("torchaudio") is None:
        return False
    try:
        importlib.import_module("torchaudio")
    except (OSError, ImportError):
        # A failed import leaves parts behind; the next one must start afresh.
        for name in [n for n in sys.modules if n == "torchaudio" or n.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules[_EXTENSION] = _without_extension()
        importlib.import_module("torchaudio")
    return True


def _without_extension() -> ModuleType:
    """What ``torchaudio._extension`` is in a build without compiled parts."""
    module = ModuleType(_EXTENSION)
    module._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
    module._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
    module.fail_if_no_align = _identity  # type: ignore[attr-defined]
    return module


def _identity(function: F) -> F:
    return function
