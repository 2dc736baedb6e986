"""``selfflow-mm doctor simpler`` on a Python without SIMPLER, on none, and on one that pretends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from selfflow_mm.cli.main import main
from selfflow_robotics.simpler.doctor import findings


def found(python: str | None) -> dict[str, Any]:
    return {finding.name: finding for finding in findings(python)}


@pytest.fixture
def pretending(tmp_path: Path) -> Any:
    """``pretending(**told)``: a program that answers as the probe would."""

    def make(ends: str = "exit 0", **changes: Any) -> str:
        packages = {
            "numpy": "1.26.4", "sapien": "2.2.2", "gymnasium": "0.29.1", "mani_skill2_real2sim": "0.5.3",
            "simpler_env": "0.0.1", "msgpack": "1.1", "websockets": "15.0",
        }  # fmt: skip
        told = {"python": "3.10.1", "packages": {n: {"version": v} for n, v in packages.items()}}
        told |= {"missing": [], "renders": "/some/driver.json"} | changes
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\ncat <<'END'\nnoise\n{json.dumps(told)}\nEND\n{ends}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_a_python_without_simpler_lacks_it_and_this_is_how_to_add_it() -> None:
    told = found(sys.executable)
    assert told["python"].ok and sys.executable in told["python"].detail
    assert not told["simpler_env"].ok and told["simpler_env"].fix.startswith(f"{sys.executable} -m pip install")
    assert not told["numpy"].ok and "<2 is needed" in told["numpy"].detail  # this project's own is newer
    assert told["msgpack"].ok and told["websockets"].ok


def test_all_is_well(pretending: Any) -> None:
    told = found(pretending())
    assert all(finding.ok for finding in told.values())
    assert "draws, by /some/driver.json" in told["SAPIEN"].detail


def test_a_driver_that_kills_the_process_and_one_that_complains(pretending: Any) -> None:
    died = found(pretending(ends="kill -SEGV $$", renders=None))["SAPIEN"]
    assert not died.ok and died.required and "signal 11" in died.detail and "docs/simpler.md" in died.fix
    said = found(pretending(renders=None, renders_not="RuntimeError: ErrorExtensionNotPresent"))["SAPIEN"]
    assert "ErrorExtensionNotPresent" in said.detail


def test_missing_stages_are_named(pretending: Any) -> None:
    told = found(pretending(missing=["/data/stages/a.glb", "/data/stages/b.glb", "/data/real/c.png"]))
    assert "a.glb, b.glb" in told["stages"].detail and "/data/stages" in told["stages"].detail
    assert "c.png" in told["real pictures"].detail and not told["stages"].required


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pretending: Any) -> None:
    monkeypatch.delenv("SELFFLOW_SIMULATOR_PYTHON", raising=False)
    assert main(["doctor", "simpler"]) == 1
    assert "not named" in capsys.readouterr().out
    assert main(["doctor", "simpler", "--simulator-python", "no-such-python"]) == 1
    assert "no-such-python is no program" in capsys.readouterr().out
    assert main(["doctor", "simpler", "--simulator-python", pretending(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(["doctor", "simplr"]) == 2
    assert "it knows simpler" in capsys.readouterr().err
