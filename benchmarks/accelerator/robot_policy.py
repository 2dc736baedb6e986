"""The robot's model on one accelerator: milliseconds for a chunk of actions, and the MFU of its fine-tuning.

    PYTHONPATH=.:tokenizers:robotics python3 benchmarks/accelerator/robot_policy.py --out OUT
    PYTHONPATH=.:tokenizers:robotics python3 benchmarks/accelerator/robot_policy.py --dry      # toy sizes, CPU

**Chunks**: the 675 M model with RT-1's window (192 x 240 pixels, 7 frames of latents, 6 actions), 10 steps, one
observation, uint8 picture in, actions in metres and radians out, in bfloat16: without video, with the video kept as
noise, with the video denoised; conditions seen in every step, or once (``isolate_conditions``); eager and compiled.
The aim: at most 100 ms without video. **Fine-tuning**: Self-Flow steps on the tasks of rt1_675m.yaml, AdamW and EMA
included; the model's operations over the rate of matrix products measured in the same run. Weights and tokenizer are
random: speed does not depend on them. The tokenizer is ours of Wan 2.2's geometry (video-16x-base). Results are written
after every row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfflow_mm.bench.rate import matrix_rate
from selfflow_mm.bench.report import machine
from selfflow_mm.bench.timing import once
from selfflow_mm.flow.objectives import Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointTransformer
from selfflow_mm.models.presets import preset
from selfflow_mm.randomness import Randomness
from selfflow_mm.training import ema
from selfflow_mm.training.throughput import Throughput
from selfflow_robotics.actions.normalise import Normaliser
from selfflow_robotics.adapter.model import RobotModel
from selfflow_robotics.adapter.policy import FlowPolicy
from selfflow_robotics.adapter.spec import RobotSpec
from selfflow_robotics.adapter.streams import video_positions
from selfflow_robotics.finetune.batches import batch_of
from selfflow_robotics.finetune.windows import TokenWindows
from selfflow_robotics.interfaces import Observation, Request
from selfflow_robotics.robot_episode import ACTION_NAMES
from selfflow_robotics.statistics import ColumnStatistics, Statistics
from selfflow_tokenizers import ByteTextEncoder, VideoAutoencoder, VideoTokenizer
from selfflow_tokenizers.presets import VIDEO_PRESETS

_INSTRUCTION = "pick coke can from bottom drawer and place on counter"
_TASKS = ("policy", "joint", "world", "inverse")
_AIM_MS = 100.0


def plain_spec(dry: bool) -> RobotSpec:
    """RT-1's window with made-up statistics."""
    names = ACTION_NAMES
    ones, zeros = (1.0,) * len(names), (0.0,) * len(names)
    numbers = {k: ones for k in ("max", "q90", "q99", "std")} | {k: zeros for k in ("mean", "min", "q01", "q10", "q50")}
    columns = ColumnStatistics(names, (1,) * len(names), (0,) * len(names), **numbers)
    return RobotSpec(
        horizon=6,
        control_rate=3,
        video_rate=12,
        height=32 if dry else 192,
        width=32 if dry else 240,
        fit="stretch",
        action_names=names,
        state_names=("s",) * 8,
        actions=Normaliser(names, ("identity",) * len(names), zeros, ones),
        states=Normaliser(("s",) * 8, ("identity",) * 8, (0.0,) * 8, (1.0,) * 8),
        statistics=Statistics("random", 1, 1, columns),
        tasks=_TASKS,
    )


def robot(dry: bool, device: torch.device, isolate: bool) -> RobotModel:
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(VideoAutoencoder(VIDEO_PRESETS["video-16x-small" if dry else "video-16x-base"]), patch=1)
    channels = {"video": tokenizer.spec.channels, "action": 7, "state": 8}
    text = ByteTextEncoder()
    name = "tiny" if dry else "675m"
    config = preset(name, modalities=channels, text_channels=text.spec.channels, isolate_conditions=isolate)
    model = JointTransformer(config).to(device)
    with torch.no_grad():
        for parameter in model.media_out.parameters():  # zero as built: then nothing would move
            parameter.normal_(std=0.02)
    dtype = torch.float32 if dry else torch.bfloat16
    return RobotModel(model, tokenizer.to(device), text, plain_spec(dry), dtype=dtype)


