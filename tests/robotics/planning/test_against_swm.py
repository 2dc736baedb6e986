"""Against stable-worldmodel itself.

Needs stable-worldmodel 0.1.1 in an environment of its own, whose interpreter SELFFLOW_SWM_PYTHON names, with
opencv-python-headless and imageio, which it imports, and pyyaml, which we do.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

PYTHON = os.environ.get("SELFFLOW_SWM_PYTHON", "")
ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(
    not PYTHON,
    reason="SELFFLOW_SWM_PYTHON does not name the interpreter of an environment with stable-worldmodel 0.1.1",
)
def test_their_solvers_plan_on_our_cost_and_our_planner_in_their_policy():
    path = os.pathsep.join(str(ROOT / part) for part in (".", "robotics", "tokenizers"))
    done = subprocess.run(
        [PYTHON, "-m", "tests.robotics.planning.swm_side"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["is_their_protocol"]
    for name in (
        "CEMSolver",
        "MPPISolver",
        "ours",
    ):  # each carried its plan out; the spots are where the goals have them
        np.testing.assert_allclose(found[name], found["wanted"], atol=0.8, err_msg=name)
