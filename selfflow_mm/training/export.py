"""A run's checkpoint as a model: a pipeline folder, or one file; and the hub.

Whichever number of processes wrote the checkpoint, and whether or not the run came to its end: the rest of the folder
(shape, tokenizers, clip sizes, a robot's spec) is in ``RUN/model`` from the run's start.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from selfflow_tokenizers.tensor_file import save_tensors

from ..config_yaml import parse_yaml
from ..errors import UserError
from ..generation.pipeline import FORMAT as MODEL_FORMAT
from ..models.lora import merge_tensors
from ..models.model_file import write_model_file
from ..models.transfer import read_json
from ..weights.checkpoints import complete_checkpoints, latest_checkpoint, load_group, read_state
from .run_folder import read_run

#: Kinds of runs that train a transformer.
KINDS = ("transformer", "robot")
ROBOT_FILE = "robot.json"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the folder or file.
        step: of the checkpoint.
        weights: ``ema`` or ``model``.
        parameters: their number.
        about: step, seed, kind and software of the run, its config, and the model's.
    """

    path: Path
    step: int
    weights: str
    parameters: int
    about: dict[str, Any]


def export_run(
    run: Path, out: Path | None = None, *, step: int | None = None, weights: str = "ema", half: bool = False
) -> Exported:
    """Write the model of a run's checkpoint.

    Args:
        run: a run's folder.
        out: a folder, or one file that ends in ``.safetensors``; ``RUN/model-ema-step-000123`` unless given.
        step: of the checkpoint; the newest unless given.
        weights: ``ema`` (the average, which the run's samples are drawn from) or ``model`` (the weights themselves).
        half: store float16.

    Raises:
        UserError: there is no such checkpoint, it is not whole, or ``out`` holds something else.
    """
    run = Path(run)
    checkpoint, about = _find(run, step)
    about["weights"] = weights
    out = Path(out) if out else run / f"model-{weights}-{checkpoint.name}"
    if out.suffix != ".safetensors":
        _refuse_other(out, run)
    elif out.is_dir():
        raise UserError(f"{out} is a folder; a file is to be written there")
    tensors = _weights(checkpoint, weights, about["run"])
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".safetensors":
        write_model_file(out, tensors, about)
    else:
        _write_folder(out, run / "model", tensors, about)
    return Exported(out, about["step"], weights, sum(t.numel() for t in tensors.values()), about)


def _find(run: Path, step: int | None) -> tuple[Path, dict[str, Any]]:
    """The checkpoint, and what there is to say about it."""
    record = read_run(run)
    if record["kind"] not in KINDS:
        raise UserError(f"{run} trains a {record['kind']}; its result is in {run / 'tokenizer'} when the run has ended")
    layout = run / "model"
    config = read_json(layout / "config.json") if (layout / "config.json").is_file() else {}
    if config.get("format") != MODEL_FORMAT:
        raise UserError(f"{run} has no model/config.json of ours, which a run writes when it starts")
    checkpoint = latest_checkpoint(run / "checkpoints") if step is None else run / "checkpoints" / f"step-{step:06d}"
    if checkpoint is None:
        raise UserError(f"{run} has no checkpoint yet, so there is nothing to export")
    if not checkpoint.is_dir():
        steps = [str(have) for have, _ in complete_checkpoints(checkpoint.parent)] if checkpoint.parent.is_dir() else []
        raise UserError(f"{run} has no checkpoint of step {step}; there are {', '.join(steps) or 'none'}")
    about: dict[str, Any] = {
        "kind": record["kind"],
        "step": int(read_state(checkpoint)["step"]),
        "seed": record["seed"],
        "versions": record["versions"],
        "config": config,
        "run": parse_yaml((run / "config.yaml").read_text(encoding="utf-8"), str(run / "config.yaml")),
    }
    if (layout / ROBOT_FILE).is_file():
        about["robot"] = read_json(layout / ROBOT_FILE)
    return checkpoint, about


def _weights(checkpoint: Path, group: str, run: dict[str, Any]) -> dict[str, Tensor]:
    """One group of the checkpoint as a plain model's: LoRA, where there is any, merged into the weights."""
    tensors = load_group(checkpoint, group)
    lora = run.get("lora") or {}
    return merge_tensors(tensors, lora["alpha"] / lora["rank"]) if lora.get("rank") else tensors


