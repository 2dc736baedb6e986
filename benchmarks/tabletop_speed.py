"""How many pictures and steps of the tabletop one core makes in a second.

    python benchmarks/tabletop_speed.py --out docs/results/tabletop-speed.md

Draws a fixed scene (41 bodies: a table, a cabinet with three drawers, six objects, an arm with a gripper) with one
renderer as it changes more and more, then steps ``selfflow/Tabletop-v0`` through each task with random actions and with
the scripted expert, with and without pictures and sound. Times are the process's own, of one thread.
"""

from __future__ import annotations

import argparse
import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is imported: one core means one

import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import gymnasium  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

import selfflow_robotics.tabletop  # noqa: E402, F401
from selfflow_mm.bench.report import machine  # noqa: E402
from selfflow_mm.bench.table import write_text  # noqa: E402
from selfflow_robotics.tabletop.cameras import look_at  # noqa: E402
from selfflow_robotics.tabletop.expert import Expert  # noqa: E402
from selfflow_robotics.tabletop.renderer import Renderer  # noqa: E402
from selfflow_robotics.tabletop.shapes import Body, Camera, Form, Light, Look  # noqa: E402

_TASKS = ("pick", "move_near", "open_drawer", "close_drawer", "place_in_drawer")
_STEEL, _OAK, _BLACK = (
    Look((0.55, 0.56, 0.58), gloss=0.6),
    Look((0.3, 0.19, 0.11), "wood", (0.2, 0.11, 0.06)),
    Look((0.1,) * 3),
)
_RED, _BLUE = Look((0.6, 0.02, 0.03), "label", gloss=0.7), Look((0.03, 0.1, 0.5), "label", gloss=0.7)


def _body(form: Form, size: tuple[float, ...], place: tuple[float, ...], look: Look, shadow: bool = True) -> Body:
    return Body(form, form, size, np.array(place), np.eye(3), look, shadow)


def scene() -> tuple[Camera, Light, list[Body], list[Body]]:
    """Camera, light, 7 static and 34 moving bodies; the last 10 are the arm and its gripper."""
    place = np.array([-0.15, 0.12, 0.85])
    camera = Camera(place, look_at(place.tolist(), (0.6, -0.03, 0.1)), float(np.radians(58)))
    direction = np.array([-0.35, 0.5, 0.9])
    light = Light(tuple((direction / np.linalg.norm(direction)).tolist()))
    x, y = 0.78, -0.28
    static = [_body("box", (0.45, 0.6, 0.02), (0.55, 0, -0.02), _OAK, shadow=False)]
    static += [_body("box", (0.15, 0.01, 0.18), (x, y + side * 0.17, 0.18), _OAK) for side in (-1, 1)]
    static += [
        _body("box", (0.15, 0.18, 0.01), (x, y, 0.37), _OAK),
        _body("box", (0.01, 0.16, 0.18), (x + 0.14, y, 0.18), _OAK),
    ]
    static += [_body("box", (0.15, 0.16, 0.005), (x, y, z), _OAK) for z in (0.12, 0.24)]
    moving = [
        _body("cylinder", (0.033, 0.06), (0.5, 0.08, 0.06), _RED),
        _body("cylinder", (0.033, 0.06), (0.62, 0.25, 0.06), _BLUE),
        _body("sphere", (0.038,), (0.38, 0.2, 0.038), Look((0.45, 0.06, 0.03), "speckle", gloss=0.6)),
        _body("box", (0.05, 0.035, 0.018), (0.36, -0.02, 0.018), Look((0.75, 0.6, 0.08), "speckle")),
        _body("box", (0.025,) * 3, (0.55, -0.02, 0.025), Look((0.05, 0.3, 0.12), "checker")),
        _body("cylinder", (0.028, 0.085), (0.72, 0.13, 0.085), _RED),
    ]
    for z in (0.06, 0.18, 0.3):
        moving += [
            _body("box", (0.01, 0.158, 0.052), (x - 0.15, y, z), _OAK),
            _body("box", (0.13, 0.158, 0.003), (x, y, z - 0.05), _STEEL),
            *(_body("box", (0.13, 0.004, 0.04), (x, y + side * 0.15, z - 0.005), _STEEL) for side in (-1, 1)),
            _body("box", (0.004, 0.15, 0.04), (x + 0.13, y, z - 0.005), _STEEL),
            _body("box", (0.008, 0.045, 0.007), (x - 0.172, y, z), _STEEL),
        ]
    joints = np.array(
        [[0, 0, 0.1], [0, 0, 0.35], [0.16, 0.02, 0.52], [0.41, 0.08, 0.4], [0.46, 0.08, 0.32], [0.48, 0.08, 0.26]]
    )
    for start, end, radius in zip(joints, joints[1:], (0.05, 0.045, 0.038, 0.03, 0.028), strict=False):
        line = end - start
        length = float(np.linalg.norm(line))
        aside = np.array([0.0, 1.0, 0.0]) if abs(line[1]) < 0.9 * length else np.array([1.0, 0.0, 0.0])
        across = np.cross(aside, line / length)
        across /= np.linalg.norm(across)
        turn = np.stack([across, np.cross(line / length, across), line / length], axis=1)
        moving.append(Body("arm", "capsule", (radius, length / 2), (start + end) / 2, turn, _STEEL))
    moving.append(_body("box", (0.02, 0.06, 0.012), (0.48, 0.08, 0.235), _BLACK))
    for side in (-1, 1):
        moving.append(_body("box", (0.012, 0.006, 0.04), (0.48, 0.08 + side * 0.04, 0.185), _BLACK))
        moving.append(_body("box", (0.012, 0.004, 0.016), (0.48, 0.08 + side * 0.032, 0.155), _STEEL))
    return camera, light, static, moving


