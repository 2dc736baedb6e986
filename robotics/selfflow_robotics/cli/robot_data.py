"""``selfflow-mm robot-data``: everything about robot episodes on disk."""

from __future__ import annotations

HELP = "look at robot episodes (RLDS, LeRobot), convert them, measure them, record new ones"
EXAMPLES = """examples:
  selfflow-mm robot-data inspect ~/data/fractal20220817_data
  selfflow-mm robot-data play ~/data/bridge_dataset --out bridge.mp4
  selfflow-mm robot-data stats ~/data/fractal20220817_data
  selfflow-mm robot-data convert ~/data/fractal20220817_data ~/data/fractal_lerobot --to lerobot
  selfflow-mm robot-data record --episodes 100 --out tabletop
  selfflow-mm robot-data clips tabletop stills --size 96x112 --stills 8
"""

_PACKAGE = "selfflow_robotics.cli"
#: Command -> (module, the one line that help shows; equal to the module's HELP).
SUBCOMMANDS = {
    "inspect": (f"{_PACKAGE}.inspect", "say what a data set of robot episodes holds"),
    "play": (f"{_PACKAGE}.play", "make a video or a contact sheet of robot episodes, with their actions drawn in"),
    "stats": (f"{_PACKAGE}.stats", "measure actions and states over all frames, for normalising them"),
    "convert": (f"{_PACKAGE}.convert", "write a data set of robot episodes in another format"),
    "record": (f"{_PACKAGE}.record", "record episodes of the tabletop's expert in RT-1's layout"),
    "clips": (
        f"{_PACKAGE}.clips",
        "cut stills or clips out of robot episodes, as a data set for train-tokenizer and train",
    ),
}
