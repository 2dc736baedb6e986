"""Layouts, instructions and success, hand-checked."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.tabletop import measures as m
from selfflow_robotics.tabletop.footprints import overlap
from selfflow_robotics.tabletop.tasks import (
    ALL_TASKS,
    CloseDrawer,
    MoveNear,
    OpenDrawer,
    Pick,
    PickAmong,
    PlaceInDrawer,
    make_task,
)

NO = np.zeros(3)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_pick_succeeds_at_two_centimetres_in_the_gripper_only():
    task = Pick(rng(0))
    assert task.instruction == f"pick {task.thing.name}"
    task.thing.place[2] += 0.05  # in the air, but not held
    assert not task.evaluate()
    task.world.heap.held = task.thing
    for rise, expected in ((0.0199, False), (0.0201, True), (0.10, True)):
        task.thing.place[2] = task.height + rise
        assert task.evaluate() is expected
        assert task.stats["lifted_object"] and task.stats["is_grasped"]
    assert task.stats["n_lift_significant"] == 2
    assert task.stats["consecutive_grasp"] == 3


def test_pick_among_succeeds_with_the_named_object_only():
    for seed in range(20):
        task = PickAmong(rng(seed))
        assert len({thing.name for thing in task.things}) == 3
        assert task.instruction == f"pick {task.things[0].name}"
        for thing in reversed(task.things):
            task.world.heap.held = thing
            thing.place[2] += 0.05
            assert task.evaluate() is (thing is task.things[0])


def test_move_near_succeeds_near_the_target_only_and_with_the_right_object():
    task = MoveNear(rng(1))
    source, target, other = task.things
    assert task.instruction == f"move {source.name} near {target.name}"
    assert not task.evaluate()  # nothing moved yet
    size = sum(float(np.hypot(*thing.extent[:2])) / 2 for thing in (source, target))
    other.place[:2] = [target.place[0], target.place[1] - 0.5]
    task.began = [task.began[0], task.began[1], tuple(other.place)]
    for way, expected in ((size + 0.099, True), (size + 0.101, False)):
        source.place[:2] = [target.place[0], target.place[1] + way]
        assert task.evaluate() is expected
    source.place[1] = target.place[1] + size + 0.05
    source.place[2] += 0.021  # too high
    assert not task.evaluate()
    source.place[2] -= 0.021
    other.place[:2] = [source.place[0] + 0.03, source.place[1]]  # now the third object is nearer to the source
    assert not task.evaluate()
    assert not task.stats["is_closest_to_tgt"]
    # Moving the target to the source is not what was asked for.
    task = MoveNear(rng(1))
    source, target, _ = task.things
    target.place[:2] = [source.place[0] + 0.12, source.place[1]]
    assert not task.evaluate()
    assert task.stats["moved_wrong_obj"]


@pytest.mark.parametrize("seed", range(4))
def test_drawers_open_at_15_cm_and_shut_at_5(seed):
    task = OpenDrawer(rng(seed))
    assert task.instruction == f"open {m.DRAWERS[task.drawer]} drawer"
    assert not task.evaluate()
    for opening, expected in ((0.149, False), (0.151, True)):
        task.cabinet.slide(task.drawer, opening - task.cabinet.opening[task.drawer])
        assert task.evaluate() is expected
    task = CloseDrawer(rng(seed))
    assert task.instruction == f"close {m.DRAWERS[task.drawer]} drawer"
    assert not task.evaluate()
    for opening, expected in ((0.051, False), (0.049, True)):
        task.cabinet.slide(task.drawer, opening - task.cabinet.opening[task.drawer])
        assert task.evaluate() is expected


def test_place_in_drawer_needs_the_object_at_rest_in_the_drawer_and_the_second_subtask():
    task = PlaceInDrawer(rng(2))
    drawer = m.DRAWERS[task.drawer]
    assert task.instruction == f"open {drawer} drawer"
    task.cabinet.slide(task.drawer, 0.2)
    near, _, low, high = task.cabinet.inside(task.drawer)
    task.thing.place[:] = [near + 0.1, (low + high) / 2, task.cabinet.rim(task.drawer) + 0.04]
    task.thing.awake = True
    assert not task.evaluate()
    for _ in range(3):
        task.world.step(NO, NO, 0.0)
    assert task.thing.inside == task.drawer
    assert not task.evaluate()  # the first subtask
    task.subtask = 1
    assert task.instruction == f"place {task.thing.name} into {drawer} drawer"
    assert task.evaluate()
    task.world.heap.slide(task.drawer, -0.16, 0.1)
    assert not task.evaluate()  # shut again


@pytest.mark.parametrize("name", ALL_TASKS)
def test_layouts_are_apart_within_reach_and_not_solved(name):
    for seed in range(60):
        task = make_task(name, rng(seed))
        world = task.world
        assert not task.evaluate()
        for thing in world.things:
            assert m.REACH[0] + 0.1 < math.hypot(*thing.place[:2]) < m.REACH[1] - 0.05
            assert thing.bottom == pytest.approx(m.TABLE_TOP)
        for first, second in itertools.combinations(world.things, 2):
            x, y = second.place[0] - first.place[0], second.place[1] - first.place[1]
            assert overlap(first.footprint, second.footprint, x, y)[0] < -0.05
        before = [list(thing.place) for thing in world.things]
        world.step(NO, NO, 0.0)  # nothing touches anything at the beginning
        assert [list(thing.place) for thing in world.things] == before
        assert not world.log.contacts


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="no task 'juggle'.*pick"):
        make_task("juggle", rng(0))
