"""How a run shows itself: lines where there is no terminal, a panel where there is one, and neither too often."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from selfflow_mm.training import panel
from selfflow_mm.training.panel import Plain, Quiet, losses_of, number, open_console, trend
from selfflow_mm.training.run_folder import read_log
from tests.selfflow_mm.training.test_loop import run

NUMBERS = {
    "loss": 1.2345, "l_gen/video": 0.5, "l_gen/audio": 0.7, "l_rep": 0.25, "cosine/video": 0.1, "grad_norm": 0.8,
    "lr": 1e-4, "samples_per_second": 132.0, "tokens_per_second": 41234.0, "tflops": 312.0, "mfu": 0.312,
    "memory_gib": 61.21, "skipped": 2,
}  # fmt: skip


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """stderr is a terminal of 100 columns; what it was sent is in the list afterwards."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    got, sent = [], []

    def read() -> None:
        while True:
            try:
                data = os.read(reader, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            got.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    with monkeypatch.context() as patch, os.fdopen(writer, "w") as stderr:
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(sys, "stderr", stderr)
        yield sent
        stderr.flush()
    thread.join(timeout=10)
    os.close(reader)
    sent.append(b"".join(got).decode())


def shown(text: str) -> str:
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_elsewhere_there_is_a_line_per_logged_step(small_config, tmp_path, capfd):
    run(small_config, tmp_path / "a")
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    logged = read_log(tmp_path / "a")
    assert [line.split(":")[0].split(" (")[0] for line in lines] == [f"step {i} of 6" for i in (2, 4, 6)]
    for line, numbers in zip(lines, logged, strict=True):
        assert "\r" not in line and f"loss {numbers['loss']:.3g}, " in line and "samples/s" in line
        for name in (k for k in numbers if k.startswith("l_gen/")):
            assert f"{name.removeprefix('l_gen/')} {numbers[name]:.3g}" in line
    assert lines[-1].endswith("saved at 3")


def test_a_line_has_every_number_in_words(capsys):
    console = Plain("first", 0, 1000)
    console.saved(100)
    console.line(120, NUMBERS)
    assert capsys.readouterr().err == (
        "step 120 of 1,000 (12%): loss 1.23, audio 0.7, video 0.5, l_rep 0.25, grad norm 0.8, lr 0.0001, "
        "132 samples/s, 41.2k tokens/s, 312 TFLOP/s, MFU 31.2%, 61.2 GiB, 2 skipped, saved at 100\n"
    )


def test_a_terminal_gets_a_panel(small_config, tmp_path, monkeypatch):
    with terminal(monkeypatch) as sent:
        run(small_config, tmp_path / "first", "run.sample_every=3")
    text = shown(sent[0])
    last = text[text.rindex("╭") :]
    assert "first" in last and "step 6 of 6" in last and "100%" in last and "saved at 6" in last
    logged = read_log(tmp_path / "first")[-1]
    assert f"loss   {number(logged['loss'])}" in last and "tokens/s" in last and "audio" in last
    assert trend([line["loss"] for line in read_log(tmp_path / "first")]) in last
    assert "\nstep " not in text  # no plain lines beside it


def test_the_panel_is_drawn_at_most_twice_a_second_and_shows_what_is_wrong(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(panel.time, "monotonic", lambda: clock[0])
    asked = []
    with terminal(monkeypatch) as sent, open_console("auto", "first", 0, 4000, first=True) as console:
        for step in range(1, 2001):
            clock[0] += 0.001
            console.step(step, lambda: asked.append(1) or NUMBERS)
        console.line(2000, NUMBERS)
        console.note("warning: media_out.audio got no gradient")
    assert 3 <= len(asked) <= 5  # two seconds
    text = shown(sent[0])
    assert text.count("step 1,") < 4
    last = text[text.rindex("╭") :]
    assert "0:00:02 left" in last and "2 skipped" in last and "MFU 31.2%" in last and "61.2 GiB" in last
    said, framed = (text.count(f"{left}warning: media_out.audio got no gradient") for left in ("", "│ "))
    assert "warning: " in last and said - framed == 1  # in the panel, and once above it


@pytest.mark.parametrize(("kind", "first"), [("quiet", True), ("plain", False), ("panel", False)])
def test_only_the_first_process_speaks_and_quiet_is_quiet(kind, first, capfd):
    with open_console(kind, "first", 0, 10, first=first) as console:
        assert type(console) is Quiet
        console.step(1, lambda: pytest.fail("nobody looks at them"))
        console.line(1, NUMBERS)
        console.note("a warning")
    assert capfd.readouterr() == ("", "")


def test_a_dumb_terminal_gets_lines(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "dumb")
    assert type(open_console("auto", "first", 0, 10, first=True)) is Plain


def test_time_left_counts_from_the_second_step(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(panel.time, "monotonic", lambda: clock[0])
    pace = panel._Pace(step=100, steps=200)
    clock[0] = 600.0  # a compiler's ten minutes
    pace.at(101)
    assert pace.left(101) == ""
    clock[0] = 618.0
    pace.at(110)
    assert pace.left(110) == "0:03:00"  # 90 steps of 2 s


def test_numbers_and_trends():
    known = {0.123456: "0.123", 999.0: "999", 41234.0: "41.2k", 3.2e9: "3.2G", float("nan"): "nan"}
    assert [number(value) for value in known] == list(known.values())
    assert trend([3, 2, 1, float("inf"), 0]) == "█▆▃▁" and trend([1.0]) == "" and trend([2, 2]) == "▁▁"
    assert list(losses_of(NUMBERS)) == ["loss", "audio", "video", "l_rep"]
