"""The tabletop's physics against closed forms, and against whatever actions there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from selfflow_robotics.tabletop import measures as m
from selfflow_robotics.tabletop.cabinet import Cabinet
from selfflow_robotics.tabletop.footprints import Footprint, overlap
from selfflow_robotics.tabletop.hand import REST, Hand
from selfflow_robotics.tabletop.tasks import ALL_TASKS, make_task, put
from selfflow_robotics.tabletop.things import Thing
from selfflow_robotics.tabletop.world import World

NO = np.zeros(3)
START = (0.5, 0.0, 1.10)


def go(world: World, x: float = 0.0, y: float = 0.0, z: float = 0.0, gripper: float = 0.0) -> None:
    world.step(np.array([x, y, z]), NO, gripper)


def holding(name: str = "coke can", place: tuple[float, float] = (0.6, 0.0)) -> tuple[World, Thing]:
    thing = put(name, place, 0.0)
    world = World([thing], None, (place[0], place[1], max(thing.place[2], thing.top - 0.055)))
    go(world, gripper=1)
    go(world)
    assert world.held is thing
    return world, thing


@given(st.lists(st.tuples(*[st.floats(-0.05, 0.05)] * 3), min_size=1, max_size=5))
def test_the_tool_follows_its_commands_exactly(moves):
    world = World([], None, (0.6, 0.0, 1.15))
    for move in moves:
        before = world.hand.place.copy()
        go(world, *move)
        if 1.0 < world.hand.place[2] < m.CEILING:
            np.testing.assert_allclose(world.hand.place - before, move, atol=1e-12)


def test_rotations_turn_the_tool_about_its_origin_in_the_base_frame():
    world = World([], None, START)
    world.step(NO, np.array([0.0, 0.0, 0.3]), 0)
    world.step(NO, np.array([0.0, -0.5, 0.0]), 0)
    cz, sz, cy, sy = math.cos(0.3), math.sin(0.3), math.cos(0.5), math.sin(0.5)
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    np.testing.assert_allclose(world.hand.turn, about_y @ about_z @ REST, atol=1e-12)
    np.testing.assert_allclose(world.hand.place, START, atol=1e-12)


def test_speed_reach_ceiling_and_lean_are_limited():
    world = World([], None, START)
    before = world.hand.place.copy()
    go(world, y=1.0)
    assert np.linalg.norm(world.hand.place - before) == pytest.approx(m.MAX_MOVE)
    for _ in range(8):
        go(world, x=1.0, z=1.0)
    assert math.hypot(*world.hand.place[:2]) == pytest.approx(m.REACH[1])
    assert world.hand.place[2] == m.CEILING
    for _ in range(8):
        world.step(NO, np.array([0.0, -1.0, 0.0]), 0)
    assert math.acos(-world.hand.turn[2, 2]) <= m.MAX_TILT
    for _ in range(8):
        go(world, x=-1.0)
    assert math.hypot(*world.hand.place[:2]) >= m.REACH[0] - 1e-9


def test_the_tool_stops_on_the_table():
    world = World([], None, START)
    for _ in range(4):
        go(world, z=-0.2)
    tips = m.FINGER_HEIGHTS[0] + m.FINGER_RADIUS
    assert world.hand.place[2] == pytest.approx(m.TABLE_TOP + tips, abs=1e-9)


def test_a_held_object_moves_with_the_tool():
    world, can = holding()
    assert world.hand.gap == pytest.approx(2 * 0.033)  # the can's diameter
    before = np.array(can.place)
    go(world, 0.03, -0.04, 0.10)
    np.testing.assert_allclose(np.array(can.place) - before, [0.03, -0.04, 0.10], atol=1e-9)
    # Turned about the tool's origin, as a rigid body.
    offset = np.array(can.place) - world.hand.place
    world.step(NO, np.array([0.4, 0.0, 0.0]), 0)
    c, s = math.cos(0.4), math.sin(0.4)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    np.testing.assert_allclose(np.array(can.place) - world.hand.place, about_x @ offset, atol=1e-9)
    np.testing.assert_allclose(can.turn, about_x, atol=1e-9)


@pytest.mark.parametrize("height", [0.02, 0.10, 0.25])
def test_a_dropped_object_lands_when_free_fall_says(height):
    world, can = holding("coke can")
    go(world, z=height)
    start = world.seconds
    contacts = world.step(NO, NO, -1) + world.step(NO, NO, 0)
    (blow,) = [contact for contact in contacts if contact.names == ("coke can", "table")]
    assert blow.time - start == pytest.approx(math.sqrt(2 * height / m.GRAVITY), abs=1e-9)
    assert blow.impact == pytest.approx(min(math.sqrt(2 * height * m.GRAVITY) / 1.5, 1.0), abs=1e-9)
    assert can.place[2] == pytest.approx(m.TABLE_TOP + 0.061, abs=1e-12)
    assert can.fall == 0.0


def test_fingers_miss_what_is_not_between_them_and_off_centre_round_things_slip_out():
    thing = put("apple", (0.6, 0.0), 0.0)
    world = World([thing], None, (0.68, 0.0, thing.place[2]))
    go(world, gripper=1)
    go(world)
    assert world.held is None and world.hand.gap == 0.0


def test_a_box_is_gripped_across_and_turned_straight():
    box = put("pudding box", (0.6, 0.0), 0.2)  # 11 degrees askew
    world = World([box], None, (0.6, 0.0, 0.90))
    go(world, gripper=1)
    go(world)
    assert world.held is box
    assert world.hand.gap == pytest.approx(2 * 0.033)
    assert abs(box.turn[1, 1]) == pytest.approx(1.0)
    askew = put("pudding box", (0.6, 0.0), 0.75)  # 43 degrees: the fingers jam
    world = World([askew], None, (0.6, 0.0, 0.90))
    go(world, gripper=1)
    go(world)
    assert world.held is None


def test_a_pushed_object_is_pushed_as_far_as_the_finger_goes():
    box = put("pudding box", (0.65, 0.0), 0.0)
    world = World([box], None, (0.50, 0.0, 0.895))
    go(world, gripper=1)
    for _ in range(5):
        go(world, x=0.04)
    # The closed fingers' front is one radius ahead of the tool, the box's half length is 0.043.
    assert box.place[0] == pytest.approx(world.hand.place[0] + m.FINGER_RADIUS + 0.043, abs=2e-3)
    assert box.place[1] == pytest.approx(0.0, abs=1e-6)


def test_objects_push_each_other_and_do_not_overlap():
    first, second = put("pudding box", (0.62, 0.0), 0.0), put("sponge", (0.74, 0.01), 0.3)
    world = World([first, second], None, (0.50, 0.0, 0.895))
    go(world, gripper=1)
    for _ in range(6):
        go(world, x=0.04)
    assert second.place[0] > 0.77
    depth, _, _ = overlap(
        first.footprint, second.footprint, second.place[0] - first.place[0], second.place[1] - first.place[1]
    )
    assert depth < 1e-5


def test_a_can_pushed_high_topples_and_pushed_low_slides():
    for height, lies in ((0.11, True), (0.03, False)):
        can = put("coke can", (0.62, 0.0), 0.0)
        world = World([can], None, (0.52, 0.0, m.TABLE_TOP + height))
        go(world, gripper=1)
        go(world, x=0.10)
        assert can.upright is not lies
        assert can.place[0] > 0.63
        assert can.bottom == pytest.approx(m.TABLE_TOP)


def test_things_leave_the_table_only_for_the_floor():
    can = put("coke can", (0.44, 0.79), 0.0)
    world = World([can], None, (0.44, 0.68, 0.90))
    go(world, gripper=1)
    for _ in range(5):
        go(world, y=0.04)
    go(world)
    go(world)
    assert can.bottom == pytest.approx(0.0) and can.fall == 0.0
    assert can.place[1] >= m.TABLE_Y[1] + 0.033 - 1e-9  # clear of the table's edge


def test_one_thing_stands_on_another_and_not_on_a_ball():
    world, sponge = holding("sponge", (0.6, 0.0))
    box, apple = put("pudding box", (0.6, 0.15), 0.0), put("apple", (0.6, -0.15), 0.0)
    world.things += [box, apple]
    go(world, z=0.10)
    go(world, y=0.15)
    go(world, gripper=-1)
    go(world)
    assert sponge.bottom == pytest.approx(box.top)
    sponge.place[:] = [0.601, -0.15, 1.0]
    sponge.awake = True
    for _ in range(4):
        go(world)
    assert sponge.bottom == pytest.approx(m.TABLE_TOP)
    assert math.hypot(sponge.place[0] - 0.6, sponge.place[1] + 0.15) > 0.04


def at_handle(drawer: int, opening: float = 0.0) -> tuple[World, Cabinet]:
    cabinet = Cabinet(0.82, 0.0)
    cabinet.slide(drawer, opening)
    world = World([], cabinet, (0.50, 0.0, 1.05))
    for _ in range(3):
        world.step(NO, np.array([0.0, -0.38, 0.0]), 0)
    for _ in range(6):
        go(world, *((np.array(cabinet.handle(drawer)) - world.hand.place) / 3))
    for _ in range(4):
        go(world, *(np.array(cabinet.handle(drawer)) - world.hand.place))
    return world, cabinet


@pytest.mark.parametrize("drawer", [0, 1, 2])
def test_a_drawer_opens_by_the_pull(drawer):
    world, cabinet = at_handle(drawer)
    go(world, gripper=1)
    go(world)
    assert world.handle == drawer
    before = cabinet.opening[drawer]
    for _ in range(3):
        go(world, x=-0.05, y=0.003)
    assert cabinet.opening[drawer] - before == pytest.approx(0.15, abs=1e-9)
    assert world.hand.place[1] == pytest.approx(0.0, abs=1e-9)  # the rails hold it
    go(world, x=-0.20)
    assert cabinet.opening[drawer] == m.TRAVEL  # the stop
    assert ("drawer:" + m.DRAWERS[drawer], "cabinet") in [c.names for c in world.log.contacts]
    go(world, y=0.10)  # too much for the grip
    assert world.handle == -1


def test_a_drawer_closes_under_a_push_and_the_hand_stops_at_the_front():
    cabinet = Cabinet(0.82, 0.0)
    cabinet.slide(0, 0.15)
    world = World([], cabinet, (0.50, 0.06, cabinet.height(0)))
    go(world, gripper=1)
    for _ in range(8):
        go(world, x=0.06)
    # The palm meets the panel behind the fingers' tips, and all of the drawer is in.
    assert cabinet.opening[0] == 0.0
    front = cabinet.front - 2 * m.PANEL_HALF[0]
    assert world.hand.place[0] <= front - m.FINGER_RADIUS + 1e-6


def test_an_open_drawer_takes_an_object_and_carries_it_and_a_shut_one_does_not():
    for opening in (0.2, 0.02):
        cabinet = Cabinet(0.82, 0.0)
        cabinet.slide(0, opening)
        apple = put("apple", (0.72, 0.0), 0.0)
        apple.place[2] = 1.35
        world = World([apple], cabinet, (0.45, 0.3, 1.2))
        for _ in range(4):
            go(world)
        if opening == 0.2:
            assert apple.inside == 0 and apple.bottom == pytest.approx(cabinet.floor(0))
            x = apple.place[0]
            world.heap.slide(0, -0.1, 0.1)
            assert apple.place[0] == pytest.approx(x + 0.1)
        else:
            assert apple.inside == -1 and apple.bottom == pytest.approx(m.TABLE_TOP)


def test_footprints_overlap_as_geometry_says():
    disc, square = Footprint(0.1), Footprint(0.2, 0.1)
    assert overlap(disc, disc, 0.15, 0.0) == pytest.approx((0.05, 1.0, 0.0))
    assert overlap(square, disc, 0.25, 0.0) == pytest.approx((0.05, 1.0, 0.0))
    assert overlap(square, square, 0.0, -0.15) == pytest.approx((0.05, 0.0, -1.0))
    diagonal = Footprint(0.1, 0.1, math.sqrt(0.5), math.sqrt(0.5))  # reaches 0.1414 along x
    assert overlap(square, diagonal, 0.3, 0.0)[0] == pytest.approx(0.2 + math.sqrt(0.02) - 0.3)
    assert overlap(disc, square, 0.31, 0.0)[0] < 0


@settings(max_examples=15)
@given(st.sampled_from(sorted(ALL_TASKS)), st.integers(0, 10_000), st.booleans())
def test_no_action_breaks_the_world(name, seed, near):
    """Whatever is done, nothing is inside the table or the cabinet, nothing is NaN, what rests has no speed, and the
    same actions give the same bits."""

    def run() -> list[bytes]:
        rng = np.random.default_rng(seed)
        world = make_task(name, rng).world
        trace = []
        for _ in range(25):
            action = rng.uniform(-1, 1, 7)
            if near:  # small steps down and ahead: more contacts
                action[:6] *= 0.15
                action[:3] += [0.03, 0.0, -0.04]
            world.step(action[:3], action[3:6], float(action[6]))
            trace.append(_state(world))
            _check(world)
        for _ in range(4):  # everything comes to rest
            world.step(NO, NO, 0)
        assert all(thing.fall == 0.0 for thing in world.things if thing is not world.held)
        return trace

    assert run() == run()


def _state(world: World) -> bytes:
    parts = [world.hand.place, world.hand.turn.ravel(), [world.hand.gap, world.closed]]
    for thing in world.things:
        parts += [thing.place, thing.turn.ravel(), [thing.fall]]
    if world.cabinet is not None:
        parts.append(world.cabinet.opening)
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]).tobytes()


def _check(world: World) -> None:
    assert np.isfinite(np.frombuffer(_state(world))).all()
    np.testing.assert_allclose(world.hand.turn.T @ world.hand.turn, np.eye(3), atol=1e-9)
    spheres = world.hand.spheres()
    assert (spheres[:, 2] - spheres[:, 3] >= m.TABLE_TOP - 1e-6).all()
    for thing in world.things:
        if thing is world.held:
            continue
        x, y, _ = thing.place
        over_table = m.TABLE_X[0] < x < m.TABLE_X[1] and m.TABLE_Y[0] < y < m.TABLE_Y[1]
        assert thing.bottom >= (m.TABLE_TOP if over_table else 0.0) - 1e-6
        if world.cabinet is not None and thing.inside < 0:
            low, high = world.cabinet.carcass
            inside = all(low[k] + 1e-3 < thing.place[k] < high[k] - 1e-3 for k in range(3))
            assert not inside
    if world.cabinet is not None:
        assert all(0.0 <= opening <= m.TRAVEL for opening in world.cabinet.opening)


@given(st.floats(0, 2 * np.pi), st.floats(0, 1.75), st.floats(-np.pi, np.pi))
def test_the_hands_quaternion_and_lean_are_scipys(about, tilt, yaw):
    axis = np.array([np.cos(about), np.sin(about), 0.0])
    lean = Rotation.from_rotvec(tilt * axis) * Rotation.from_euler("z", yaw)
    hand = Hand(np.zeros(3), lean.as_matrix() @ REST)
    x, y, z, w = Rotation.from_matrix(hand.turn).as_quat()
    found = np.array(hand.quaternion())
    assert np.allclose(found, np.array([w, x, y, z]) * (np.sign(x) or 1), atol=1e-9) and found[1] >= 0
    assert np.allclose(Rotation.from_rotvec(hand.lean()).as_matrix(), lean.as_matrix(), atol=1e-9)
