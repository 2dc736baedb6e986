"""The run folder: what a training run was asked to do, what it did, and where its results lie.

run.json            format, version, kind, seed, versions of the software, command, start, later resumptions
config.yaml         every effective setting
log.jsonl           one line of scalars per logged step
warnings.jsonl      what a run had to complain of, where it had
init.json           what the first weights were taken from, where the run was started from others
posthoc_ema/        snapshots of running averages, where they are kept; see posthoc_ema.py
tensorboard/        the same scalars, where TensorBoard is installed; wandb/ where that tracks the run
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
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import dump_yaml, flatten, from_dict, to_dict
from ..config_yaml import parse_yaml
from ..errors import UserError
from .trackers import Beginning, Trackers, require_trackers

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
        trackers: what else the log goes to, see :mod:`.trackers`.
        project: of the run in wandb and trackio.

    Attributes:
        path: the folder.
        changed: dotted keys whose values differ from those of the run being resumed.
        tell: who is told of warnings; prints them unless set.

    Raises:
        UserError: when a run would be overwritten, or there is none to resume, or it is another kind of run, or a
            tracker is not installed.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        config: object,
        seed: int,
        kind: str,
        resume: bool = False,
        trackers: Sequence[str] = ("tensorboard",),
        project: str = "selfflow-mm",
    ) -> None:
        require_trackers(trackers)
        self.path = Path(path)
        self.changed: tuple[str, ...] = ()
        self.tell: Callable[[str], None] = _print
        self._trackers: Trackers | None = None
        self._tracked, self._project, self._config, self._step = tuple(trackers), project, config, 0
        if resume:
            record = self._open(config, seed, kind)
        else:
            record = self._create(seed, kind)
        for name in trackers:
            if name != "tensorboard":  # known there by a key of its own, under which the run also goes on
                record.setdefault("trackers", {}).setdefault(name, {"key": uuid.uuid4().hex[:8]})
        self._record = record
        _write_atomic(self.path / "config.yaml", dump_yaml(config))
        _write_atomic(self.path / "run.json", json.dumps(record, indent=1) + "\n")
        self._log, self._warnings = self.path / "log.jsonl", self.path / "warnings.jsonl"
        self._causes = {line["cause"] for line in _lines(self._warnings)}
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
        """Append one line of scalars to log.jsonl (and to the trackers); numbers that are not finite become text."""
        values = {name: _scalar(value) for name, value in scalars.items()}
        line: dict[str, Any] = {"step": step, **{n: v if math.isfinite(v) else str(v) for n, v in values.items()}}
        line.setdefault("seconds", round(time.monotonic() - self._started, 3))
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._all_trackers().log(step, values)
        self._step = step

    def warn(self, step: int, text: str, cause: str = "") -> None:
        """Keep a warning in warnings.jsonl and tell it, once for each ``cause`` (the text unless given)."""
        cause = cause or text
        if cause in self._causes:
            return
        self._causes.add(cause)
        with open(self._warnings, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "cause": cause, "warning": text}) + "\n")
        self.tell(f"warning: {text}")

    def track_samples(self, step: int) -> None:
        """Send the pictures, clips and sounds in :meth:`samples_dir` to the trackers."""
        files = [f for f in sorted(self.samples_dir(step).iterdir()) if f.suffix in (".png", ".mp4", ".wav")]
        if files:
            self._all_trackers().media(step, files)

    def truncate_log(self, step: int) -> None:
        """On resume: drop the lines of steps after ``step``, and a last line that was cut by a kill."""
        lines = read_log(self._log, numbers=False)
        sent = lines[-1]["step"] if lines else 0
        for known in self._record.get("trackers", {}).values():
            # What wandb and trackio were sent cannot be taken back: those steps are not sent again.
            known["sent"] = max(known.get("sent", 0), sent) if "sent" in known else 0
        for file, kept in ((self._log, lines), (self._warnings, _lines(self._warnings))):
            if file.exists():
                _write_atomic(file, "".join(json.dumps(line) + "\n" for line in kept if line["step"] <= step))
        self._causes = {line["cause"] for line in _lines(self._warnings)}
        self._started = time.monotonic() - _last_seconds(self._log)
        self._step = step
        self.write("run.json", self._record)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` as JSON into the run's folder."""
        _write_atomic(self.path / name, json.dumps(content, indent=1) + "\n")

    def open_trackers(self) -> None:
        """Start the trackers now, with the config, and not with the first line."""
        self._all_trackers()

    def close(self) -> None:
        """End the trackers; ``log`` may still be called and opens them again."""
        if self._trackers:
            self._trackers.close()
        self._trackers = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all_trackers(self) -> Trackers:
        if self._trackers is None:
            known = self._record.get("trackers", {})
            step, config = self._step, to_dict(self._config)

            def beginning(name: str) -> Beginning:
                own = known.get(name, {})
                return Beginning(self.path, self._project, config, own.get("key", ""), step, own.get("sent", 0))

            beginnings = {name: beginning(name) for name in self._tracked}
            self._trackers = Trackers(beginnings, lambda text: self.warn(self._step, text))
        return self._trackers


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
    lines = _lines(path / "log.jsonl" if path.is_dir() else path)
    if not numbers:
        return lines
    return [{k: float(v) if isinstance(v, str) else v for k, v in line.items()} for line in lines]


def read_warnings(path: Path | str) -> list[dict[str, Any]]:
    """The warnings of a run folder, each with ``step``, ``cause`` and ``warning``."""
    return _lines(Path(path) / "warnings.jsonl")


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


def _lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; none where there is no file, and without a last one that was cut by a kill."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    rows = path.read_text(encoding="utf-8").split("\n")
    for number, row in enumerate(rows[:-1], 1):  # what follows the last newline is empty or cut
        try:
            lines.append(json.loads(row))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from error
    return lines


def _print(text: str) -> None:
    print(text, file=sys.stderr)


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
