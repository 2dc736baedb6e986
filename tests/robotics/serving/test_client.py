"""Our client, against our server and against one that knows no more than openpi's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation, PolicyAbout, Request
from selfflow_robotics.policies import Policy, load_policy
from selfflow_robotics.serving import PolicyClient, PolicyServer, RemotePolicy, ServedPolicy, ServerOptions
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


def requests_of(count: int) -> list[Request]:
    """Pictures of two sizes, some with a state."""
    random = np.random.default_rng(count)
    return [
        Request(
            Observation(
                random.integers(0, 256, (4 + n % 2, 5, 3), np.uint8), f"pick {n}", np.float32([n, 1]) if n % 3 else None
            ),
            seed=int(random.integers(2**63)),
            query=n % 4,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 7, 150])
def test_a_served_policy_answers_as_the_policy_at_hand(count: int) -> None:
    """Whatever is asked together, and with an ensembling server, whose memory this goes past."""
    policy, requests = Telling(2), requests_of(count)
    options = ServerOptions(port=0)
    with PolicyServer(policy, options).background() as url:
        served = ServedPolicy(url)
        assert served.about.name == "telling"
        assert served.about.extra == {"a": [1], "served": True, "seeds_reach_it": True}
        expected = policy.chunks(requests) if count else np.zeros((0, HORIZON, 7))
        for _ in range(2):  # no memory: the same again
            assert np.array_equal(served.chunks(requests), expected)
        served.close()


def test_what_must_be_executed_is_told() -> None:
    with PolicyServer(load_policy("zero", horizon=3), ServerOptions(port=0)).background() as url:
        assert ServedPolicy(url).about.executed is None
    fixed = Telling()
    fixed.about = replace(fixed.about, executed=2)
    with PolicyServer(fixed, ServerOptions(port=0)).background() as url:
        assert ServedPolicy(url).about.executed == 2


def test_a_served_policy_of_openpis_own_server() -> None:
    received: list[dict] = []
    with theirs(received) as url:
        with pytest.raises(UserError, match="says nothing of its policy's name"):
            ServedPolicy(url)
        served = ServedPolicy(url, about=PolicyAbout("pi0", 3, 5.0))
        chunks = served.chunks(requests_of(3))
        assert chunks.shape == (3, 3, 7) and all(np.array_equal(chunk, ACTIONS) for chunk in chunks)
        assert served.about.extra == {"served": True, "seeds_reach_it": False}
        served.close()
        longer = ServedPolicy(url, about=PolicyAbout("pi0", 4, 5.0))
        with pytest.raises(UserError, match="answered with actions of \\(3, 7\\) where it had promised \\(4, 7\\)"):
            longer.chunks(requests_of(1))
        longer.close()
    assert all(set(message) == {"image", "prompt"} for message in received)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"query": 0, "reset": True}, "'reset' starts one"),
        ({"query": [0]}, "'query' is a number, or a list of 1"),
        ({"query": 0, "seed": [1]}, "'seed' is a number, or a list of 1"),
        ({"query": -1}, "'query' is a whole number"),
        ({"query": 0, "seed": 2**63}, "'seed' is a whole number"),
        ({"query": 0.5}, "'query' is a whole number"),
        ({"image": np.stack([IMAGE] * 2), "query": [0, 1, 2]}, "a list of 2 numbers"),
        ({"image": np.stack([IMAGE] * 2), "query": 1}, "a list of 2 numbers"),
        ({"image": np.stack([IMAGE] * 2), "query": [0, True], "seed": [0, 0]}, "'query' is a whole number"),
    ],
)
def test_questions_without_an_episode_that_are_refused(message: dict, sentence: str) -> None:
    with PolicyServer(Telling(), ServerOptions(port=0)).background() as url, PolicyClient(url) as client:
        with pytest.raises(UserError, match=sentence):
            client.infer({"image": IMAGE, "prompt": "pick", **message})


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
