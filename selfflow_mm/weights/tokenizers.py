"""Tokenizers by the names the command line takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfflow_tokenizers import load_tokenizer

from ..errors import UserError
from . import find_weights

if TYPE_CHECKING:
    from selfflow_tokenizers import AudioTokenizer, VideoTokenizer


def named_tokenizer(name: str, *, download: bool = False) -> VideoTokenizer | AudioTokenizer:
    """A tokenizer of a folder, a bundled name (``tiny/video``), an adapter's name (``flux2``,
    ``flux2:FOLDER_OR_ID``) or a hub id.

    Raises:
        UserError: there is none of that name.
    """
    try:
        return load_tokenizer(find_weights(name), download=download)
    except UserError as missing:
        if "there is no weights folder" not in str(missing):
            raise
    try:
        return load_tokenizer(name, download=download)
    except UserError as error:
        if "is not a tokenizer's folder" not in str(error):
            raise
        from selfflow_tokenizers.pretrained import ADAPTERS

        raise UserError(
            f"there is no tokenizer '{name}'; give a folder, a bundled one (such as tiny/video), or a pretrained "
            f"one ({', '.join(ADAPTERS)}), as NAME or NAME:FOLDER"
        ) from error


def place_of(name: str) -> str:
    """The name, with any folder in it made absolute, so that it is found again from elsewhere."""
    word, colon, where = name.partition(":")
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser().resolve())
    if colon and Path(where).expanduser().is_dir():
        return f"{word}:{Path(where).expanduser().resolve()}"
    return name
