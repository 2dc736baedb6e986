"""The server as its clients see it: openpi's protocol on the wire, limits, batches, others' mistakes, the end."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import Observation
from selfflow_robotics.policies import ActingOptions, Policy
from selfflow_robotics.serving import PolicyClient, PolicyServer, ServerOptions, server
from selfflow_robotics.serving import connection as connection_module
from selfflow_robotics.serving.msgpack_numpy import pack, unpack
from tests.robotics.serving.toys import HORIZON, Telling

IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
ASKED = {"image": IMAGE, "prompt": "pick"}


@contextmanager
def serving(policy: Telling | None = None, acting: ActingOptions | None = None, **options: Any) -> Iterator[str]:
    given = ServerOptions(port=0, **options)
    with PolicyServer(policy or Telling(), given, acting or ActingOptions()).background() as url:
        yield url


@contextmanager
def raw(url: str, **options: Any) -> Iterator[ClientConnection]:
    """A connection of the websockets library with the metadata still to be read."""
    with connect(url, compression=None, max_size=None, proxy=None, **options) as connection:
        yield connection


def get(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("ws://"), timeout=5)
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.read()


def closed(connection: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the server closed."""
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(5)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_protocol_on_the_wire() -> None:
    """With msgpack alone, as any language would see it."""
    image = {b"__ndarray__": True, b"data": IMAGE.tobytes(), b"dtype": "|u1", b"shape": [6, 8, 3]}
    with serving() as url, raw(url) as connection:
        metadata = msgpack.unpackb(connection.recv(5))
        assert metadata["name"] == "telling" and metadata["horizon"] == HORIZON and metadata["extra"] == {"a": [1]}
        for turn in range(2):
            connection.send(msgpack.packb({"image": image, "prompt": "pick"}))
            answer = msgpack.unpackb(connection.recv(5))
            actions, timing = answer["actions"], answer["server_timing"]
            assert set(answer) == {"actions", "server_timing"}
            assert actions[b"__ndarray__"] is True and actions[b"dtype"] == "<f4" and actions[b"shape"] == [HORIZON, 7]
            got = np.frombuffer(actions[b"data"], "<f4").reshape(HORIZON, 7)
            assert got[0, 0] == np.float32(IMAGE.mean()) and got[0, 1] == 4 and got[0, 5] == turn
            assert set(timing) == ({"infer_ms", "prev_total_ms"} if turn else {"infer_ms"})
            assert all(isinstance(value, float) and value >= 0 for value in timing.values())


def test_metadata_are_plain_values_that_say_what_is_served() -> None:
    with serving(Telling(2, needs_state=True), ActingOptions(executed=2)) as url, PolicyClient(url) as client:
        said = client.metadata
    assert said.pop("server").startswith("selfflow-mm ")
    assert said == {
        "understands": ["reset", "seed", "batch", "query"], "name": "telling", "horizon": HORIZON, "executed": 2,
        "must_execute": None,
        "control_rate": 5.0, "action_names": ["x", "y", "z", "roll", "pitch", "yaw", "gripper"],
        "state_names": ["s0", "s1"], "needs_state": True, "extra": {"a": [1]},
    }  # fmt: skip


def test_answers_are_those_of_the_policy_beside() -> None:
    """Seeds, questions and ensembling of an episode are the same here as in this process."""
    acting = ActingOptions(executed=2, ensemble="temporal", seed=7)
    beside = Policy(Telling(3), acting)
    with serving(Telling(3), acting) as url, PolicyClient(url) as client:
        for episode in range(2):
            for step in range(3):
                state = np.arange(3.0) + step
                here = client.act(IMAGE, "pick", state)
                assert np.array_equal(here, beside.act(IMAGE, "pick", state.astype(np.float32)))
            if episode == 0:
                client.reset(seed=3)
                beside.reset(seed=3)