def chunk_rows(dry: bool, device: torch.device, late: float) -> Iterator[dict[str, Any]]:
    """Most wanted first."""
    picture = np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    request = Request(Observation(picture, _INSTRUCTION, np.zeros(8, np.float32)))
    for isolate, compiled, video in (
        (False, False, "absent"),
        (True, False, "absent"),
        (False, True, "absent"),
        (True, True, "absent"),
        (False, False, "denoised"),
        (False, False, 1.0),
    ):
        if time.monotonic() > late or (dry and compiled):
            continue
        torch._dynamo.reset()
        model = robot(dry, device, isolate)
        if compiled:
            model.compile()
        policy = FlowPolicy(model, steps=10, video=video)  # type: ignore[arg-type]
        policy.chunks([request])
        policy.chunks([request])
        rounds = [once(partial(policy.chunks, [request]), device) for _ in range(3 if dry else 20)]
        ms = 1000 * statistics.median(rounds)
        yield {
            "job": "chunk",
            "video": str(video),
            "conditions": "once" if isolate else "every step",
            "compiled": compiled,
            "ms": ms,
            "slowest_ms": 1000 * max(rounds),
            "aim": "met" if ms <= _AIM_MS else "missed" if video == "absent" else "",
        }
        del model, policy


def training_rows(dry: bool, device: torch.device, batches: list[int], late: float) -> Iterator[dict[str, Any]]:
    """A step of every task in turns, so that the mean is that of a run."""
    dtype = torch.float32 if dry else torch.bfloat16
    rate = matrix_rate(device, dtype)
    made = robot(dry, device, isolate=False)
    student, spec, text = made.transformer.train(), made.spec, made.text
    teacher = ema.copy_for_ema(student)
    optimizer = torch.optim.AdamW(student.parameters(), 1e-5, fused=True)
    config = ObjectiveConfig(mask_ratio={"action": 0.1, "state": 0.0}, given_levels={"video": 0.2})
    objective, random = Objective(config), Randomness(0)
    speed = Throughput(student.config, objective)
    for count in batches:
        if time.monotonic() > late:
            return
        flops, seconds, loss = 0, 0.0, torch.zeros(())
        try:
            for step in range(8 if dry else 16):
                task = _TASKS[step % len(_TASKS)]
                frames = 1 if task == "policy" else spec.frames(spec.horizon)
                tokens = len(video_positions(made.video, spec, frames))
                windows = TokenWindows(
                    torch.randn(count, tokens, made.video.spec.channels),
                    torch.randn(count, spec.horizon, 7),
                    torch.randn(count, 8),
                    [_INSTRUCTION] * count,
                    torch.arange(count),
                    [""] * count,
                )
                batch = batch_of(task, windows, [_INSTRUCTION] * count, spec, made.video, text).to(device)

                def train(batch: Any = batch, step: int = step) -> None:
                    nonlocal loss
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                        loss, _ = objective.loss(student, teacher, batch, random, step)
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    ema.update(teacher, student, 0.9999)

                took = once(train, device)
                if step >= len(_TASKS):  # the first round warms up
                    seconds, flops = seconds + took, flops + count * speed.flops(batch, step)
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            yield {"job": "finetune", "batch": count, "note": "out of memory"}
            continue
        yield {
            "job": "finetune",
            "batch": count,
            "mfu": flops / seconds / rate.flops,
            "tflops": flops / seconds / 1e12,
            "matrix_tflops": rate.flops / 1e12,
            "loss": float(loss.detach()),
        }


def line(row: dict[str, Any]) -> str:
    cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
    return "| " + " | ".join(f"{name} {cell}" for name, cell in zip(row, cells, strict=True)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder for the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row is begun after so many")
    parser.add_argument("--batches", type=int, nargs="+", help="windows of a fine-tuning step (default: 16 32 64)")
    parser.add_argument("--dry", action="store_true", help="toy sizes on a CPU")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.dry else "cpu")
    if device.type == "cpu" and not args.dry:
        raise SystemExit("there is no CUDA device here; --dry runs small on a CPU")
    args.out.mkdir(parents=True, exist_ok=True)
    about, found = machine(device), []
    late = time.monotonic() + 60 * args.minutes
    batches = args.batches or ([2] if args.dry else [16, 32, 64])
    for rows in (chunk_rows(args.dry, device, late - 120), training_rows(args.dry, device, batches, late)):
        for row in rows:
            found.append(row)
            print(line(row), flush=True)
            head = [
                f"    python {about['command']}",
                "",
                f"{about['device']}, torch {about['torch']}, {about['date']}",
                "",
            ]
            (args.out / "robot_policy.md").write_text("\n".join([*head, *map(line, found), ""]))
            (args.out / "robot_policy.json").write_text(json.dumps({"machine": about, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
