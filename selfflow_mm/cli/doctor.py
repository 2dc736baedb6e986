"""``selfflow-mm doctor``: what is installed, which devices there are, what is missing and the command that adds it."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata as metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

HELP = "show what is installed, which devices there are, and what is missing"
EXAMPLES = """\
examples:
  selfflow-mm doctor
  selfflow-mm doctor --json > doctor.json     for a bug report
  selfflow-mm doctor simpler --simulator-python simpler/bin/python

With the name of something that lives beside this project (simpler), what that needs. The exit code is 1 when something
that is required is missing, else 0.
"""

DISTRIBUTION = "selfflow-mm"
#: Entry points: what they are called in ``doctor WHAT`` -> ``findings(python) -> findings``.
GROUP = "selfflow_mm.doctor"
_REINSTALL = "pip install --force-reinstall --no-deps .    (in a clone of the repository)"
_MARKS = {True: "ok     ", False: "MISSING"}


@dataclass(frozen=True)
class Finding:
    """One fact: ``ok`` is False where something is missing; ``fix`` is the command (or step) that adds it."""

    section: str
    name: str
    detail: str
    ok: bool = True
    required: bool = False
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="WHAT", help="simpler; this project itself unless named")
    parser.add_argument("--simulator-python", metavar="PATH", help="of simpler: the Python that has it")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    if args.what is None:
        findings = [*packages(), *devices(), *media_support(), *weights()]
    else:
        findings = list(_beside(args.what)(args.simulator_python))
    broken = [f for f in findings if f.required and not f.ok]
    if args.json:
        print(json.dumps({"ok": not broken, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        print(report(findings))
    return 1 if broken else 0


def _beside(what: str) -> Callable[[str | None], Iterable[Finding]]:
    """Who looks at something that lives beside this project: entry points of the group :data:`GROUP`."""
    known = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    if what not in known:
        raise UserError(f"doctor does not know '{what}'; it knows {', '.join(sorted(known)) or 'nothing but itself'}")
    return known[what].load()


def report(findings: list[Finding]) -> str:
    """The findings in sections, and under them what to do."""
    lines: list[str] = []
    for section in dict.fromkeys(f.section for f in findings):
        lines += ["", section]
        for f in findings:
            if f.section == section:
                mark = _MARKS[f.ok] if f.ok or f.required else "absent "
                lines.append(f"  {mark}  {f.name:<16} {f.detail}".rstrip())
    missing = [f for f in findings if not f.ok]
    if missing:
        lines += ["", "To add what is missing:"]
        for fix in dict.fromkeys(f.fix for f in missing if f.fix):
            names = ", ".join(f.name for f in missing if f.fix == fix)
            needed = any(f.required for f in missing if f.fix == fix)
            lines.append(f"  {fix}    # {names} ({'required' if needed else 'optional'})")
    if not any(f.required and not f.ok for f in findings):
        lines += ["", "Everything that is required is there."]
    return "\n".join(lines[1:])


def packages() -> Iterator[Finding]:
    """Python, this package, and every package it names, required or in an extra."""
    from packaging.requirements import Requirement

    yield Finding("Software", "python", f"{platform.python_version()} ({sys.executable})", required=True)
    try:
        requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
        yield Finding("Software", DISTRIBUTION, metadata.version(DISTRIBUTION), required=True)
    except metadata.PackageNotFoundError:
        yield Finding("Software", DISTRIBUTION, "runs from source, not installed", False, True, "pip install .")
        return
    seen: set[str] = set()
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for extra in ["", *extras]:
        for requirement in requirements:
            if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
                continue
            seen.add(requirement.name)
            yield _package(requirement, extra)


def _package(requirement: Requirement, extra: str) -> Finding:
    name, wanted = requirement.name, str(requirement.specifier)
    fix = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install '{name}{wanted}'"
    purpose = f"for {extra}" if extra else ""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding("Software", name, purpose, False, not extra, fix)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding("Software", name, f"{version} is too old, {wanted} is needed", False, not extra, fix)
    return Finding("Software", name, version, required=not extra)


def devices() -> Iterator[Finding]:
    """What torch can compute on, and whether bfloat16 is fast there."""
    try:
        import torch
    except ImportError as error:
        fix = "pip install --force-reinstall torch"
        yield Finding("Devices", "torch", f"cannot be imported: {error}", False, True, fix)
        return
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    bf16 = "bfloat16 in hardware" if supported is not None and supported() else "no bfloat16 in hardware"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("Devices", "cpu", f"{cores} cores, {torch.get_num_threads()} threads, {bf16}", required=True)
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
            yield Finding("Devices", f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {bf16}")
    elif Path("/proc/driver/nvidia").exists() and torch.version.cuda is None:
        fix = "pip install --force-reinstall torch --index-url https://pypi.org/simple"
        yield Finding("Devices", "cuda", "an NVIDIA GPU, but this torch is built for the CPU", False, False, fix)
    else:
        yield Finding("Devices", "cuda", "none (models run on the CPU, slower)")
    if torch.backends.mps.is_available():
        yield Finding("Devices", "mps", "Apple GPU")


def media_support() -> Iterator[Finding]:
    """Readers and writers of media."""
    try:
        import av
        from av.codec import Codec
    except ImportError as error:
        yield Finding("Media", "PyAV", f"cannot be imported: {error}", False, True, "pip install --force-reinstall av")
        return
    library = ".".join(map(str, av.library_versions["libavcodec"]))
    yield Finding("Media", "PyAV", f"reads and writes media; FFmpeg's libavcodec {library}", required=True)
    for name, purpose in (("libx264", "writes H.264 video"), ("aac", "writes AAC sound")):
        try:
            Codec(name, "w")
            yield Finding("Media", name, purpose, required=True)
        except ValueError:  # av.codec.codec.UnknownCodecError
            fix = "pip install --force-reinstall --only-binary av av"
            yield Finding("Media", name, f"{purpose}; this FFmpeg was built without it", False, True, fix)
    yield _imports("decord", "a second video reader; PyAV reads everything without it")
    yield _imports("torchaudio", "sound transforms; everything here works without it")


def _imports(name: str, purpose: str) -> Finding:
    """Whether a package with compiled parts really works here; it is used where it does, and not needed."""
    try:
        if name == "torchaudio":  # its extension may want CUDA; its Python parts, which are all we use, do without
            from selfflow_tokenizers import ensure_torchaudio

            ensure_torchaudio()
        importlib.import_module(name)
    except Exception as error:  # a compiled extension can fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Finding("Media", name, f"{purpose} (does not work here: {reason})", False, False, f"pip install {name}")
    return Finding("Media", name, purpose)


def weights() -> Iterator[Finding]:
    """The weights that ship with the package."""
    folder = Path(__file__).parents[1] / "weights"
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        checkout = (folder.parents[1] / "pyproject.toml").exists()
        fix = f"git -C {folder.parents[1]} checkout -- selfflow_mm/weights" if checkout else _REINSTALL
        yield Finding("Bundled weights", "weights", f"none in {folder}", False, True, fix)
    for file in files:
        name = file.relative_to(folder).parent.as_posix()
        yield Finding("Bundled weights", name, f"{file.stat().st_size / 1e6:.1f} MB", required=True)
