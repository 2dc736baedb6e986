"""What the commands that train share: a config, settings that differ from it, the run's folder, resuming, a dry run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that differ from the file's")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out from its newest checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="show resolved settings, parameter counts and memory, then stop"
    )


def read_run_config(cls: type[T], args: argparse.Namespace, example: str) -> T:
    """The config asked for; a resumed run without CONFIG takes its own. ``example`` is named where there is none."""
    from ..config import load_config
    from ..errors import UserError

    file, overrides = args.config, list(args.overrides)
    if file and "=" in file and not Path(file).exists():  # the first setting stands where CONFIG would
        overrides.insert(0, file)
        file = None
    if file is None and args.resume and args.out:
        file = str(args.out / "config.yaml")
    if file is None:
        raise UserError(f"a CONFIG is needed, for example {example}; --help shows more")
    return load_config(cls, file, overrides)