def test_reset() -> None:
    with serving() as url, PolicyClient(url) as client:
        first = [client.infer(ASKED)["actions"] for _ in range(2)]
        assert client.infer({"reset": True, "seed": 0}) == {"reset": True}
        assert np.array_equal(client.infer(ASKED)["actions"], first[0])
        assert np.array_equal(
            client.infer({**ASKED, "reset": np.bool_(True), "seed": np.int64(0)})["actions"], first[0]
        )
        assert np.array_equal(client.infer({**ASKED, "reset": False})["actions"], first[1])
        client.infer({"reset": True})
        again = client.infer(ASKED)["actions"]
        assert again[0, 5] == 0 and not np.array_equal(again, first[0]), "the next episode has seeds of its own"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"reset": 1}, "'reset' is True or False"),
        ({"reset": True, "seed": -1}, "'seed' is a whole number"),
        ({"reset": True, "seed": 1.5}, "'seed' is a whole number"),
        ({**ASKED, "seed": 1}, "'seed' goes with 'reset'"),
        ({}, "the message has no picture"),
        ({"reset": True, "image": 3}, "the picture is a numpy array"),
        ([1], "a message is a dictionary, this one is list"),
        ({**ASKED, "prompt": "mistake"}, "say something else"),
        ({**ASKED, "prompt": "fail"}, "the policy failed: RuntimeError: /secret/path is broken"),
        ({**ASKED, "prompt": "shape"}, r"the policy failed: RuntimeError: telling answered with (1, 1, 1)"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_an_error_is_a_text_then_1011(message: object, said: str) -> None:
    with serving() as url, raw(url) as connection, PolicyClient(url) as other:
        before = other.infer({**ASKED, "reset": True, "seed": 5})["actions"]
        connection.recv(5)
        connection.send(pack(message))
        text = connection.recv(5)
        assert isinstance(text, str) and text.startswith(said) and "Traceback" not in text
        assert closed(connection)[0] == 1011
        assert np.array_equal(other.infer({**ASKED, "reset": True, "seed": 5})["actions"], before)


@pytest.mark.parametrize("message", ["text", b"", b"\xc1", b"\xdd\xff\xff\xff\xff"])
def test_what_is_not_a_message(message: bytes | str) -> None:
    with serving() as url, raw(url) as connection:
        connection.recv(5)
        connection.send(message)
        assert isinstance(connection.recv(5), str)
        assert closed(connection)[0] == 1011


def test_a_batch_has_an_episode_per_row() -> None:
    images = np.stack([IMAGE, IMAGE // 2, IMAGE // 3])
    with serving() as url, PolicyClient(url) as client, PolicyClient(url) as single:
        batch = {"image": images, "prompt": ["a", "bb", "ccc"]}
        rows = [client.infer(batch)["actions"] for _ in range(2)]
        assert rows[0].shape == (3, HORIZON, 7) and rows[0].dtype == np.float32
        assert rows[0][:, 0, 0].tolist() == [np.float32(image.mean()) for image in images]
        assert rows[0][:, 0, 1].tolist() == [1, 2, 3]
        assert len({tuple(row) for row in rows[0][:, 0, 3:5]}) == 3, "rows have seeds of their own"
        assert rows[1][:, 0, 5].tolist() == [1, 1, 1]
        assert np.array_equal(rows[0][0], single.infer({"image": images[0], "prompt": "a"})["actions"])
        client.infer({"reset": True, "seed": 0})
        assert np.array_equal(client.infer(batch)["actions"], rows[0]), "rows are reset too"
        assert client.infer({**batch, "image": images[:1], "prompt": "a"})["actions"].shape == (1, HORIZON, 7)


def test_connections_share_batches_and_do_not_notice() -> None:
    policy = Telling(delay=0.02)
    with serving(policy, max_batch=8) as url:
        with PolicyClient(url) as client:
            alone = [client.infer(ASKED)["actions"] for _ in range(4)]

        def ask(_: int) -> list[np.ndarray]:
            with PolicyClient(url) as one:
                return [one.infer(ASKED)["actions"] for _ in range(4)]

        with ThreadPoolExecutor(8) as pool:
            for answers in pool.map(ask, range(8)):
                assert np.array_equal(answers, alone)
    assert max(policy.batches) > 1 and policy.threads == {"policy"}


def test_pings_are_answered_while_the_policy_thinks() -> None:
    policy = Telling()
    with serving(policy) as url, raw(url) as connection:
        connection.recv(5)
        policy.delay = 1.0
        connection.send(pack(ASKED))
        assert connection.ping().wait(5) and get(url, "/healthz") == (200, b"OK\n")
        with pytest.raises(TimeoutError):  # all that while it was still thinking
            connection.recv(0)
        assert isinstance(connection.recv(5), bytes)


def test_health_and_api_key() -> None:
    with serving(api_key="s3cret") as url:
        assert get(url, "/healthz") == (200, b"OK\n")
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        for header in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "s3cret"}, {"Authorization": "é"}):
            status, body = get(url, "/", {**upgrade, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **header})
            assert (status, body) == (401, b"send the header 'Authorization: Api-Key KEY'\n")
        with PolicyClient(url, api_key="s3cret") as client:
            assert client.infer(ASKED)["actions"].shape == (HORIZON, 7)
        for key in (None, "wrong"):
            with pytest.raises(UserError, match="refuses: 401 Unauthorized, send the header"):
                PolicyClient(url, api_key=key)


def test_browsers_are_refused() -> None:
    with serving() as url, pytest.raises(InvalidStatus, match="403"), raw(url, origin="http://evil.example"):
        pass


def test_most_connections() -> None:
    with serving(max_connections=2) as url, PolicyClient(url) as first, PolicyClient(url):
        with pytest.raises(UserError, match="refuses: 503.*2 clients already"):
            PolicyClient(url)
        first.close()
        with PolicyClient(url) as third:
            assert third.infer(ASKED)["actions"].shape == (HORIZON, 7)


def test_most_bytes_of_a_message() -> None:
    with serving(max_message=2048) as url:
        with raw(url) as connection:
            connection.recv(5)
            connection.send(pack(ASKED))
            assert isinstance(connection.recv(5), bytes)
            connection.send(bytes(2049))
            assert closed(connection)[0] == 1009
        with raw(url) as connection:
            connection.recv(5)
            with suppress(ConnectionClosed):  # a quick server has closed before the second half is sent
                connection.send(iter([bytes(1500), bytes(1500)]))
            assert closed(connection)[0] == 1009


def test_a_message_in_pieces() -> None:
    with serving() as url, raw(url) as connection:
        connection.recv(5)
        whole = pack(ASKED)
        connection.send(iter([whole[i : i + 5] for i in range(0, len(whole), 5)]))
        answer = connection.recv(5)
        assert isinstance(answer, bytes) and unpack(answer)["actions"].shape == (HORIZON, 7)


def test_frames_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty frames have no size that a limit on size would see."""
    monkeypatch.setattr(connection_module, "MAX_FRAMES", 50)
    with serving() as url, raw(url) as connection:
        connection.recv(5)
        late = time.monotonic() + 30

        def empty() -> Iterator[bytes]:
            """More than there may be, then slowly on: a flood could drown the server's goodbye."""
            for count in itertools.count():
                if count > 60:
                    time.sleep(0.05)
                if time.monotonic() > late:
                    return
                yield b""

        with pytest.raises(ConnectionClosed):  # in the midst of the message: only the deadline ends it otherwise
            connection.send(empty())
        assert closed(connection) == (1008, "a message has at most 50 frames")


def test_rate() -> None:
    with serving(max_rate=20) as url, PolicyClient(url) as client:
        begun = time.monotonic()
        for _ in range(5):
            client.infer(ASKED)
        assert time.monotonic() - begun >= 4 / 20
    with serving() as url, PolicyClient(url) as client:
        begun = time.monotonic()
        client.infer(ASKED)
        assert time.monotonic() - begun < 5


def test_who_says_nothing_is_hung_up_on() -> None:
    with serving(idle=0.1) as url, raw(url) as connection:
        connection.recv(5)
        assert closed(connection) == (1001, "silent for 0.1 s")


def test_silence_while_the_policy_thinks_is_not_idleness() -> None:
    policy = Telling()
    with serving(policy, idle=0.7) as url, PolicyClient(url) as client:
        policy.delay = 1.0
        assert client.infer(ASKED)["actions"].shape == (HORIZON, 7)


def test_who_never_reads_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings ask for pongs, which pile up here if nobody takes them."""
    monkeypatch.setattr(server, "MAX_UNREAD", 4096)
    monkeypatch.setattr(server, "WATCH_SECONDS", 0.02)
    made = PolicyServer(Telling(), ServerOptions(port=0))
    with made.background() as url, socket.socket() as stream:
        assert made._server is not None
        for end in (stream, *made._server.sockets):  # or the kernels hold megabytes of pongs
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        host, port = url.removeprefix("ws://").split(":")
        stream.settimeout(10)
        stream.connect((host, int(port)))
        stream.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        ping = b"\x89\xfd\x00\x00\x00\x00" + bytes(125)
        with pytest.raises(ConnectionError):
            for _ in range(20_000):
                stream.sendall(ping * 100)
        with PolicyClient(url) as client:
            assert client.infer(ASKED)["actions"].shape == (HORIZON, 7)


def test_stopping_finishes_answers_and_says_goodbye() -> None:
    policy = Telling()
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        with serving(policy) as url:
            idle = stack.enter_context(connect(url, proxy=None))
            idle.recv(5)
            busy = PolicyClient(url)
            asked = len(policy.batches)
            policy.delay = 0.3
            answer = pool.submit(busy.infer, ASKED)
            until(lambda: len(policy.batches) > asked)
        assert answer.result(5)["actions"].shape == (HORIZON, 7)
        assert closed(idle) == (1001, "the server is stopping")
        with pytest.raises(UserError, match="closed the connection.*1001"):
            busy.infer(ASKED)
        with pytest.raises(UserError, match="nobody listens"):
            PolicyClient(url)
    assert "policy server" not in [thread.name for thread in threading.enumerate()]


def test_stopping_does_not_wait_for_ever() -> None:
    policy = Telling()
    with ExitStack() as stack:
        with serving(policy, grace=0.1) as url:
            connection = stack.enter_context(raw(url))
            connection.recv(5)
            asked = len(policy.batches)
            policy.delay = 2.5
            connection.send(pack(ASKED))
            until(lambda: len(policy.batches) > asked)
            begun = time.monotonic()
        assert time.monotonic() - begun < 2.4
        assert closed(connection) == (1001, "the server is stopping")


def test_a_second_signal_does_not_wait() -> None:
    policy = Telling()

    def insist(url: str) -> float:
        client = PolicyClient(url)
        asked = len(policy.batches)
        policy.delay = 3.0
        client._connection.send(pack(ASKED))
        until(lambda: len(policy.batches) > asked)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        insisting: list[Future[float]] = []
        PolicyServer(policy, ServerOptions(port=0)).run(lambda url: insisting.append(pool.submit(insist, url)))
        assert time.monotonic() - insisting[0].result(5) < 2


def test_unknown_keys_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as url:
        for _ in range(2):
            with PolicyClient(url) as client:
                client.infer({**ASKED, "observation/wrist_image": IMAGE})
    assert [r.getMessage() for r in caplog.records if "ignoring" in r.getMessage()] == [
        "ignoring 'observation/wrist_image' in clients' messages; said once"
    ]


def test_a_policy_that_cannot_answer_is_not_served() -> None:
    with pytest.raises(UserError, match="telling cannot answer: RuntimeError"):
        with serving(default_prompt="fail"):
            pass


def test_an_address_in_use() -> None:
    with serving() as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"):
            with PolicyServer(Telling(), ServerOptions(port=port)).background():
                pass


def test_needs_state() -> None:
    observation = Observation(IMAGE, "pick", np.float32([1, 2]))
    with serving(Telling(2, needs_state=True)) as url:
        with PolicyClient(url) as client:
            assert client.act(observation.image, observation.instruction, observation.state)[0, 2] == 3
            with pytest.raises(UserError, match="telling needs the robot's state: send 'state' of 2 \\(s0, s1\\)"):
                client.infer(ASKED)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"port": 70000}, "a port is between"), ({"protocol": "grpc"}, "the protocols are"),
        ({"api_key": ""}, "API key"), ({"api_key": "ä"}, "API key"), ({"api_key": "key "}, "API key neither begins"),
        ({"default_prompt": "a" * 4097}, "at most 4096 characters"),
        ({"max_message": 0}, "max_message"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_rate": -1}, "max_rate"), ({"max_rate": float("nan")}, "max_rate"), ({"idle": 0}, "idle"),
        ({"rotation": "quaternion"}, "rotations"), ({"grace": -1}, "grace"),
    ],
)  # fmt: skip
def test_options_out_of_range(options: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ServerOptions(**options)
