"""openpi's own client, as published, against the server: big pictures, float64, a batch, its broker, errors, a key."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from selfflow_robotics.serving import PolicyServer, ServerOptions
from tests.robotics.serving.toys import HORIZON, Telling


@pytest.mark.skipif(
    "SELFFLOW_OPENPI_PYTHON" not in os.environ,
    reason="SELFFLOW_OPENPI_PYTHON names a Python that has openpi-client (0.1.2, numpy < 2)",
)
def test_openpis_client() -> None:
    script = Path(__file__).with_name("with_openpi_client.py")
    policy = Telling(2)
    with PolicyServer(policy, ServerOptions(port=0, api_key="s3cret")).background() as url:
        done = subprocess.run(
            [os.environ["SELFFLOW_OPENPI_PYTHON"], str(script), url, "s3cret"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["metadata"]["name"] == "telling" and found["metadata"]["horizon"] == HORIZON
    lengths, sums = (4, 7, 0, 1, 1), (0, 4, 3, 3, 1)
    for turn, answer in enumerate(found["answers"]):
        rows = [2] if turn == 4 else []
        assert answer["shape"] == [*rows, HORIZON, 7] and answer["dtype"] == "<f4"
        assert answer["first"][0] == pytest.approx(answer["mean"], rel=1e-5)
        assert answer["first"][1:3] == [lengths[turn], sums[turn]] and answer["first"][5] == turn
        assert answer["timing"] == (["infer_ms", "prev_total_ms"] if turn else ["infer_ms"])
    broker = np.array(found["broker"])
    assert broker[:, 5].tolist() == [5, 5.125, 5.25, 6, 6.125, 6.25, 7], "its broker plays chunks as they come"
    assert found["error"].startswith("Error in inference server:\nthe picture is of uint8, not of float32")
    assert found["after"].startswith("ConnectionClosed")
    assert "401" in found["refused"]
