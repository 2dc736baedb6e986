"""``selfflow-mm serve-policy`` as a user runs it: the ready line, the end by a signal, mistakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from selfflow_mm.cli.main import _run
from selfflow_robotics.cli import serve_policy
from selfflow_robotics.policies import Policy, load_policy
from selfflow_robotics.serving import PolicyClient

IMAGE = np.zeros((4, 5, 3), np.uint8)
_PROGRAM = (
    "import sys; from selfflow_mm.cli.main import _run; from selfflow_robotics.cli import serve_policy;"
    "sys.exit(_run('serve-policy', serve_policy, sys.argv[1:]))"
)


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its ready line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_the_ready_line_to_the_end(number: signal.Signals) -> None:
    with started("random", "--horizon", "3", "--executed", "2", "--port", "0", "--policy-seed", "5") as (process, line):
        found = re.fullmatch(
            r"(ws://127\.0\.0\.1:\d+): serving random by openpi's protocol; chunks of 3 actions, 2 carried out, "
            r"3 per second; no state\n",
            line,
        )
        assert found, line
        beside = Policy(load_policy("random", horizon=3))
        beside.reset(5)
        with PolicyClient(found[1]) as client:
            assert np.array_equal(client.act(IMAGE, "pick"), beside.act(IMAGE, "pick"))
            process.send_signal(number)
            output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "stopped\n", "")


def test_key_from_the_environment_and_no_warning() -> None:
    with started("zero", "--host", "0.0.0.0", "--port", "0", SELFFLOW_API_KEY="k3y") as (process, line):
        assert "serving zero by openpi's protocol, API key;" in line
        with PolicyClient(f"127.0.0.1:{line.split(':')[2]}", api_key="k3y") as client:
            assert client.act(IMAGE, "pick").shape == (8, 7)
        process.terminate()
        assert process.communicate(timeout=20)[1] == ""


def test_a_warning_where_anybody_may_ask() -> None:
    with started("zero", "--host", "0.0.0.0", "--port", "0", "--protocol", "vla-eval") as (process, line):
        assert "vla-eval's protocol" in line
        process.terminate()
        assert "warning: whoever reaches 0.0.0.0 may use this policy" in process.communicate(timeout=20)[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "there is no policy and no folder 'nonsense'"),
        (["zero", "--steps", "3"], "the policy 'zero' has no setting 'steps'"),
        (["mean"], "none are given"),
        (["zero", "--camera", "front"], "--camera and --rotation go with --protocol vla-eval"),
        (["zero", "--max-message-mb", "nan"], "--max-message-mb is more than 0"),
        (["zero", "--executed", "9"], "a chunk of zero has 8 actions"),
        (["zero", "--max-batch", "0"], "a batch has at least one request"),
        (["zero", "--port", "-1"], "a port is between 0"),
        (["zero", "--api-key", ""], "an API key is"),
        (["zero", "--host", "256.1.1.1", "--port", "0"], "cannot listen on 256.1.1.1:0"),
        (["zero", "--host", "a..b", "--port", "0"], "cannot listen on a..b:0"),
        (["a" * 5000], "there is no policy and no folder 'aaa"),
        (["zero", "--horizon", "1000000000000"], "a chunk has at most 10000 actions"),
        (["zero", "--max-rate", "inf"], "max_rate is a number from 0 per second on, not inf"),
        (["zero", "--default-prompt", "a" * 4097], "'prompt' has at most 4096 characters"),
        (["zero", "--episode", "1"], "the policy 'zero' has no setting 'episode'"),
        (["zero", "--video-level", "0.x"], "--video-level is absent, denoised or a number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("serve-policy", serve_policy, arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
