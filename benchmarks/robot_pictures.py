"""The pictures of docs/robot-data.md, docs/tabletop.md and the README.

    python benchmarks/robot_pictures.py --bridge ../shared/data/rlds/bridge_dataset --out docs/pictures

`tabletop.png`: the expert at the five tasks, one column each, four moments from above to below. `robot-bridge.png`: the
contact sheet of a real episode, as `robot-data play --sheet` draws it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

from selfflow_robotics.look.contact_sheet import contact_sheet
from selfflow_robotics.look.report import scale_of
from selfflow_robotics.look.survey import survey
from selfflow_robotics.sources import open_episodes
from selfflow_robotics.tabletop import ID, Expert

#: Task, variant, seed.
COLUMNS = (
    ("pick", "base", 4),
    ("move_near", "distractors", 1),
    ("open_drawer", "base", 2),
    ("close_drawer", "texture", 6),
    ("place_in_drawer", "base", 0),
)


def column(task: str, variant: str, seed: int) -> np.ndarray:
    env = gymnasium.make(ID, task=task, variant=variant)
    observation, _ = env.reset(seed=seed)
    frames, expert, over = [observation], Expert(env), False
    while not over:
        observation, _, ended, truncated, _ = env.step(expert.act())
        frames.append(observation)
        over = ended or truncated
    moments = [0, len(frames) // 3, 2 * len(frames) // 3, len(frames) - 1]
    return np.vstack([frames[moment]["image"]["overhead_camera"]["rgb"] for moment in moments])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", type=Path, help="a Bridge data set; without it only the tabletop is drawn")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    strip = Image.fromarray(np.hstack([column(*settings) for settings in COLUMNS]))
    strip.resize((1000, 640), Image.Resampling.LANCZOS).quantize(256).save(args.out / "tabletop.png", optimize=True)
    if args.bridge:
        data = open_episodes(args.bridge)
        sheet = contact_sheet(data.read(*data.locate(5)), scale=scale_of(data, survey(data, limit=50)))
        sheet.convert("RGB").quantize(256).save(args.out / "robot-bridge.png", optimize=True)


if __name__ == "__main__":
    main()
