"""Says where its assets lie, as the real one does."""

import os
import pathlib

ASSET_DIR = pathlib.Path(os.environ["STAND_IN_ASSETS"])