def per_second(work: Callable[[int], None], seconds: float) -> float:
    """How often a second of the process's own time; ``work`` is given 0, 1, 2, ... and runs once before the clock."""
    work(0)
    start, done = time.process_time(), 0
    while time.process_time() - start < seconds:
        done += 1
        work(done)
    return done / (time.process_time() - start)


def pictures(seconds: float) -> Iterator[str]:
    yield "| what changed since the last picture | pictures/s | ms |"
    yield "|---|---:|---:|"
    camera, light, static, moving = scene()
    renderer = Renderer()
    kept = [body.place.copy() for body in moving]

    def draw(count: int, first: int) -> None:
        for body, place in zip(moving[first:], kept[first:], strict=True):
            body.place[:] = place + (0.002 * (count % 10), 0, 0)
        renderer.render(camera, light, static, moving)

    def afresh(count: int) -> None:
        renderer.forget()
        draw(count, 0)

    cases: list[tuple[str, Callable[[int], None]]] = [
        ("nothing", lambda count: draw(0, len(moving))),
        ("the gripper (5 of 41 bodies)", lambda count: draw(count, len(moving) - 5)),
        ("arm and gripper (9)", lambda count: draw(count, len(moving) - 9)),
        ("everything that can move (34)", lambda count: draw(count, 0)),
        ("camera or light: all of it (41)", afresh),
    ]
    for name, work in tqdm(cases, desc="pictures"):
        rate = per_second(work, seconds)
        yield f"| {name} | {rate:,.0f} | {1000 / rate:.2f} |"


def episodes(task: str, seconds: float, expert: bool, picture: bool, sound: bool) -> tuple[float, int]:
    """Steps a second, resets not counted, and steps done."""
    env = gymnasium.make("selfflow/Tabletop-v0", task=task, pictures=picture, sound=sound, disable_env_checker=True)
    env.action_space.seed(0)
    taken, steps, seed = 0.0, 0, 0
    while taken < seconds:
        env.reset(seed=seed)
        policy = Expert(env) if expert else None
        seed += 1
        over = False
        while not over:
            action = env.action_space.sample() if policy is None else policy.act()
            start = time.process_time()
            _, _, terminated, truncated, _ = env.step(action)
            taken += time.process_time() - start
            steps += 1
            over = terminated or truncated
    env.close()
    return steps / taken, steps


def environment(seconds: float) -> Iterator[str]:
    kinds = [(False, False), (False, True), (True, False), (True, True)]
    yield "| task | actions | neither | sound | pictures | both |"
    yield "|---|---|---:|---:|---:|---:|"
    for task, expert in tqdm([(task, expert) for task in _TASKS for expert in (False, True)], desc="tasks"):
        rates = [episodes(task, seconds, expert, picture, sound)[0] for picture, sound in kinds]
        yield f"| {task} | {'expert' if expert else 'random'} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of process time for each figure")
    parser.add_argument("--out", type=Path, help="also write the tables here, as Markdown")
    args = parser.parse_args()
    about = machine(torch.device("cpu"))
    lines = [
        f"    python {about['command']}",
        "",
        f"{about['cpu']}, one thread, numpy {np.__version__}, gymnasium {gymnasium.__version__}, {about['date']}. "
        f"{args.seconds:g} s of the process's own time for each figure.",
        "",
        "**Pictures** of 256 x 320 pixels by the renderer alone.",
        "",
        *pictures(args.seconds),
        "",
        "**Steps a second** of the environment, resets and the expert's thinking not counted, by what is observed.",
        "",
        *environment(args.seconds),
    ]
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
