"""vla-eval's protocol: one action at a time, an error that ends nothing, its pictures; and its own client."""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from selfflow_robotics.actions.rotations import axis_angle_to_matrix, rpy_to_matrix
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.serving import PolicyServer, ServerOptions
from tests.robotics.serving.toys import Telling

IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def array(value: np.ndarray) -> dict[str, Any]:
    return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}


def encoded(value: np.ndarray, kind: str = "png") -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(value).save(stream, kind.upper(), quality=95)
    return {"__image__": True, "format": kind, "data": stream.getvalue(), "shape": list(value.shape)}


class Client:
    """The protocol with msgpack alone."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection, self.seq = connection, 0

    def send(self, kind: str, payload: object) -> None:
        self.seq += 1
        message = {"type": kind, "payload": payload, "seq": self.seq, "timestamp": 1.5}
        self.connection.send(msgpack.packb(message))

    def ask(self, kind: str, payload: object) -> dict[str, Any]:
        self.send(kind, payload)
        answer = msgpack.unpackb(self.connection.recv(5))
        assert set(answer) == {"type", "payload", "seq", "timestamp"} and answer["seq"] == self.seq
        return answer

    def act(self, **payload: object) -> np.ndarray:
        answer = self.ask("observation", {"images": {"primary": array(IMAGE)}, "task_description": "pick", **payload})
        assert answer["type"] == "action", answer
        found = answer["payload"]["actions"]
        assert found["__ndarray__"] is True and found["shape"] == [7]
        return np.frombuffer(found["data"], found["dtype"])

    def error(self, **payload: object) -> str:
        answer = self.ask("observation", {"images": {"primary": array(IMAGE)}, "task_description": "pick", **payload})
        assert answer["type"] == "error"
        return answer["payload"]["error"]


@contextmanager
def talking(policy: Telling | None = None, executed: int | None = None, **options: Any) -> Iterator[Client]:
    given = ServerOptions(port=0, protocol="vla-eval", **options)
    with PolicyServer(policy or Telling(), given, ActingOptions(executed=executed)).background() as url:
        with connect(url, compression=None, max_size=None, proxy=None) as connection:
            yield Client(connection)


def test_hello_says_what_is_taken_and_given() -> None:
    with talking(Telling(2, needs_state=True), camera="front") as client:
        answer = client.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
    assert answer["type"] == "hello"
    said = answer["payload"]
    assert said["protocol_version"] == 1 and said["model_server"] == "telling" and said["capabilities"] == {}
    assert said["observation_params"] == {"send_state": True} and set(said["observation_spec"]) == {"front", "language"}
    assert {key: (spec["dims"], spec["format"]) for key, spec in said["action_spec"].items()} == {
        "position": (3, "delta_xyz"), "rotation": (3, "euler_xyz"), "gripper": (1, "continuous_01"),
    }  # fmt: skip


def test_a_chunk_is_given_out_one_action_at_a_time() -> None:
    """Column 5 is the question's number, and the fraction the place in the chunk: both as the policy tells them."""
    policy = Telling()
    with talking(policy, executed=3) as client:
        client.send("episode_start", {"task": {"name": "coke", "episode_idx": 2}})
        first = np.stack([client.act() for _ in range(5)])
        assert first[:, 5].tolist() == [0, 0.125, 0.25, 1, 1.125]
        assert len(policy.batches) - 1 == 2, "an observation in between asks nothing"
        client.send("episode_end", {"metrics": {"success": True}})
        client.send("episode_start", {"task": {"name": "coke", "episode_idx": 3}})
        assert not np.array_equal(client.act()[3:5], first[0, 3:5]), "another episode has other seeds"
        client.send("episode_start", {"task": {"name": "coke", "episode_idx": 2}})
        again = np.stack([client.act() for _ in range(5)])
        assert np.array_equal(again, first), "an episode's seeds are its own, not of those before it"
        client.send("episode_start", {})
        assert client.act()[5] == 0


def test_states_and_default_prompt() -> None:
    with talking(Telling(2), executed=1, default_prompt="12345") as client:
        assert client.act(states=array(np.float64([1, 2])))[2] == 3
        assert client.act(state=[4, 5])[2] == 9
        assert client.act()[2] == 0
        answer = client.ask("observation", {"images": {"a": array(IMAGE)}})
        assert np.frombuffer(answer["payload"]["actions"]["data"], "<f4")[1] == 5
        assert client.act(task_description=None)[1] == 5


