"""A live server under thousands of hostile messages: it stays up, and a well-behaved client notices nothing.

Every message is a function of its number, so a failure can be looked at again. ``-m long`` sends ten thousand.
"""

from __future__ import annotations

import gc
import os
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.serving import PolicyClient, PolicyServer, ServerOptions
from selfflow_robotics.serving.msgpack_numpy import pack, unpack
from selfflow_robotics.serving.observations import read_observations
from tests.robotics.serving.toys import Telling

IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
STATE = np.float32([1, 2])
ASKED = {"image": IMAGE, "prompt": "pick", "state": STATE}
WHOLE = pack(ASKED)
ABOUT = PolicyAbout("p", 4, 5.0, state_names=("a", "b"), needs_state=True)
MAX_MESSAGE = 4 * 2**20
Random = random.Random


def as_map(array: np.ndarray) -> dict:
    data = {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": list(array.shape)}
    return dict(data)


def asked(**changed: object) -> bytes:
    message = {"image": as_map(IMAGE), "prompt": "pick", "state": as_map(STATE), **changed}
    return msgpack.packb(message)


def noise(draw: Random) -> bytes:
    return draw.randbytes(draw.choice([0, 1, 2, 5, 50, 5000]))


def cut(draw: Random) -> bytes:
    return WHOLE[: draw.randrange(len(WHOLE))]


def flipped(draw: Random) -> bytes:
    data = bytearray(WHOLE)
    for _ in range(draw.choice([1, 1, 2, 9])):
        data[draw.randrange(min(len(data), draw.choice([20, len(data)])))] = draw.randrange(256)
    return bytes(data)


def headers(draw: Random) -> bytes:
    """Containers, texts and binaries that claim any length."""
    kinds = [b"\xdc", b"\xdd", b"\xde", b"\xdf", b"\xc6", b"\xdb", b"\xc9", b"\x91", b"\x81\xa1x", b"\x9f", b"\x8f"]
    return b"".join(draw.choice(kinds) + draw.randbytes(draw.choice([0, 2, 4])) for _ in range(draw.randrange(1, 200)))


def deep(draw: Random) -> bytes:
    return draw.choice([b"\x91", b"\x81\xa1x", b"\xdc\x0f\xff", b"\x92\xc0"]) * draw.choice([17, 600, 30_000])


def lying(draw: Random) -> bytes:
    lie = as_map(draw.choice([IMAGE, STATE, np.zeros(0, np.uint8)]))
    shapes = [
        [-1, 8, 3],
        [2**31, 2**31, 3],
        [2**62],
        [0, 10**18],
        [6, 8, 3, 0],
        [1.5],
        ["6"],
        None,
        [6] * 99,
        [144],
        {},
    ]
    dtypes = ["O", "|O8", "V3", "<c16", "(9,)u1", "u1,u1", "<U0", "<f4", "|S999999", "<M8[D]", 3, None, "x" * 10_000]
    datas = [b"", bytes(143), "text", None, 3, [1] * 144, {b"__ndarray__": True}]
    field, values = draw.choice([(b"shape", shapes), (b"dtype", dtypes), (b"data", datas)])
    lie[field] = draw.choice(values)
    return asked(**{draw.choice(["image", "state", "prompt", "extra"]): lie})


def wrong(draw: Random) -> bytes:
    """Whole messages that mean nothing: other types, other shapes, numbers that are none."""
    arrays = [
        np.zeros((6, 8, 3), draw.choice(["f4", "f8", "i2", "u2", "b1"])), np.zeros((3, 6, 8), "u1"),
        np.zeros((6, 8), "u1"),
        np.zeros((0, 8, 3), "u1"), np.zeros((65, 1, 1, 3), "u1"), np.zeros((2, 2, 2, 2, 3), "u1"), np.array(["a"]),
        np.float32([np.nan, 1]), np.float64([np.inf, 1]), np.float64([1e300, 1]), np.zeros(1000), np.zeros((2, 2)),
    ]  # fmt: skip
    values = [
        *map(as_map, arrays),
        None,
        True,
        -1,
        1e999,
        "x",
        "x" * 10**6,
        b"x" * 10**5,
        [],
        {},
        ["a"] * 3,
        [[1], [2]],
    ]
    keys = ["image", "prompt", "state", "reset", "seed", "query", "observation", "observation/image"]
    return asked(**{key: draw.choice(values) for key in draw.sample(keys, draw.choice([1, 1, 2, 3]))})


def surrogates(draw: Random) -> bytes:
    return WHOLE.replace(b"pick", draw.choice([b"\xff\xfe\xff\xfe", b"\xed\xa0\x80x", b"a\x00b\x00"]))


MAKERS: tuple[Callable[[Random], bytes], ...] = (noise, cut, flipped, headers, deep, lying, wrong, surrogates)


def hostile(number: int) -> bytes:
    draw = Random(number)
    return MAKERS[number % len(MAKERS)](draw)


def resident() -> int:
    """Bytes of memory of this process, which is the server's too."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def decode(count: int) -> int:
    """How many messages are understood after all (a flipped bit of a picture is no mistake)."""
    understood = 0
    for number in range(count):
        try:
            message = unpack(hostile(number))
            if isinstance(message, dict):
                read_observations(message, ABOUT)
                understood += 1
        except UserError:
            pass
    return understood


def opened(url: str) -> ClientConnection:
    connection = connect(url, compression=None, max_size=None, proxy=None, close_timeout=1)
    return connection.__enter__()


def send(url: str, numbers: range) -> int:
    """Send all of them over as many connections as that takes; returns how many errors came back."""
    connection, errors = opened(url), 0
    connection.recv(10)
    for number in numbers:
        draw, message = Random(number), hostile(number)
        try:
            connection.send(message.decode("latin-1") if draw.random() < 0.05 else message)
            if draw.random() < 0.02:
                with suppress(ConnectionClosed):  # the answer may be there already, and the end with it
                    for _ in range(20):
                        connection.ping()
            answer = connection.recv(10)
        except ConnectionClosed as error:
            raise AssertionError(f"message {number} was not answered: {error}") from error
        if isinstance(answer, str):
            errors += 1
            connection.close()
            connection = opened(url)
            connection.recv(10)
    connection.close()
    return errors


def leave(url: str, number: int, stack: ExitStack) -> None:
    """Be rude below the protocol: half a handshake, half a frame, masks that are missing, sizes beyond any limit."""
    draw = Random(number)
    host, port = url.removeprefix("ws://").split(":")
    stream = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
    shake = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    rude = [
        shake[:40], b"\x00" * 3000, b"GET " + b"x" * 9000, b"POST / HTTP/1.1\r\n\r\n", shake + b"\x82\x05hello",
        shake + b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", shake + b"\x02\x80\x00\x00\x00\x00" * 50,
        shake + b"\x82\xfe\x10\x00\x00\x00\x00\x00half", shake + b"\x83\x80\x00\x00\x00\x00", shake + b"\xf2\x80",
        shake + b"\x88\x81\x00\x00\x00\x00x", shake + b"\x80\x80\x00\x00\x00\x00", shake * 3,
    ]  # fmt: skip
    stream.sendall(draw.choice(rude))
    if draw.random() < 0.5:
        stream.close()


def attack(direct: int, sent: int, rude: int) -> None:
    options = ServerOptions(port=0, max_message=MAX_MESSAGE, max_connections=1000)
    with PolicyServer(Telling(2, needs_state=True), options).background() as url, ExitStack() as stack:
        good = stack.enter_context(PolicyClient(url))

        def answers() -> list[np.ndarray]:
            good.reset(seed=11)
            return [good.act(IMAGE, "pick", STATE) for _ in range(3)]

        before = answers()
        assert decode(direct // 10) < direct // 20, "most of it is hostile"
        assert send(url, range(100)) > 50
        memory = resident()
        decode(direct)
        parts = np.linspace(100, 100 + sent, 11).astype(int)
        for start, stop in zip(parts[:-1], parts[1:], strict=True):
            send(url, range(start, stop))
            for number in range(start, start + rude // 10):
                with suppress(OSError):  # the server hung up while it was still being shouted at
                    leave(url, number, stack)
            assert np.array_equal(answers(), before), "during"
        with opened(url) as connection:
            connection.recv(10)
            connection.send(bytes(MAX_MESSAGE + 1))
            with pytest.raises(ConnectionClosed, match="1009"):
                connection.recv(10)
        assert np.array_equal(answers(), before), "after"
        assert resident() - memory < 60 * 2**20


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_hostile_messages() -> None:
    attack(direct=1000, sent=400, rude=40)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ten_thousand_hostile_messages() -> None:
    attack(direct=7700, sent=2300, rude=200)
