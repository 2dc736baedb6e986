"""Where things are and how fast they may go: metres, seconds and radians in the robot's base frame (x ahead, z up)."""

from __future__ import annotations

#: Control steps per second, as in RT-1 and SIMPLER's Google robot.
RATE = 3
STEP = 1.0 / RATE
GRAVITY = 9.81

TABLE_TOP = 0.87
TABLE_X = (0.40, 1.45)
TABLE_Y = (-0.85, 0.85)
TABLE_THICKNESS = 0.04

#: How near to and how far from the base's vertical axis the tool gets, and how high.
REACH = (0.30, 0.98)
CEILING = 1.45
#: The tool's axis may lean this far from straight down.
MAX_TILT = 1.75
#: What the tool manages in one control step.
MAX_MOVE = 0.25
MAX_TURN = 0.8

#: Distance between the open fingers' pads; how fast it changes, metres per second.
GAP = 0.10
FINGER_SPEED = 0.25
#: Half sizes of a finger's pad: across (the tool's x) and along (the tool's z).
PAD = (0.011, 0.018)
FINGER_RADIUS = 0.009
FINGER_HEIGHTS = (0.012, -0.018, -0.048)
PALM_RADIUS = 0.032
PALM_HEIGHT = -0.10
PALM_SIDES = (-0.04, 0.0, 0.04)

#: A pushed upright cylinder slides while friction x height of the push < its radius, else it falls over.
FRICTION = 0.35
#: No sub-step moves the tool further than this, which is less than the thinnest part plus a finger.
FINEST_MOVE = 0.0125
FEWEST_SUBSTEPS = 8

# The cabinet stands on the table; its drawers open towards the robot.
CABINET_HALF_WIDTH = 0.19
CABINET_DEPTH = 0.30
CABINET_HEIGHT = 0.36
DRAWERS = ("top", "middle", "bottom")
DRAWER_PITCH = 0.115
DRAWER_BOTTOM = 0.065  # centre of the lowest drawer above the table
PANEL_HALF = (0.0075, 0.18, 0.054)
WALL = 0.008
BOX_HALF_WIDTH = 0.165
BOX_HALF_HEIGHT = 0.042
BOX_DEPTH = 0.26
TRAVEL = 0.22
HANDLE_OUT = 0.038  # from the panel's face to the bar's centre
HANDLE_HALF = (0.007, 0.007, 0.026)
