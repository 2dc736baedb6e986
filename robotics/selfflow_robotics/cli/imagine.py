"""``selfflow-mm imagine``: a film of what a world model expects of actions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..interfaces import WorldModel
    from ..robot_episode import RobotEpisode

HELP = "imagine what a robot's actions lead to, as a film"
EXAMPLES = """examples:
  selfflow-mm imagine runs/rt1 --data fractal20220817_data --episode 3 --compare --out film.mp4
  selfflow-mm imagine runs/rt1 --data fractal20220817_data --step 12 --actions zero --length 8 --out still.mp4
  selfflow-mm imagine runs/rt1 --image table.png --instruction "pick coke can" --actions grasp.json --out grasp.mp4
  selfflow-mm imagine runs/rt1 --image table.png --instruction "pick can" --actions policy:runs/rt1 --out dream.mp4

Actions are in raw units: x, y, z in metres and roll, pitch, yaw in radians per step, then the gripper's opening (1 is
open, 0 closed). FILE.json holds a list of such lists, FILE.npy an array (T, 7). 'recorded' takes those of the episode
from --step on, 'zero' holds still, 'policy:NAME' asks a policy, which sees what is imagined. More actions than the
model's horizon go on from its own last picture, and errors add up; --context-level tells it to trust that picture less.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="CKPT", help="folder of finetune-robot, or its model")
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--image", type=Path, metavar="FILE", help="the picture to begin from")
    begin.add_argument("--data", metavar="DIR", help="robot data, RLDS or LeRobot, to begin from an episode")
    parser.add_argument("--episode", type=int, metavar="N", help="of --data (default: 0)")
    parser.add_argument("--step", type=int, metavar="K", help="of the episode (default: 0)")
    parser.add_argument("--camera", metavar="NAME", help="of --data (default: the model's, or the first)")
    parser.add_argument("--layout", metavar="NAME|FILE", help="what --data's columns mean (default: found out)")
    parser.add_argument("--split", metavar="S", help="of --data (default: train, or the only one)")
    parser.add_argument(
        "--actions", default="recorded", metavar="A",
        help="FILE.npy, FILE.json, recorded, zero or policy:NAME (default: recorded)",
    )  # fmt: skip
    parser.add_argument(
        "--length", type=int, metavar="T",
        help="actions to imagine (default: all there are; the model's horizon for zero, a chunk for a policy)",
    )  # fmt: skip
    parser.add_argument("--instruction", metavar="TEXT", help="(default: the episode's, or none)")
    parser.add_argument("--steps", type=int, metavar="N", help="of the solver (default: the model's own)")
    parser.add_argument(
        "--context-level", type=float, metavar="X",
        help="noise level in [0, 1) of the picture it starts from (default: the model's own)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--compare", action="store_true", help="what was recorded beside it, with --data")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.mp4", help="the film")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    import json
    import sys

    import numpy as np

    from ..dreams.actions import outside, same_rate
    from ..dreams.film import write_film
    from ..dreams.loading import open_world_model
    from ..resizing import resize

    _check(args)
    model = open_world_model(args.model)
    about = model.about
    args.camera = args.camera or about.camera or None
    episode = None if args.data is None else _episode(args)
    image = _read_image(args.image) if episode is None else _pictures(episode, args.camera, [args.step])[0]
    instruction = args.instruction if args.instruction is not None else episode.instruction if episode else ""
    if episode is not None and args.compare:
        same_rate(episode, about)
    actions, imagined, in_one_go = _imagine(args, model, image, instruction, episode)
    for clause in (beyond := outside(actions, about)):
        print(f"warning: the model was not trained on such actions: {clause}", file=sys.stderr)
    size, fitting = (about.height, about.width), about.fit
    film = np.concatenate([resize(image, size, fitting)[None], imagined])
    recorded = None
    if args.compare and episode is not None:
        shown = np.minimum(args.step + np.arange(len(film)), len(episode) - 1)
        recorded = resize(_pictures(episode, args.camera, shown.tolist()), size, fitting)
    pixels = write_film(args.out, film, about.control_rate, instruction, recorded)
    done: dict[str, Any] = {
        "film": str(args.out),
        "model": about.name,
        "start": str(args.image) if episode is None else f"{episode.id}, step {args.step}",
        "instruction": instruction,
        "actions": args.actions,
        "length": len(actions),
        "in_one_go": in_one_go,
        "control_rate": about.control_rate,
        "size": list(pixels),
        "seed": args.seed,
        "steps": about.extra.get("steps") if args.steps is None else args.steps,
        "context_level": about.extra.get("context_level") if args.context_level is None else args.context_level,
        "outside": beyond,
    }
    if recorded is not None and args.actions == "recorded":
        done["psnr_rgb_openloop"] = _psnr(film[1:], recorded[1:])
    print(json.dumps(done, indent=2) if args.json else _sentences(done))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together, before anything is loaded."""
    from selfflow_mm.errors import UserError

    from .outputs import refuse_no_file

    if args.out.suffix.lower() != ".mp4":
        raise UserError(f"--out writes .mp4, but the name is '{args.out.name}'; end it in .mp4")
    refuse_no_file(args.out)
    if args.data is None and args.compare:
        raise UserError("--compare shows what was recorded, which a single picture does not have; begin from --data")
    if args.data is None and args.actions == "recorded":
        raise UserError("a single picture has no recorded actions; name some with --actions, or begin from --data")
    of_data = {name: getattr(args, name) for name in ("episode", "step", "camera", "layout", "split")}
    if args.data is None and (named := [f"--{name}" for name, value in of_data.items() if value is not None]):
        raise UserError(f"{' and '.join(named)} choose from --data, and --image is a single picture; leave them out")
    args.episode, args.step = args.episode or 0, args.step or 0
    if args.length is not None and args.length < 1:
        raise UserError(f"--length is at least 1 action, got {args.length}")
    if args.steps is not None and args.steps < 1:
        raise UserError(f"--steps is at least 1, got {args.steps}")
    if args.context_level is not None and not 0 <= args.context_level < 1:
        raise UserError(f"--context-level is a noise level in [0, 1), got {args.context_level:g}")
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed is at least 0 and below 2**63, got {args.seed}")


def _episode(args: argparse.Namespace) -> RobotEpisode:
    from selfflow_mm.errors import UserError

    from ..sources import open_episodes

    source = open_episodes(args.data, args.layout, args.split)
    episode = source.read(*source.locate(args.episode))
    if not 0 <= args.step < len(episode):
        raise UserError(f"there is no step {args.step} in episode {args.episode}; it has {len(episode)}, from 0")
    return episode


def _pictures(episode: RobotEpisode, camera: str | None, steps: list[int]) -> np.ndarray:
    """``(n, H, W, 3)`` uint8 of the camera, or the first one."""
    from selfflow_mm.errors import UserError

    from ..look.cameras import as_rgb, choose_cameras

    cameras = choose_cameras(episode, [camera] if camera else None)
    if not cameras:
        raise UserError(f"episode {episode.id} has no pictures to begin from")
    return as_rgb(episode.images[cameras[0]].read(steps))


def _read_image(path: Path) -> np.ndarray:
    import numpy as np
    from PIL import Image as Pillow

    from selfflow_mm.errors import UserError

    try:
        with Pillow.open(path) as file:
            return np.array(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise UserError(f"no picture can be read from {path} ({error})") from error


def _imagine(
    args: argparse.Namespace, model: WorldModel, image: np.ndarray, instruction: str, episode: RobotEpisode | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """The actions asked for, ``(T, D)``, the pictures after each, ``(T, h, w, 3)``, and how many came in one go."""
    options = {"steps": args.steps, "context_level": args.context_level}
    kind, _, name = args.actions.partition(":")
    if kind == "policy":
        from ..dreams.acting import act_in_dream
        from ..policies import ActingOptions, Policy

        policy = Policy.from_pretrained(name, options=ActingOptions(seed=args.seed))
        known = episode is not None and episode.state_names == policy.about.state_names
        state = episode.states[args.step] if episode is not None and known and policy.about.state_names else None
        length = args.length or policy.executed
        actions, pictures = act_in_dream(
            model, policy, image, instruction, length=length, seed=args.seed, state=state, **options
        )
        return actions, pictures, min(policy.executed, _in_one_go(model))
    actions = _actions(args, model, episode)
    pictures = model.imagine(image[None], actions[None], [instruction], seeds=[args.seed], **options)[0]
    return actions, pictures, _in_one_go(model)


def _in_one_go(model: WorldModel) -> int:
    return int(model.about.extra.get("chunk", model.about.horizon))


def _actions(args: argparse.Namespace, model: WorldModel, episode: RobotEpisode | None) -> np.ndarray:
    from selfflow_mm.errors import UserError

    from ..dreams.actions import read_actions, recorded_actions, still_actions

    about = model.about
    if args.actions == "zero":
        like = None if episode is None else episode.actions[args.step]
        return still_actions(about, args.length or about.horizon, like)
    if args.actions == "recorded" and episode is not None:
        actions = recorded_actions(episode, args.step, about)
    else:
        actions = read_actions(Path(args.actions), about.action_names)
    if args.length is not None and args.length > len(actions):
        raise UserError(f"--length is {args.length}, but there are only {len(actions)} actions")
    return actions[: args.length]


def _psnr(imagined: np.ndarray, recorded: np.ndarray) -> list[float]:
    """dB of every picture over R, G and B; no true picture is ever handed in again, hence open loop."""
    import torch

    from selfflow_mm.evaluation.reconstruction import psnr

    pairs = zip(torch.from_numpy(imagined), torch.from_numpy(recorded), strict=True)
    return [round(psnr(output, target), 2) for output, target in pairs]


def _sentences(done: dict[str, Any]) -> str:
    lines = [
        f"{done['film']}: {done['length']} actions ({done['actions']}) from {done['start']}, by {done['model']}",
        f"{done['length'] + 1} frames of {done['size'][0]} x {done['size'][1]} at {done['control_rate']:g} per second",
    ]
    if done["length"] > done["in_one_go"]:
        lines.append(f"every {done['in_one_go']} actions it went on from its own last picture")
    if "psnr_rgb_openloop" in done:
        values = done["psnr_rgb_openloop"]
        lines.append(
            f"PSNR (RGB, open loop) to what was recorded: {values[0]:.1f} dB at first, {values[-1]:.1f} at last"
        )
    return "\n".join(lines)
