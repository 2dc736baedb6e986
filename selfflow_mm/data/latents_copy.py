"""Latents on a store, copied into the cache folder once: training reads them from memory maps, in random order."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tqdm import tqdm

from selfflow_mm.data.latents import STATE, is_latents
from selfflow_mm.data.stores import StorePath, cache_folder, digest, place
from selfflow_mm.errors import UserError


def latents_at(path: str | Path) -> Path | None:
    """The folder of latents that is named, copied here if it is on a store; None where there is raw media, or nothing.

    Raises:
        UserError: the store does not answer, or what it holds is not whole.
    """
    there = place(path)
    if isinstance(there, Path):
        return there if is_latents(there) else None
    about = _about(there)
    return None if about is None else _copied(there, about)


def described_at(path: str | Path) -> Path | None:
    """As :func:`latents_at`, for what latents.json tells: of a store that file alone is fetched."""
    there = place(path)
    if isinstance(there, Path):
        return there if is_latents(there) else None
    about = _about(there)
    if about is None:
        return None
    here = cache_folder("latents") / f"{_name(there, about)}.about"
    here.mkdir(parents=True, exist_ok=True)
    _write(here / STATE, about)
    return here


def _about(there: StorePath) -> bytes | None:
    try:
        return (there / STATE).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _name(there: StorePath, about: bytes) -> str:
    return f"{there.name}-{digest(there.url, about.decode('utf-8', 'replace'))[:16]}"


def _copied(there: StorePath, about: bytes) -> Path:
    """Copy file by file; what is here with the right size stays, and latents.json comes last."""
    here = cache_folder("latents") / _name(there, about)
    if (here / STATE).is_file():
        return here
    files = {str(file).removeprefix(f"{there}/"): file for file in there.find()}
    if STATE not in files:
        raise UserError(f"'{there}' cannot be listed, which copying it needs; download it and name the folder")
    parts = sum(name.startswith("part-") and name.endswith(".safetensors") for name in files)
    stated = json.loads(about).get("parts", parts)
    if parts != stated:
        raise UserError(f"'{there}' holds {parts} parts, its latents.json says {stated}; upload it again")
    here.mkdir(parents=True, exist_ok=True)
    files.pop(STATE, None)
    total = sum(file.size() for file in files.values())
    with tqdm(total=total, desc=f"copying {there.name}", unit="B", unit_scale=True) as progress:
        for name, file in sorted(files.items()):
            target, size = here / name, file.size()
            if not (target.is_file() and target.stat().st_size == size):
                _fetch(file, target, size)
            progress.update(size)
    _write(here / STATE, about)
    return here


def _fetch(file: StorePath, target: Path, size: int) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.copy_to(beside)
        if (got := beside.stat().st_size) != size:
            raise UserError(f"'{file}' came as {got:,} bytes of {size:,}; give the same command again")
        os.replace(beside, target)
    except OSError as error:
        raise UserError(f"'{file}' cannot be copied to {target.parent} ({error})") from error
    finally:
        beside.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(data)
    os.replace(beside, path)