def test_pictures_as_the_harness_encodes_them() -> None:
    smooth = np.full((16, 16, 3), (200, 100, 30), np.uint8)
    with talking(executed=1) as client:
        assert client.act(images={"x": encoded(IMAGE)})[0] == np.float32(IMAGE.mean())
        assert abs(client.act(images={"x": encoded(smooth, "jpeg")})[0] - smooth.mean()) < 2
    with talking(executed=1, camera="b") as client:
        assert client.act(images={"a": array(IMAGE), "b": encoded(IMAGE // 2)})[0] == np.float32((IMAGE // 2).mean())
        assert "no picture of the camera 'b', there are: a" in client.error(images={"a": array(IMAGE)})


def test_rotations_for_simpler() -> None:
    with talking(executed=1) as client:
        rpy = client.act(images={"x": array(np.full((1, 1, 3), 1, np.uint8))})
    with talking(executed=1, rotation="axis_angle") as client:
        turned = client.act(images={"x": array(np.full((1, 1, 3), 1, np.uint8))})
        said = client.ask("hello", {})["payload"]["action_spec"]["rotation"]["format"]
    assert said == "axis_angle" and np.array_equal(turned[[0, 1, 2, 6]], rpy[[0, 1, 2, 6]])
    assert np.allclose(axis_angle_to_matrix(turned[3:6]), rpy_to_matrix(rpy[3:6]), atol=1e-4)


def bomb() -> dict[str, Any]:
    """A PNG of a few kilobytes that claims 25 million pixels."""
    stream = io.BytesIO()
    Image.new("1", (5_000, 5_000)).save(stream, "PNG")
    return {"__image__": True, "format": "png", "data": stream.getvalue(), "shape": [5_000, 5_000, 3]}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"images": {}}, "no 'images'"), ({"images": 3}, "no 'images'"),
        ({"images": {"a": array(IMAGE), "b": array(IMAGE)}}, "several cameras (a, b)"),
        ({"images": {"a": array(IMAGE.astype(np.float32))}}, "uint8"),
        ({"images": {"a": array(IMAGE[None])}}, "one at a"),
        ({"images": {"a": {"__image__": True, "format": "gif", "data": b""}}}, "'png' or 'jpeg'"),
        ({"images": {"a": {"__image__": True, "format": "png", "data": b"\x89PNG"}}}, "cannot be decoded"),
        ({"images": {"a": bomb()}}, "at most 16777216 pixels"), ({"task_description": 3}, "is a text"),
        ({"states": [float("nan")]}, "not finite"), ({"states": [1.0]}, "2 numbers"),
        ({"task_description": "fail"}, "the policy failed: RuntimeError"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
def test_an_error_is_a_message_and_the_connection_goes_on(payload: dict, said: str) -> None:
    with talking(Telling(2)) as client:
        assert said in client.error(**payload)
        assert client.act()[1] == 4


def test_what_is_not_a_message() -> None:
    with talking() as client:
        for message in (b"\xc1", "text", msgpack.packb({"type": "hello"}), msgpack.packb([1])):
            client.connection.send(message)
            answer = msgpack.unpackb(client.connection.recv(5))
            assert answer["type"] == "error" and answer["seq"] == 0
        assert client.ask("reset", {})["payload"]["error"].startswith("messages are hello")
        assert client.act()[1] == 4


def test_health() -> None:
    with PolicyServer(Telling(), ServerOptions(port=0, protocol="vla-eval")).background() as url:
        connection = http.client.HTTPConnection(url.removeprefix("ws://"), timeout=5)
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert response.status == 200 and response.getheader("Content-Type") == "application/json"
        assert json.loads(response.read()) == {"status": "ok"}


@pytest.mark.skipif(
    "SELFFLOW_VLA_EVAL_PYTHON" not in os.environ,
    reason="SELFFLOW_VLA_EVAL_PYTHON names a Python that has vla-eval (0.8.0)",
)
def test_the_harness_itself() -> None:
    """Its connection and its runner play episodes of a benchmark written for this; it compares the specs."""
    script = Path(__file__).with_name("with_vla_eval.py")
    options = ServerOptions(port=0, protocol="vla-eval")
    with PolicyServer(Telling(2), options, ActingOptions(executed=3)).background() as url:
        done = subprocess.run(
            [os.environ["SELFFLOW_VLA_EVAL_PYTHON"], str(script), url], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["server"] == "telling" and found["mismatches"] == []
    assert found["error"].startswith("Server error") and "no picture" not in found["error"]
    for episode in found["episodes"]:
        actions = np.array(episode)
        assert np.allclose(actions[:, 0], np.arange(8) + np.arange(8) % 3 / 8 - np.arange(8) % 3)
        assert (actions[:, 5] == [0, 0.125, 0.25, 1, 1.125, 1.25, 2, 2.125]).all()
    assert found["episodes"][0] == found["episodes"][2] != found["episodes"][1]
