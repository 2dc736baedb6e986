"""Weights to start a run from: another model of ours, or open ones (the setting ``init``)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from ..generation.pipeline import FORMAT
from ..models.flux2 import find_flux2, load_flux2
from ..models.joint import JointTransformer
from ..models.model_file import read_model_file
from ..models.transfer import InitReport, Recipe, TensorFiles, TensorSource, differences, read_json, take_over
from ..weights import find_weights
from ..weights.checkpoints import GroupTensors, group_names, latest_checkpoint, read_state

__all__ = ["InitReport", "initialise"]

#: Fields of a joint config that say nothing about the weights' meaning.
_LABELS = ("preset", "modalities", "text_channels", "projector_ratio", "projector_channels")


def initialise(model: nn.Module, source: str) -> InitReport:
    """Fill ``model`` in place with every tensor of ``source`` that fits; the rest keeps its random start.

    Args:
        model: freshly built, on any device; copy it for the EMA afterwards.
        source: a FLUX.2 checkpoint in diffusers' format; a model folder, run folder or checkpoint of ours (its EMA
            weights), or a file that ``export`` wrote; or the name of bundled weights, such as ``tiny``.

    Returns:
        what was taken, what not, and what starts fresh; ``.text()`` for people, ``.as_dict()`` for files.

    Raises:
        UserError: there is nothing there that can be read, or none of it fits.
    """
    if Path(source).suffix == ".safetensors" and Path(source).is_file():
        about = read_model_file(Path(source))
        report = _from_ours(model, TensorFiles([Path(source)]), about["config"]["model"], source)
        return _refuse_nothing(report)
    folder = find_weights(source)
    if find_flux2(folder) is not None:
        if not isinstance(model, JointTransformer):
            raise UserError(f"{source} is a FLUX.2 transformer, from which only a joint transformer can start")
        report = load_flux2(model, folder)
    else:
        report = _from_ours(model, *_our_weights(folder, source), source)
    return _refuse_nothing(report)


def _refuse_nothing(report: InitReport) -> InitReport:
    if not report.taken:
        because = "; ".join(report.notes) or "no layer has the same name and shape"
        raise UserError(f"nothing of {report.source} fits this model: {because}")
    return report


def _from_ours(model: nn.Module, files: TensorSource, about: dict[str, Any], source: str) -> InitReport:
    here = _shape(model)
    for width in ("width", "hidden_size"):
        if about.get(width, here.get(width)) != here.get(width):  # a vector may fit by chance, and would mean nothing
            raise UserError(f"nothing of {source} fits this model: {width} is {about[width]} there, {here[width]} here")
    notes = differences({k: v for k, v in here.items() if k not in _LABELS}, about)
    reasons: dict[str, str] = {}
    for modality in set(about.get("modalities", {})) - set(here.get("modalities", {})):
        reasons |= {n: f"this model has no {modality}" for n in files.names if n.split(".")[1:2] == [modality]}
    for kind in ("double_blocks", "single_blocks"):
        if kind in here and kind in about:
            reasons |= {
                n: f"this model has {here[kind]} {kind.replace('_', ' ')}"
                for n in files.names
                if n.startswith(f"{kind}.") and int(n.split(".")[1]) >= here[kind]
            }
    return take_over(model, files, {n: Recipe((n,)) for n in files.names}, source, notes, reasons)


def _our_weights(folder: Path, source: str) -> tuple[TensorSource, dict[str, Any]]:
    """The EMA weights of a model, run or checkpoint folder, and the shape that its config states."""
    if (folder / "run.json").is_file():
        final = folder / "model" / "model.safetensors"
        newest = None if final.is_file() else latest_checkpoint(folder / "checkpoints")
        if newest is None and not final.is_file():
            raise UserError(f"{source} is a run that has no checkpoint yet, so there is nothing to start from")
        return TensorFiles([final]) if newest is None else GroupTensors(newest, "ema"), _stated(folder / "model")
    if (folder / "state.json").is_file():
        if "ema" not in group_names(read_state(folder)):
            raise UserError(f"{source} is a checkpoint without EMA weights, so not one of a transformer")
        return GroupTensors(folder, "ema"), _stated(folder.parent.parent / "model")
    about = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if about.get("format") == FORMAT:
        return TensorFiles([folder / "model.safetensors"]), _stated(folder)
    what = about.get("_class_name") or about.get("format")
    says = f"its config.json says '{what}'" if what else "it holds no config.json, run.json or state.json of these"
    raise UserError(
        f"{source} is no model to start from: {says}; give a model, run or checkpoint folder of ours, a bundled name "
        "or a FLUX.2 transformer in diffusers' format"
    )


def _stated(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    shape = read_json(path).get("model", {}) if path.is_file() else {}
    return shape if isinstance(shape, dict) else {}


def _shape(model: nn.Module) -> dict[str, Any]:
    """The model's config as JSON would hold it."""
    config = getattr(model, "config", None)
    return json.loads(json.dumps(asdict(config))) if config is not None else {}
