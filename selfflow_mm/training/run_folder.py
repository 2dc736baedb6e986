"""The run folder: what a training run was asked to do, what it did, and where its results lie.

run.json            format, version, kind, seed, versions of the software, command, start, later resumptions
config.yaml         every effective setting
log.jsonl           one line of scalars per logged step
init.json           what the first weights were taken from, where the run was started from others
posthoc_ema/        snapshots of running averages, where they are kept; see posthoc_ema.py
tensorboard/        the same scalars, where TensorBoard is installed
checkpoints/        see weights/checkpoints.py
samples/step-000123/
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import dump_yaml, flatten, from_dict, to_dict
from ..config_yaml import parse_yaml
from ..errors import UserError

FORMAT = "selfflow-run"
VERSION = 1
_SOFTWARE = ("selfflow-mm", "torch", "torchaudio", "numpy", "av", "safetensors", "transformers", "webdataset")


class RunFolder:
    """A run's folder, made at its start or opened again to resume it.

    Args:
        path: the folder; made if missing.
        config: the resolved configuration, a dataclass of ``selfflow_mm.config``.
        seed: the run's seed.
        kind: what is trained: ``transformer``, ``video-tokenizer``, ...
        resume: open a folder that holds a run of the same kind and seed; otherwise such a folder is refused.

    Attributes:
        path: the folder.
        changed: dotted keys whose values differ from those of the run being resumed.

    Raises:
        UserError: when a run would be overwritten, or there is none to resume, or it is another kind of run.
    """

    def __init__(self, path: Path | str, *, config: object, seed: int, kind: str, resume: bool = False) -> None:
        self.path = Path(path)
        self.changed: tuple[str, ...] = ()
        self._writer: Any = None
        self._purge_step: int | None = None
        if resume:
            record = self._open(config, seed, kind)
        else:
            record = self._create(seed, kind)
        _write_atomic(self.path / "config.yaml", dump_yaml(config))
        _write_atomic(self.path / "run.json", json.dumps(record, indent=1) + "\n")
        self._log = self.path / "log.jsonl"
        # Seconds count the time the run was at work, without the pauses between being stopped and resumed.
        self._started = time.monotonic() - _last_seconds(self._log)

    def _create(self, seed: int, kind: str) -> dict[str, Any]:
        refuse_taken(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        started = {"command": _command(), "started": _now(), "versions": software_versions()}
        return {"format": FORMAT, "version": VERSION, "kind": kind, "seed": seed, **started}

    def _open(self, config: object, seed: int, kind: str) -> dict[str, Any]:
        record = read_run(self.path)
        for name, given in (("kind", kind), ("seed", seed)):
            if record[name] != given:
                raise UserError(f"{self.path} holds a run with {name} {record[name]}, so it cannot go on with {given}")
        before = flatten(_as_read_now(self.path / "config.yaml", type(config)))
        after = flatten(to_dict(config))
        differing = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        self.changed = tuple(sorted(differing))
        again = {"command": _command(), "started": _now(), "versions": software_versions()}
        changes = {k: [before.get(k), after.get(k)] for k in self.changed}
        record.setdefault("resumed", []).append({**again, "changed": changes})
        return record

    @property
    def checkpoints(self) -> Path:
        """Where this run's checkpoints lie."""
        return self.path / "checkpoints"

    def samples_dir(self, step: int) -> Path:
        """The folder for samples made at ``step``; made if missing."""
        folder = self.path / "samples" / f"step-{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, step: int, **scalars: Any) -> None:
        """Append one line of scalars to log.jsonl (and TensorBoard); numbers that are not finite become text."""
        values = {name: _scalar(value) for name, value in scalars.items()}
        line: dict[str, Any] = {"step": step, **{n: v if math.isfinite(v) else str(v) for n, v in values.items()}}
        line.setdefault("seconds", round(time.monotonic() - self._started, 3))
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        writer = self._tensorboard()
        if writer is not None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

    def truncate_log(self, step: int) -> None:
        """On resume: drop the lines of steps after ``step``, and a last line that was cut by a kill."""
        if self._log.exists():
            kept = [line for line in read_log(self._log, numbers=False) if line["step"] <= step]
            _write_atomic(self._log, "".join(json.dumps(line) + "\n" for line in kept))
        self._started = time.monotonic() - _last_seconds(self._log)
        self._purge_step = step + 1

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` as JSON into the run's folder."""
        _write_atomic(self.path / name, json.dumps(content, indent=1) + "\n")

    def close(self) -> None:
        """Flush TensorBoard's file; ``log`` may still be called and opens a new one."""
        if self._writer:
            self._writer.close()
        self._writer = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tensorboard(self) -> Any:
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._writer = False
            else:
                # TensorBoard hides what was logged from purge_step on, as truncate_log does for the JSON lines.
                self._writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._purge_step)
                self._purge_step = None
        return self._writer or None


def refuse_taken(path: Path) -> None:
    """UserError when a new run in folder ``path`` would overwrite something."""
    taken = [n for n in ("run.json", "config.yaml", "log.jsonl", "checkpoints") if (path / n).exists()]
    if "run.json" in taken:
        raise UserError(f"{path} already holds a run; add --resume to continue it, or give another folder")
    if taken:
        raise UserError(f"{path} already holds {taken[0]}, which a run would overwrite; give another folder")


def read_run(path: Path | str) -> dict[str, Any]:
    """A run folder's run.json, checked; UserError when there is none or its version is unknown."""
    file = Path(path) / "run.json"
    if not file.is_file():
        raise UserError(f"{path} holds no run (there is no run.json); start one without --resume, or check the folder")
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is broken: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{file} does not describe a run: its format is not '{FORMAT}'")
    if record.get("version") != VERSION:
        version = record.get("version")
        raise UserError(f"{file}: a run of version {version} cannot be read; this release reads {VERSION}")
    return record


def read_log(path: Path | str, *, numbers: bool = True) -> list[dict[str, Any]]:
    """The lines of a log.jsonl (or of a run folder's); with ``numbers``, 'nan' and 'inf' come back as floats.

    A last line cut by a kill is left out.
    """
    path = Path(path)
    path = path / "log.jsonl" if path.is_dir() else path
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    rows = path.read_text(encoding="utf-8").split("\n")
    for number, row in enumerate(rows[:-1], 1):  # what follows the last newline is empty or cut
        try:
            line = json.loads(row)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from error
        if numbers:
            line = {k: float(v) if isinstance(v, str) else v for k, v in line.items()}
        lines.append(line)
    return lines


def software_versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that results depend on."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _SOFTWARE:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _as_read_now(file: Path, cls: type) -> dict[str, Any]:
    """A saved config, with settings that did not exist when it was written at their defaults: those are no change."""
    saved = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    try:
        return to_dict(from_dict(cls, saved, str(file)))
    except UserError:  # settings that are no more: then the plain text is what there is to compare with
        return saved


def _scalar(value: Any) -> float | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return float(value)


def _last_seconds(log: Path) -> float:
    lines: list[Mapping[str, Any]] = list(read_log(log))
    return float(lines[-1].get("seconds", 0.0)) if lines else 0.0


def _command() -> str:
    """What was typed, without the place the program happens to be installed at."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_atomic(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
