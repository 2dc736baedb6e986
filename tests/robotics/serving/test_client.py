"""Our client, against our server and against one that knows no more than openpi's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.policies import Policy
from selfflow_robotics.serving import PolicyClient, PolicyServer, RemotePolicy, ServerOptions
from tests.robotics.serving.toys import HORIZON, Telling

IMAGE = np.full((4, 5, 3), 7, np.uint8)
ACTIONS = np.arange(21, dtype="<f8").reshape(3, 7)


@contextmanager
def theirs(received: list[dict], answer: bytes | str | None = None) -> Iterator[str]:
    """A server written from openpi's protocol with msgpack alone; it answers whatever comes in the same way."""
    actions = {b"__ndarray__": True, b"data": ACTIONS.tobytes(), b"dtype": "<f8", b"shape": [3, 7]}
    usual = msgpack.packb({"actions": actions, "server_timing": {"infer_ms": 1.0}, "policy_timing": {"x": 1}})

    def handle(connection: ServerConnection) -> None:
        connection.send(msgpack.packb({"robot": "droid"}))
        for message in connection:
            received.append(msgpack.unpackb(message))
            connection.send(usual if answer is None else answer)

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_a_remote_policy_is_used_like_one_at_hand() -> None:
    at_hand = Policy(Telling(2))
    with PolicyServer(Telling(2), ServerOptions(port=0)).background() as url, PolicyClient(url) as client:
        remote = RemotePolicy(client)
        assert remote.about == at_hand.about and remote.executed == at_hand.executed
        for seed in (4, None):
            remote.reset(seed)
            at_hand.reset(seed)
            for state in (np.float32([1, 2]), None):
                assert np.array_equal(remote.act(IMAGE, "pick", state), at_hand.act(IMAGE, "pick", state))


def test_openpis_own_server() -> None:
    received: list[dict] = []
    about = PolicyAbout("pi0", 3, 5.0)
    with theirs(received) as url, PolicyClient(url.removeprefix("ws://")) as client:
        assert client.metadata == {"robot": "droid"}
        with pytest.raises(UserError, match="says nothing of its policy's name.*give 'about'"):
            RemotePolicy(client)
        remote = RemotePolicy(client, about, {"image": "observation/exterior_image_1_left", "state": "s"})
        remote.reset(3)
        assert received == [], "it knows no reset, so none is sent"
        actions = remote.act(IMAGE, "pick", np.float64([1]))
        assert actions.dtype == np.float32 and np.array_equal(actions, ACTIONS) and actions.flags.writeable
    (message,) = received
    assert set(message) == {"observation/exterior_image_1_left", "prompt", "s"} and message["prompt"] == "pick"
    image = message["observation/exterior_image_1_left"]
    assert image == {b"__ndarray__": True, b"data": IMAGE.tobytes(), b"dtype": "|u1", b"shape": [4, 5, 3]}
    assert message["s"][b"dtype"] == "<f8"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("it broke", "says: it broke"),
        (b"\x90", "answered with list"),
        (b"\x80", "without 'actions'"),
        (b"\xc1", "not msgpack"),
    ],
)
def test_answers_that_are_none(answer: bytes | str, sentence: str) -> None:
    with theirs([], answer) as url, PolicyClient(url) as client, pytest.raises(UserError, match=sentence):
        client.act(IMAGE, "pick")


def test_an_answer_that_takes_too_long_ends_the_connection() -> None:
    """Or it would be taken for the answer to the next question."""
    policy = Telling()
    with PolicyServer(policy, ServerOptions(port=0)).background() as url, PolicyClient(url, timeout=0.2) as client:
        policy.delay = 0.5
        with pytest.raises(UserError, match="said nothing for 0.2 s"):
            client.act(IMAGE, "pick")
        with pytest.raises(UserError, match="closed the connection"):
            client.act(IMAGE, "pick")


def test_waiting_for_a_server() -> None:
    with PolicyServer(Telling(), ServerOptions(port=0)).background() as url:
        port = int(url.rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"nobody listens at ws://127.0.0.1:{port}"):
        PolicyClient(url)
    server = PolicyServer(Telling(), ServerOptions(port=port))
    found: list[tuple[int, ...]] = []

    def ask() -> None:
        with PolicyClient(url, wait=10) as client:
            found.append(client.act(IMAGE, "pick").shape)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    with server.background():
        thread.join(10)
    assert found == [(HORIZON, 7)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ws://", "ws://127.0.0.1:x"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UserError, match="there is no policy server at"):
        PolicyClient(url)


def test_something_else_listens_there() -> None:
    """A vla-eval server does not speak first."""
    options = ServerOptions(port=0, protocol="vla-eval")
    with PolicyServer(Telling(), options).background() as url, pytest.raises(UserError, match="said nothing for 0.1 s"):
        PolicyClient(url, timeout=0.1)
