"""One safetensors file with everything that makes its weights a transformer: shape, run and origin in the metadata.

A pipeline folder has tokenizers beside the weights; this file has none. It is what a run can start from (``init``) and
what Python loads with :func:`load_transformer`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from selfflow_tokenizers.tensor_file import save_tensors

from ..config import from_dict
from ..errors import UserError
from .joint import JointConfig, JointTransformer

FORMAT, VERSION = "selfflow-model-file", 1
#: The entry of the metadata that holds it all, as JSON.
KEY = "selfflow"


def write_model_file(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors`` and ``about`` (JSON values; ``config`` is a pipeline folder's config.json); renamed into place
    when whole.
    """
    beside = path.with_name(f".{path.name}.tmp")
    text = json.dumps({"format": FORMAT, "version": VERSION, **about})
    save_tensors(tensors, beside, metadata={"format": "pt", KEY: text})
    with open(beside, "rb") as written:
        os.fsync(written.fileno())
    os.replace(beside, path)


def read_model_file(path: Path) -> dict[str, Any]:
    """What such a file says about itself: ``config``, ``run``, ``step``, ``seed``, ``weights``, ``robot``.

    Raises:
        UserError: it is no such file, or one of a version that this release cannot read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from None
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} does not say which model its weights are of; `selfflow-mm export` writes files that do"
        )
    if about.get("version") != VERSION:
        raise UserError(f"{path} is {FORMAT} version {about.get('version')}; this release reads {VERSION}")
    return dict(about)


def load_transformer(path: Path | str) -> JointTransformer:
    """The transformer of a file that ``selfflow-mm export`` wrote, in float32 on the CPU, for evaluation.

    Raises:
        UserError: it is no such file.
    """
    path = Path(path)
    about = read_model_file(path)
    model = JointTransformer(from_dict(JointConfig, about["config"]["model"], str(path)))
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its config: {str(error).splitlines()[-1].strip()}") from None
    return model.eval()
