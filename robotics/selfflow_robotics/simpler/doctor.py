"""What keeps SIMPLER from running, in words: ``selfflow-mm doctor simpler``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from packaging.specifiers import SpecifierSet

from selfflow_mm.cli.doctor import Finding

from . import probe
from .suites import SUITES

__all__ = ["PYTHON", "findings"]

#: The environment variable that names SIMPLER's Python.
PYTHON = "SELFFLOW_SIMULATOR_PYTHON"
_SIDE, _VULKAN, _ASSETS = "SIMPLER's Python", "Rendering", "Assets"
#: Package -> versions that work, and what to do where it is missing or another.
_NEEDED = {
    "numpy": ("<2", "pip install 'numpy<2'"),
    "sapien": ("==2.2.*", "pip install sapien==2.2.2"),
    "gymnasium": ("==0.29.*", "pip install gymnasium==0.29.1"),
    "mani_skill2_real2sim": ("", "pip install -e SimplerEnv/ManiSkill2_real2sim"),
    "simpler_env": ("", "pip install -e SimplerEnv"),
    "msgpack": (">=1", "pip install msgpack"),
    "websockets": (">=15", "pip install 'websockets>=15'"),
}
_PATIENCE = 300.0


def findings(python: str | None = None) -> Iterator[Finding]:
    """Ask SIMPLER's Python what it has.

    Args:
        python: its path; that of ``SELFFLOW_SIMULATOR_PYTHON`` unless given.
    """
    python = python or os.environ.get(PYTHON)
    if not python:
        fix = f"name it by --simulator-python or {PYTHON}; docs/simpler.md says how it is made"
        yield Finding(_SIDE, "python", "not named", False, True, fix)
        return
    if shutil.which(python) is None:
        yield Finding(_SIDE, "python", f"{python} is no program", False, True, "name the Python that has SIMPLER")
        return
    told, died = _asked(python)
    if told is None:
        yield Finding(_SIDE, "python", f"{python} tells nothing: {died}", False, True, "see whether it runs by itself")
        return
    yield Finding(_SIDE, "python", f"{told['python']} ({python})", required=True)
    for name, (wanted, fix) in _NEEDED.items():
        yield _package(python, name, told["packages"][name], wanted, fix)
    yield from _rendering(told, died)
    yield from _assets(told)


def _asked(python: str) -> tuple[dict[str, Any] | None, str]:
    """What the probe told last, and how it ended where that was not well."""
    wanted: dict[str, Any] = {"scenes": [], "pictures": [], "overlays": ""}
    for trial in SUITES["all"]():
        arrangement = trial.arrangement
        if "dummy" not in arrangement.scene:  # made of boxes by SIMPLER itself
            wanted["scenes"].append(arrangement.scene)
        wanted["pictures"] += [arrangement.overlay] * bool(arrangement.overlay)
    wanted |= {name: sorted(set(wanted[name])) for name in ("scenes", "pictures")}
    try:
        done = subprocess.run(
            [python, probe.__file__, json.dumps(wanted)],
            capture_output=True, text=True, timeout=_PATIENCE, env={**os.environ, "DISPLAY": ""},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"python"')]
    last = next(reversed(done.stderr.strip().splitlines()), "")
    code = done.returncode
    died = "" if code == 0 else f"it ended by signal {-code}" if code < 0 else f"exit code {code}, {last}"
    return (json.loads(lines[-1]) if lines else None), died


def _package(python: str, name: str, found: dict[str, str], wanted: str, fix: str) -> Finding:
    fix = f"{python} -m {fix}"
    if "error" in found:
        return Finding(_SIDE, name, found["error"], False, True, fix)
    version = found["version"]
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding(_SIDE, name, f"{version}, and {wanted} is needed", False, True, fix)
    return Finding(_SIDE, name, version, required=True)


def _rendering(told: dict[str, Any], died: str) -> Iterator[Finding]:
    if told["renders"] is not None:
        yield Finding(_VULKAN, "SAPIEN", f"draws, by {told['renders']}", required=True)
        return
    if "error" in told["packages"]["sapien"]:
        return
    reason = told.get("renders_not") or died
    fix = "give it a Vulkan driver: docs/simpler.md tells of a GPU's, and of Mesa's on a CPU"
    yield Finding(_VULKAN, "SAPIEN", f"cannot draw: {reason}", False, True, fix)


def _assets(told: dict[str, Any]) -> Iterator[Finding]:
    if "error" in told["packages"]["mani_skill2_real2sim"]:
        return
    fix = "copy them from a complete clone of ManiSkill2_real2sim (its folder data)"
    for name, ending in (("stages", ".glb"), ("real pictures", ".png")):
        lacking = [path for path in told["missing"] if path.endswith(ending)]
        names = ", ".join(map(os.path.basename, lacking))
        if lacking:
            yield Finding(_ASSETS, name, f"not in {os.path.dirname(lacking[0])}: {names}", False, False, fix)
        else:
            yield Finding(_ASSETS, name, "of all suites are there", required=True)
