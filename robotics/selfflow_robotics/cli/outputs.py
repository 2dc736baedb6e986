"""Whether what a command makes can be written where it is asked for, before it is made."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["refuse_no_file", "refuse_no_folder"]


def refuse_no_folder(out: Path) -> None:
    """UserError where no folder ``out`` can be, or nothing can be written into it."""
    from selfflow_mm.errors import UserError

    if out.is_file():
        raise UserError(f"--out is the file '{out}'; name a folder")
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"--out {out} lies in the file '{there}'; name another place")
    if not os.access(there, os.W_OK):
        raise UserError(f"--out {out}: nothing can be written into '{there}'; name another place, or change its rights")


def refuse_no_file(out: Path) -> None:
    """UserError where no file ``out`` can be written."""
    from selfflow_mm.errors import UserError

    if out.is_dir():
        raise UserError(f"--out is the folder '{out}'; name a file")
    if out.parent.is_file():
        raise UserError(f"--out {out} lies in the file '{out.parent}'; name another place")
    refuse_no_folder(out.parent)
