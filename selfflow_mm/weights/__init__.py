"""The weights that ship with the package, and how a weights folder is found by name."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError

ROOT = Path(__file__).parent
#: Name -> folder in ``ROOT``.
BUNDLED = {
    "tiny": "tiny",
    "tiny/video": "tiny/tokenizers/video",
    "tiny/audio": "tiny/tokenizers/audio",
    # Not "tabletop": that is what people call the folder of its data, and a folder goes before a bundled name.
    "tabletop-policy": "tabletop",
    "tabletop-world": "tabletop/world",
    "tabletop/pictures": "tabletop/tokenizers/image",
}


def find_weights(name: str | Path) -> Path:
    """A folder of weights: a path, or the name of a bundled one (:data:`BUNDLED`).

    Raises:
        UserError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if str(name) in BUNDLED:
        folder = ROOT / BUNDLED[str(name)]
        if (folder / "config.json").exists():
            return folder
        raise UserError(f"the bundled weights '{name}' are missing from {ROOT}; reinstall selfflow-mm")
    raise UserError(f"there is no weights folder '{name}'; give a folder, or one of {', '.join(BUNDLED)}")
