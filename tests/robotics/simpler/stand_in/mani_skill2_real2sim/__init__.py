"""Only its place matters: real pictures and stages would lie below it."""

import pathlib

ASSET_DIR = pathlib.Path(__file__).parent / "data"
