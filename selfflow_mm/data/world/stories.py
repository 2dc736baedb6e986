"""The nine stories a clip can tell: what is drawn at random, and what must have happened for the story to be told.

The time of the first sound is drawn first, evenly over ``FIRST_SOUND``, then a story among those that still fit into
the rest of the clip: so a sound that is merely put where sounds mostly are is wrong. A scene in which the story did
not happen (a ball that missed, a fall that came too late) is drawn again with the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .casting import Casting
from .constants import FIRST_SOUND, FLOOR_LINE, GRAVITY, STEP, STORY_END, WALL_LEFT, WALL_RIGHT, WIDTH
from .holdout import Novelty
from .physics import Motion, simulate
from .scene import BLOCK_HEIGHT, Scene, Sign, Thing
from .text import PITCH
from .vocabulary import SHAPES

Rng = np.random.Generator

#: Speed of a first impact in pixels per second, before the bounds that keep the flight inside the picture.
_IMPACT_SPEED = (62.0, 104.0)
#: Highest centre of a flight at its start and at its apex (pixels below the picture's upper edge).
_HIGHEST, _HIGHEST_APEX = 9.0, 4.0
#: No flight begins nearer to where it lands than this, or its start would be a contact.
_CLEARANCE = 2.0
#: From this time on an object may also fall in from above the picture instead of being thrown up.
_FROM_ABOVE = 0.75
#: Fastest turning in the air, radians per second. Objects land level: landing on a corner sends them tumbling.
_SPIN = 0.4
#: The first sound comes this close to the time drawn for it (seconds).
_PUNCTUAL = 4 * STEP
#: Draws of one scene before giving up; of 2,000 clips none took more than four.
_MOST_TRIES = 100
#: Shapes that leave room for others.
_SMALL = tuple(shape for shape in SHAPES if shape != "block")


@dataclass(frozen=True)
class Story:
    """How a kind of clip is drawn and recognised.

    Attributes:
        draw: a scene whose first sound comes at the given time.
        told: whether the story happened.
        share: relative frequency among the stories that fit.
        earliest, latest: range of the first sound's time (seconds).
        writes: whether a word is always written in it.
        mirrors: whether left and right may be exchanged.
    """

    draw: Callable[[Rng, Casting, float], Scene]
    told: Callable[[Scene, Motion], bool]
    share: float
    latest: float
    earliest: float = FIRST_SOUND[0]
    writes: bool = False
    mirrors: bool = True


def draw_story(rng: Rng, novelty: Novelty | None) -> tuple[str, float]:
    """The kind of a clip and the time of its first sound, which are drawn before all else."""
    time = float(rng.uniform(*FIRST_SOUND))
    fitting = [
        kind
        for kind, story in STORIES.items()
        if story.earliest <= time <= story.latest and (story.writes or novelty != "word")
    ]
    shares = np.array([STORIES[kind].share for kind in fitting])
    return fitting[rng.choice(len(fitting), p=shares / shares.sum())], time


def draw_clip(rng: Rng, novelty: Novelty | None) -> tuple[Scene, Motion]:
    """A scene with its motion; ``novelty`` as for :class:`Casting`."""
    kind, time = draw_story(rng, novelty)
    story = STORIES[kind]
    for _ in range(_MOST_TRIES):
        scene = replace(story.draw(rng, Casting(rng, novelty), time), kind=kind)
        if story.mirrors and rng.random() < 0.5:
            scene = scene.mirrored()
        motion = simulate(scene)
        sounds = [contact.time for contact in motion.contacts[:1]] + [roll.time for roll in motion.rolls[:1]]
        if sounds and abs(min(sounds) - time) <= _PUNCTUAL and story.told(scene, motion):
            return scene, motion
    raise RuntimeError(f"no scene of the kind {kind} with its first sound at {time} s in {_MOST_TRIES} draws")


# Flights are drawn from their end: the time T and the speed v of the first impact, then back along the parabola:
# v0 = v - g T and y0 = y_contact - v T + g T^2 / 2.


def _flight(
    rng: Rng,
    thing: Thing,
    time: float,
    x: tuple[float, float],
    across: tuple[float, float] = (-4.0, 4.0),
    *,
    ground: float = FLOOR_LINE,
    from_above: bool = False,
) -> Thing:
    """A level landing on ``ground`` at ``time``, in the range ``x``, with a sideways speed in the range ``across``.

    It is in sight from the first frame, but with ``from_above`` some late ones fall in from above the picture.
    """
    spin = 0.0 if thing.shape == "ball" or thing.word else float(rng.uniform(-_SPIN, _SPIN))
    lands = ground - thing.depth()
    over, sideways = float(rng.uniform(*x)), float(rng.uniform(*across))
    low, high = _between_walls(thing, 0.1)
    start = min(max(over - sideways * time, low), high)
    sideways = (over - start) / time
    left, right = thing.reach(np.linspace(-spin * time, 0.0, 9))
    if min(over, start) - left.max() < WALL_LEFT + 0.5 or max(over, start) + right.max() > WALL_RIGHT - 0.5:
        spin = 0.0  # turned, it would not fit beside the wall
    if from_above and time > _FROM_ABOVE and rng.random() < 0.6:
        slow = float(rng.uniform(0.0, 25.0))
        top = -thing.depth(math.pi) - 6.0  # turned, it may reach lower than when level
        fall = (math.sqrt(slow**2 + 2 * GRAVITY * (lands - top)) - slow) / GRAVITY
        if fall < time:
            return _thrown(thing, time, time - fall, (over, lands), (sideways, slow + GRAVITY * fall), spin)
    clearance = _CLEARANCE + max(0.0, thing.depth(-spin * time) - thing.depth())
    fallen = GRAVITY * time / 2
    slowest = fallen + clearance / time  # slower, it would start below the place where it lands
    fastest = min(
        _IMPACT_SPEED[1], fallen + (lands - _HIGHEST) / time, math.sqrt(2 * GRAVITY * (lands - _HIGHEST_APEX))
    )
    speed = slowest
    if slowest < fastest:
        speed = float(rng.uniform(min(max(slowest, _IMPACT_SPEED[0]), fastest), fastest))
    return _thrown(thing, time, 0.0, (over, lands), (sideways, speed), spin)


def _thrown(
    thing: Thing,
    time: float,
    enters: float,
    lands: tuple[float, float],
    arrives: tuple[float, float],
    spin: float,
) -> Thing:
    """The object at its start, from the place and velocity with which it lands at ``time``."""
    enters = round(enters / STEP) * STEP
    flight = time - enters
    (x, y), (u, v) = lands, arrives
    place = (x - u * flight, y - v * flight + GRAVITY * flight**2 / 2)
    return replace(
        thing, place=place, angle=-spin * flight, velocity=(u, v - GRAVITY * flight), spin=spin, enters=enters
    )


def _between_walls(thing: Thing, margin: float = 1.0) -> tuple[float, float]:
    return WALL_LEFT + thing.half_width + margin, WALL_RIGHT - thing.half_width - margin


def _entering(thing: Thing, time: float, ground: float, speed: float) -> Thing:
    """An object that comes in from the left at ``time``, rolling or sliding on a level ground."""
    enters = round(time / STEP) * STEP
    spin = 2 * speed / thing.size if thing.shape == "ball" else 0.0
    place = (0.05 - thing.half_width, ground - thing.depth())
    return replace(thing, place=place, velocity=(speed, 0.0), spin=spin, enters=enters)


def _standing(thing: Thing, x: float) -> Thing:
    return replace(thing, place=(x, FLOOR_LINE - thing.depth()))


def _draw_drop(rng: Rng, cast: Casting, time: float) -> Scene:
    thing = cast.thing(SHAPES)
    if thing.shape == "block" and rng.random() < 0.7:
        thing = replace(thing, word=cast.word(3))
    low, high = _between_walls(thing, 4.0)
    limit = min(10.0, 0.5 * (high - low) / time)
    return Scene("", (_flight(rng, thing, time, (low, high), (-limit, limit), from_above=True),))


def _draw_throw(rng: Rng, cast: Casting, time: float) -> Scene:
    thing = cast.thing(_SMALL)
    low, high = _between_walls(thing, 2.0)
    start, over = float(rng.uniform(low, low + 6.0)), float(rng.uniform(20.0, high - low - 6.0))
    speed = min(over / time, 46.0)
    lands = start + speed * time
    return Scene("", (_flight(rng, thing, time, (lands, lands), (speed, speed)),))


def _draw_series(rng: Rng, cast: Casting, time: float) -> Scene:
    count = int(rng.integers(2, 4))
    lanes = np.array([(18.0, 46.0), (12.5, 32.0, 51.5)][count - 2])[rng.permutation(count)]
    things = []
    for lane in lanes:
        thing = cast.thing(_SMALL)
        low, high = _between_walls(thing, 0.2)
        x = (max(low, lane - 1.5), min(high, lane + 1.5))
        things.append(_flight(rng, thing, time, x, (-1.5, 1.5), from_above=True))
        time += float(rng.uniform(0.2, 0.4))
    return Scene("", tuple(things))


def _draw_ramp(rng: Rng, cast: Casting, time: float) -> Scene:
    ball = cast.thing(("ball",))
    end, height, slope = rng.uniform(20.0, 27.0), rng.uniform(37.0, 41.0), rng.uniform(0.26, 0.36)
    ramp = (-40.0, float(height - slope * (end + 40.0)), float(end), float(height))
    angle, radius, speed = math.atan(slope), ball.size / 2, float(rng.uniform(36.0, 60.0))
    foot = 0.05 - radius - radius * math.sin(angle)  # where the ball touches the ramp when its edge enters the picture
    place = (0.05 - radius, float(height - slope * (end - foot)) - radius * math.cos(angle))
    ball = replace(
        ball,
        place=place,
        velocity=(speed * math.cos(angle), speed * math.sin(angle)),
        spin=speed / radius,
        enters=round(time / STEP) * STEP,
    )
    return Scene("", (ball,), walls=(False, True), ramp=ramp)


def _draw_shelf(rng: Rng, cast: Casting, time: float) -> Scene:
    thing = cast.thing(_SMALL)
    end, height = float(rng.uniform(15.0, 21.0)), float(rng.uniform(31.0, 36.0))
    thing = _entering(thing, time, height, float(rng.uniform(40.0, 62.0)))
    return Scene("", (thing,), walls=(False, True), shelf=(-60.0, height, end, height))


def _draw_collide(rng: Rng, cast: Casting, time: float) -> Scene:
    ball = _entering(cast.thing(("ball",)), time, FLOOR_LINE, float(rng.uniform(38.0, 62.0)))
    if rng.random() < 0.6:
        other = cast.thing(SHAPES)
        other = _standing(other, float(rng.uniform(30.0 + other.half_width / 2, 40.0)))
        return Scene("", (ball, other), walls=(False, True))
    later = time + float(rng.uniform(0.0, 0.25))
    other = _entering(cast.thing(("ball",)), later, FLOOR_LINE, float(rng.uniform(38.0, 56.0))).mirrored()
    return Scene("", (ball, other), walls=(False, False))


def _draw_hide(rng: Rng, cast: Casting, time: float) -> Scene:
    ball = replace(cast.thing(("ball",)), size=float(rng.uniform(14.0, 15.0)))
    ball = _entering(ball, time, FLOOR_LINE, float(rng.uniform(50.0, 68.0)))
    left = int(rng.integers(19, 24))
    screen = (left, int(rng.integers(29, 34)), left + int(rng.integers(22, 25)), int(FLOOR_LINE) + 2)
    return Scene("", (ball,), walls=(False, False), screen=screen)


def _draw_block(rng: Rng, cast: Casting, time: float) -> Scene:
    other = cast.thing(_SMALL)
    word = cast.word(3)
    block = cast.thing(("block",), word)
    inner = (block.size - (PITCH * len(word) - 1)) / 2  # from the block's edge to its first letter
    lefts = np.arange(0.0, WIDTH, PITCH) - inner
    lefts = lefts[(lefts > WALL_LEFT) & (lefts + block.size < WALL_RIGHT)]
    if rng.random() < 0.5:
        left = float(lefts[rng.integers(len(lefts))])
        middle = left + block.size / 2
        low, high = _between_walls(other)
        x = (max(low, middle - 5.0), min(high, middle + 5.0))
        other = _flight(rng, other, time, x, ground=FLOOR_LINE - BLOCK_HEIGHT, from_above=True)
    else:
        left = float(lefts[0] if rng.random() < 0.5 else lefts[-1])
        low, high = _between_walls(other)
        free = (left + block.size + other.half_width + 1.5, high) if left < 20 else (low, left - other.half_width - 1.5)
        other = _flight(rng, other, time, free, (0.0, 0.0), from_above=True)
    return Scene("", (other, _standing(block, left + block.size / 2)))


def _draw_sign(rng: Rng, cast: Casting, time: float) -> Scene:
    thing = cast.thing(_SMALL)
    word = cast.word(4)
    low, high = _between_walls(thing, 0.1)
    lefts = range(PITCH, WIDTH - PITCH * len(word), PITCH)
    # An object flies beside the sign, so that its word stays legible.
    lanes = []
    for sign in (Sign(word, left) for left in lefts):
        lanes.append((sign, (low, sign.box[0] - thing.half_width)))
        lanes.append((sign, (sign.box[2] + thing.half_width, high)))
    lanes = [(sign, lane) for sign, lane in lanes if lane[0] <= lane[1]]
    sign, lane = lanes[rng.integers(len(lanes))]
    return Scene("", (_flight(rng, thing, time, lane, (0.0, 0.0), from_above=True),), sign=sign)


def first_contact(motion: Motion, thing: int, *others: int | str) -> float:
    """When an object first hits any of the others (object numbers, names of surfaces); infinity if it never does."""
    times = [contact.time for contact in motion.contacts if contact.thing == thing and contact.other in others]
    return min(times, default=math.inf)


def _lands(scene: Scene, motion: Motion) -> bool:
    return bool(motion.contacts) and motion.contacts[0].other == "floor"


def _lands_in_turn(scene: Scene, motion: Motion) -> bool:
    landings = [first_contact(motion, number, "floor") for number in range(len(scene.things))]
    return landings == sorted(landings) and landings[-1] <= STORY_END and _lands(scene, motion)


def _leaves(scene: Scene, motion: Motion) -> bool:
    """Off the ramp or the shelf and down to the floor, and not against the wall before."""
    return first_contact(motion, 0, "floor") <= min(STORY_END, first_contact(motion, 0, "wall"))


def _meet(scene: Scene, motion: Motion) -> bool:
    return bool(motion.contacts) and motion.contacts[0].other == 1 and motion.contacts[0].time <= STORY_END


def _comes_out(scene: Scene, motion: Motion) -> bool:
    """The ball is beyond the screen, on the far side, before the clip ends."""
    assert scene.screen is not None
    radius = scene.things[0].size / 2
    x = motion.path[0, int(STORY_END / STEP), 0]
    return bool(x - radius > scene.screen[2] if scene.things[0].velocity[0] > 0 else x + radius < scene.screen[0])


def _hits_block_or_floor(scene: Scene, motion: Motion) -> bool:
    return bool(motion.contacts) and motion.contacts[0].thing == 0 and motion.contacts[0].other in ("floor", 1)


STORIES: dict[str, Story] = {
    "drop": Story(_draw_drop, _lands, share=10, latest=1.7),
    "throw": Story(_draw_throw, _lands, share=9, earliest=0.45, latest=1.7),
    "series": Story(_draw_series, _lands_in_turn, share=24, latest=1.3),
    "ramp": Story(_draw_ramp, _leaves, share=45, latest=0.9),
    "shelf": Story(_draw_shelf, _leaves, share=50, latest=0.75),
    "collide": Story(_draw_collide, _meet, share=32, latest=1.1),
    "hide": Story(_draw_hide, _comes_out, share=48, latest=0.8),
    "block": Story(_draw_block, _hits_block_or_floor, share=12, latest=1.7, writes=True, mirrors=False),
    "sign": Story(_draw_sign, _lands, share=16, latest=1.7, writes=True, mirrors=False),
}
