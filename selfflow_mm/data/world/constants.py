"""The fixed measures of the bundled world.

Space is counted in pixels of the picture: x to the right, y **down**, the origin at the upper left corner of the
upper left pixel. Time is counted in seconds from the first frame. Angles are radians, clockwise as seen.
"""

from __future__ import annotations

#: Version of the world; another version may give other clips for the same (seed, index).
WORLD_VERSION = 2

FRAMES = 33
FPS = 16
HEIGHT = 64
WIDTH = 64
RATE = 16_000
SAMPLES = 33_000
#: 33 frames at 16 per second and 33 000 samples at 16 kHz last equally long.
SECONDS = FRAMES / FPS

#: Pixels per second squared, downwards; a room height of 45 pixels is fallen through in 0.9 s.
GRAVITY = 110.0
#: Where objects land. The floor's picture begins higher (FLOOR_TOP), as if seen slightly from above.
FLOOR_LINE = 54.0
FLOOR_TOP = 48
#: Inner faces of the side walls, where a scene has them; without a wall the room goes on beyond the picture.
WALL_LEFT = 3.0
WALL_RIGHT = WIDTH - 3.0
#: Thickness in pixels of the plank of a ramp or a shelf.
PLANK = 4.0

#: Physics steps per frame; 30 gives 480 per second, so that a contact is timed to about 2 ms.
STEPS_PER_FRAME = 30
STEP = 1.0 / (FPS * STEPS_PER_FRAME)
STEPS = FRAMES * STEPS_PER_FRAME

#: The first sound's time is drawn uniformly from this range.
FIRST_SOUND = (0.2, 1.7)
#: Nothing that the story of a clip needs happens later than this, so that it is still seen and heard.
STORY_END = 1.92
#: Change of speed (pixels per second) that counts as impact 1.0.
FULL_IMPACT = 180.0
#: Contacts weaker than this are neither heard nor listed.
QUIETEST_IMPACT = 0.05
#: Two impacts closer than this (seconds) between the same two partners are one contact.
SAME_CONTACT = 0.08

#: Rolling or sliding is heard from this speed on (pixels per second) ...
ROLL_SPEED = 7.0
#: ... if it lasts this long (seconds); touches with gaps shorter than ROLL_GAP are one.
SHORTEST_ROLL = 0.1
ROLL_GAP = 0.03
