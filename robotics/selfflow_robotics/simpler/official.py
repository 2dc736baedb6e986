"""SIMPLER's official evaluations, to be held against its scripts line by line.

One :class:`Arrangement` is one call of SIMPLER's evaluator: an environment, how it is built, and the grid of places at
which robot and objects begin. Numbers are those of ``scripts/rt1_*.sh`` and ``scripts/octo_bridge.sh`` of SimplerEnv at
commit 4ab7178 (2025-03-28); ``tests/robotics/simpler`` runs those scripts and compares, where they are at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .arrangements import Arrangement, Trial, evenly, every_start

__all__ = ["google_cameras", "google_variant_aggregation", "google_visual_matching", "paper", "widowx"]

# The Google robot at the table.

_TABLE = "google_pick_coke_can_1_v4"
_CAN = {"horizontal": {"lr_switch": True}, "standing": {"upright": True}, "vertical": {"laid_vertically": True}}
_COKE = Arrangement(
    "pick_coke_can", "base", "", "GraspSingleOpenedCokeCanInScene-v0", _TABLE,
    object_x=(-0.35, -0.12, 5), object_y=(-0.02, 0.42, 5),
)  # fmt: skip
_NEAR = Arrangement(
    "move_near", "base", "", "MoveNearGoogleInScene-v0", _TABLE, robot_y=(0.21, 0.21, 1), yaw=-0.09, episodes=60
)
#: The robot's looks: as it is, and recoloured to go with each of three real pictures.
_LOOKS = (
    None,
    "recolor_tabletop_visual_matching_1",
    "recolor_tabletop_visual_matching_2",
    "recolor_cabinet_visual_matching_1",
)
_TABLES = ("Baked_sc1_staging_objaverse_cabinet1_h870", "Baked_sc1_staging_objaverse_cabinet2_h870")
_BACKGROUNDS = ("google_pick_coke_can_1_v4_alt_background", "google_pick_coke_can_1_v4_alt_background_2")
_LIGHTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("darker light", {"slightly_darker_lighting": True}),
    ("brighter light", {"slightly_brighter_lighting": True}),
)

# The Google robot at the cabinet.

_OPEN = {drawer: f"Open{drawer.title()}DrawerCustomInScene-v0" for drawer in ("top", "middle", "bottom")}
_CLOSE = {drawer: f"Close{drawer.title()}DrawerCustomInScene-v0" for drawer in ("top", "middle", "bottom")}
_ROOM = "frl_apartment_stage_simple"
_APPLE = Arrangement(
    "place_apple_in_closed_top_drawer", "base", "", "PlaceIntoClosedTopDrawerCustomInScene-v0", _ROOM,
    ray_tracing=True, object_x=(-0.08, -0.02, 3), object_y=(-0.02, 0.08, 3),
)  # fmt: skip
#: Where the robot stood for each of the nine real pictures: name, x, y, yaw.
_STANDS = (
    ("a0", 0.644, -0.179, -0.03),
    ("a1", 0.765, -0.182, -0.02),
    ("a2", 0.889, -0.203, -0.06),
    ("b0", 0.652, 0.009, 0.0),
    ("b1", 0.752, 0.009, 0.0),
    ("b2", 0.851, 0.035, 0.0),
    ("c0", 0.665, 0.224, 0.0),
    ("c1", 0.765, 0.222, -0.025),
    ("c2", 0.865, 0.222, -0.025),
)


def google_visual_matching() -> Iterator[Arrangement]:
    for look in _LOOKS:
        dressed = {"urdf_version": look}
        for part, lying in _CAN.items():
            yield replace(
                _COKE, variant=_look(look), part=part, overlay="google_coke_can_real_eval_1.png",
                options={**lying, **dressed},
            )  # fmt: skip
    for look in _LOOKS:
        yield replace(
            _NEAR, variant=_look(look), environment="MoveNearGoogleBakedTexInScene-v0",
            overlay="google_move_near_real_eval_1.png", options={"urdf_version": look},
        )  # fmt: skip
    drawers = [("open_drawer", _OPEN), ("close_drawer", _CLOSE)]
    yield from (
        _before_a_picture(Arrangement(task, "", drawer, environment, ""), look, stand)
        for task, environments in drawers
        for look in _LOOKS
        for drawer, environment in environments.items()
        for stand in _STANDS
    )
    yield from (
        _before_a_picture(replace(_APPLE, options={"model_ids": "baked_apple_v2"}), look, stand)
        for look in _LOOKS
        for stand in _STANDS
        if stand[0] in ("a0", "b0", "c0")
    )


def _before_a_picture(of: Arrangement, look: str | None, stand: tuple[str, float, float, float]) -> Arrangement:
    """At the cabinet, the robot where it stood when the real picture was taken."""
    name, x, y, yaw = stand
    station = {"station_name": "mk_station_recolor", "light_mode": "simple", "disable_bad_material": True}
    return replace(
        of, variant=_look(look), scene="dummy_drawer", overlay=f"open_drawer_{name}.png", ray_tracing=True,
        options={**station, "urdf_version": look, **of.options}, robot_x=(x, x, 1), robot_y=(y, y, 1), yaw=yaw,
    )  # fmt: skip


def _look(look: str | None) -> str:
    return look or "robot as it is"


def google_variant_aggregation() -> Iterator[Arrangement]:
    for part, lying in _CAN.items():
        can = replace(_COKE, part=part, options=lying)
        crowd = replace(can, environment="GraspSingleOpenedCokeCanDistractorInScene-v0", variant="distractors")
        yield from _varied(can)
        yield crowd
        yield replace(crowd, variant="more distractors", options={**lying, "distractor_config": "more"})
    yield from _varied(_NEAR)
    yield replace(_NEAR, variant="no distractor", options={"no_distractor": True})
    for task, environments in (("open_drawer", _OPEN), ("close_drawer", _CLOSE)):
        for drawer, environment in environments.items():
            yield from _in_rooms(
                Arrangement(
                    task, "base", drawer, environment, _ROOM, ray_tracing=True,
                    robot_x=(0.65, 0.85, 3), robot_y=(-0.2, 0.2, 3),
                )
            )  # fmt: skip
    yield from _in_rooms(
        replace(_APPLE, options={"model_ids": "apple"}, robot_x=(0.65, 0.65, 1), robot_y=(-0.2, 0.2, 3))
    )


def _varied(base: Arrangement) -> Iterator[Arrangement]:
    """As it is, and with other tables, backgrounds and lights."""
    yield base
    yield from (replace(base, variant=f"table {n}", scene=scene) for n, scene in enumerate(_TABLES, 1))
    yield from (replace(base, variant=f"background {n}", scene=scene) for n, scene in enumerate(_BACKGROUNDS, 1))
    yield from (replace(base, variant=name, options={**base.options, **light}) for name, light in _LIGHTS)


def google_cameras() -> Iterator[Arrangement]:
    for number, camera in enumerate(("AltGoogleCamera", "AltGoogleCamera2"), 1):
        variant = f"camera {number}"
        for part, lying in _CAN.items():
            environment = f"GraspSingleOpenedCokeCan{camera}InScene-v0"
            yield replace(_COKE, part=part, options=lying, environment=environment, variant=variant)
        yield replace(_NEAR, environment=f"MoveNear{camera}InScene-v0", variant=variant)


def _in_rooms(base: Arrangement) -> Iterator[Arrangement]:
    """As it is, and in other rooms, lights and with other cabinets."""
    yield base
    yield replace(base, variant="background 1", scene="modern_bedroom_no_roof")
    yield replace(base, variant="background 2", scene="modern_office_no_roof")
    for mode in ("brighter", "darker"):
        yield replace(base, variant=f"{mode} light", options={"light_mode": mode, **base.options})
    for number in (2, 3):
        station = {"station_name": f"mk_station{number}"}
        yield replace(base, variant=f"cabinet {number}", options={**station, **base.options})


# The WidowX.

_BRIDGE = Arrangement(
    "", "visual matching", "", "", "bridge_table_1_v1", overlay="bridge_real_eval_1.png", robot="widowx",
    control_rate=5, simulation_rate=500, robot_x=(0.147, 0.147, 1), robot_y=(0.028, 0.028, 1), episodes=24,
)  # fmt: skip


def widowx() -> Iterator[Arrangement]:
    yield replace(_BRIDGE, task="spoon_on_towel", environment="PutSpoonOnTableClothInScene-v0")
    yield replace(_BRIDGE, task="carrot_on_plate", environment="PutCarrotOnPlateInScene-v0")
    yield replace(_BRIDGE, task="stack_cube", environment="StackGreenCubeOnYellowCubeBakedTexInScene-v0")
    yield replace(
        _BRIDGE, task="put_eggplant_in_basket", environment="PutEggplantInBasketScene-v0", scene="bridge_table_1_v2",
        overlay="bridge_sink.png", robot="widowx_sink_camera_setup",
        robot_x=(0.127, 0.127, 1), robot_y=(0.06, 0.06, 1),
    )  # fmt: skip


# The paper's.

#: Trials of each group, everything twice (Self-Flow, app. E). Which ones is not published: here they are spread evenly
#: over visual matching, drawers to be opened and to be closed in one group.
_PAPER_GROUPS = (
    (("pick_coke_can",), 15),
    (("open_drawer", "close_drawer"), 18),
    (("move_near",), 10),
    (("place_apple_in_closed_top_drawer",), 7),
)
_PAPER_REPEATS = 2


def paper() -> list[Trial]:
    every = every_start(google_visual_matching())
    chosen = [
        trial
        for tasks, count in _PAPER_GROUPS
        for trial in evenly([t for t in every if t.arrangement.task in tasks], count)
    ]
    twice = [(trial, repeat) for trial in chosen for repeat in range(_PAPER_REPEATS)]
    return [replace(trial, number=number, repeat=repeat) for number, (trial, repeat) in enumerate(twice)]
