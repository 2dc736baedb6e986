"""Libraries that only some of the package needs, imported where used."""

from __future__ import annotations

import importlib
from types import ModuleType

from selfflow_mm.errors import UserError


def require(module: str, purpose: str) -> ModuleType:
    """Import ``module`` of the extra ``[robot]``.

    Raises:
        UserError: it is not installed; the sentence says for what it is needed and how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # the library is there and broken inside: its own message is the useful one
        raise UserError(
            f"{purpose} needs '{error.name}', which is not installed; run: pip install 'selfflow-mm[robot]'"
        ) from error