def _write_folder(out: Path, layout: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    out.mkdir(exist_ok=True)
    shutil.copytree(layout / "tokenizers", out / "tokenizers", dirs_exist_ok=True)
    beside = out / ".model.safetensors.tmp"
    says = {"format": "pt", "steps": str(about["step"]), "seed": str(about["seed"]), "weights": about["weights"]}
    save_tensors(tensors, beside, metadata=says)
    os.replace(beside, out / "model.safetensors")
    for name in (ROBOT_FILE, "config.json"):  # the config last: a folder without it is no model
        if (layout / name).is_file():
            shutil.copy(layout / name, out / f".{name}.tmp")
            os.replace(out / f".{name}.tmp", out / name)


def _refuse_other(out: Path, run: Path) -> None:
    """A folder is written over only where it is a model's, and not the one that the run itself writes."""
    if out.resolve() == (run / "model").resolve() or (out / "run.json").exists():
        raise UserError(f"{out} belongs to a run, which writes it itself; give another folder with --out")
    if out.is_file():
        raise UserError(f"{out} is a file; one file is written where --out ends in .safetensors")
    if out.is_dir() and any(out.iterdir()):
        about = read_json(out / "config.json") if (out / "config.json").is_file() else {}
        if about.get("format") != MODEL_FORMAT:
            raise UserError(f"{out} holds other things; give an empty folder, or one with a model to write over")


def upload(exported: Exported, name: str, *, private: bool = False) -> str:
    """Send an exported folder to the Hugging Face hub as ``ORG/NAME``, with a model card; returns its address.

    Raises:
        UserError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    card = exported.path / "README.md"
    card.write_text(model_card(exported, name), encoding="utf-8")
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        message = f"Step {exported.step} of the run"
        api.upload_folder(repo_id=name, folder_path=exported.path, commit_message=message, ignore_patterns=[".*.tmp"])
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name} cannot be uploaded: {reason}; the model is in {exported.path}; log in with `hf auth login`, and "
            "see that you may write there"
        ) from error
    return str(address)


def model_card(exported: Exported, name: str) -> str:
    """README.md for the hub: what the model is, how it was trained, how it is loaded. No path of the run is in it."""
    about = exported.about
    model, run = about["config"]["model"], about["run"]
    modalities = ", ".join(model["modalities"])
    objective = {k: v for k, v in (run.get("objective") or {}).items() if k != "encoders"}  # which may be paths
    title = name.partition("/")[2]
    tags = ["self-flow", "flow-matching", *model["modalities"], *(["robotics"] if "robot" in about else [])]
    load = _ROBOT_LOAD if "robot" in about else _LOAD
    rows = {
        "modalities": modalities,
        "parameters": f"{exported.parameters:,}",
        "blocks": f"{model['double_blocks']} double, {model['single_blocks']} single, width {model['width']}",
        "objective": objective.get("name", "self-flow"),
        "weights": "EMA" if exported.weights == "ema" else "as trained, no average",
        "steps": f"{exported.step:,} of {run['run']['steps']:,}",
        "seed": about["seed"],
        "software": ", ".join(f"{package} {version}" for package, version in about["versions"].items()),
    }
    return _CARD.format(
        tags="\n".join(f"- {tag}" for tag in tags),
        title=title,
        rows="\n".join(f"| {key} | {value} |" for key, value in rows.items()),
        load=load.format(name=name, title=title),
        config=json.dumps({"model": model, "optimizer": run.get("optimizer"), "objective": objective}, indent=1),
    )


_CARD = """---
library_name: selfflow-mm
tags:
{tags}
---

# {title}

| | |
|---|---|
{rows}

## Use

{load}

## Configuration

```json
{config}
```
"""
_LOAD = """```
pip install selfflow-mm
hf download {name} --local-dir {title}
selfflow-mm generate "a prompt" --model {title} --out clip.mp4
```

```python
from selfflow_mm.generation.pipeline import Pipeline

[clip] = Pipeline.from_pretrained("{title}")(["a prompt"], seed=0)
```"""
_ROBOT_LOAD = """```
pip install selfflow-mm
hf download {name} --local-dir {title}
selfflow-mm serve-policy {title}
```

```python
from selfflow_robotics.adapter.policy import FlowPolicy

policy = FlowPolicy.from_pretrained("{title}")
```"""
