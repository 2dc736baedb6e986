"""``doctor`` agrees with the interpreter about what is there, and names the command for what is not."""

from __future__ import annotations

import argparse
import importlib.metadata
import json

import pytest
import torch

from selfflow_mm.cli import doctor


def _find(findings: list[doctor.Finding], name: str) -> doctor.Finding:
    (found,) = [f for f in findings if f.name == name]
    return found


def test_versions_are_those_installed() -> None:
    findings = list(doctor.packages())
    for name in ("torch", "numpy", "safetensors", "einops"):
        finding = _find(findings, name)
        assert finding.ok and finding.required and finding.detail == importlib.metadata.version(name)
    assert not _find(findings, "tensorboard").required


def test_what_is_missing_or_old_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def pretend(name: str) -> str:
        if name in ("tensorboard", "einops"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0" if name == "torch" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", pretend)
    findings = list(doctor.packages())
    einops, tensorboard, old = (_find(findings, name) for name in ("einops", "tensorboard", "torch"))
    assert (einops.ok, einops.required, einops.fix) == (False, True, "pip install 'einops>=0.8'")
    assert (tensorboard.ok, tensorboard.required) == (False, False)
    assert tensorboard.fix == "pip install 'selfflow-mm[logging]'"
    assert not old.ok and "2.0 is too old, >=2.11 is needed" in old.detail
    text = doctor.report(findings)
    assert "pip install 'einops>=0.8'    # einops (required)" in text
    assert "pip install 'selfflow-mm[logging]'    # tensorboard (optional)" in text
    assert "Everything that is required" not in text


def test_devices_are_those_of_torch() -> None:
    names = {f.name for f in doctor.devices()}
    assert "cpu" in names
    assert ("cuda:0" in names) == torch.cuda.is_available()
    assert ("mps" in names) == torch.backends.mps.is_available()


def test_the_encoders_of_the_demo_are_there() -> None:
    findings = list(doctor.media_support())
    assert _find(findings, "libx264").ok and _find(findings, "aac").ok


def test_json_and_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = doctor.Finding("Bundled weights", "model", "1 MB", required=True)
    missing = doctor.Finding("Bundled weights", "model", "none", False, True, "fetch them")
    for finding, code in ((there, 0), (missing, 1)):
        monkeypatch.setattr(doctor, "weights", lambda found=finding: iter([found]))
        assert doctor.run(argparse.Namespace(what=None, simulator_python=None, json=True)) == code
        told = json.loads(capsys.readouterr().out)
        assert told["ok"] == (code == 0)
        assert [f["fix"] for f in told["findings"] if f["name"] == "model"] == [finding.fix]
