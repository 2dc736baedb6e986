"""The parts of a conversion under way, in ``.parts`` of its folder: what they belong to, which are done, and their way
to the final place. Every step may be cut off by a kill and done again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError

from .stream import Quarantined

__all__ = ["PARTS", "PartRecord", "PartsFolder", "quarantine_lines"]

PARTS = ".parts"
_PLAN = "plan.json"
_OURS = re.compile(r"part-\d{6}(\.writing-\d+)?|plan\.json(\.new)?|lock|tally|joined|placing|old")
#: What makes a folder a data set; placed after everything else.
_DESCRIPTIONS = ("meta", "dataset_info.json")


@dataclass(frozen=True)
class PartRecord:
    """A part that is done: its folder with the data set in it, and what went into it.

    Attributes:
        data: a data set of its own, only while the parts are not joined; not there if ``episodes`` is 0.
        chosen: episodes that were to be read.
        episodes, steps: what was written.
        quarantine: what could not be read.
    """

    data: Path
    chosen: int
    episodes: int
    steps: int
    quarantine: tuple[Quarantined, ...]


class PartsFolder:
    """``.parts`` in the folder ``target`` of a data set to be."""

    def __init__(self, target: Path) -> None:
        self.target, self.folder = target, target / PARTS
        self.joined, self._placing, self._old = (self.folder / name for name in ("joined", "placing", "old"))

    @property
    def placing(self) -> bool:
        """Whether everything was joined and is on its way to the final place."""
        return self._placing.is_dir()

    @contextlib.contextmanager
    def opened(self, plan: Mapping[str, Any], overwrite: bool, check: Callable[[], object]) -> Iterator[None]:
        """Begin, or go on with what a run of the same plan left. An exception keeps the parts that are done.

        Args:
            plan: everything the parts depend on, JSON by the words that tell a user what differs.
            overwrite: another plan's parts are thrown away.
            check: raises where the data set must not be written; called only when nothing has begun.

        Raises:
            UserError: another plan without ``overwrite``, or another process at work in the folder.
        """
        plan = json.loads(json.dumps(plan))
        if self._plan() is None:
            check()
        made = not self.target.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            old = self._plan()
            if old is not None and old != plan:
                if not overwrite:
                    raise UserError(
                        f"{self.target} holds the parts of another conversion ({_difference(old, plan)}); repeat that "
                        "one to finish it, or start anew with --overwrite"
                    )
                self._settle()
                check()
            if old != plan:
                self._clear()
                (self.folder / f"{_PLAN}.new").write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
                os.replace(self.folder / f"{_PLAN}.new", self.folder / _PLAN)
            self._remove_begun()
            try:
                yield
            except BaseException:
                self._remove_begun()
                if not any(_OURS.fullmatch(path.name) for path in self.folder.glob("part-*")) and not self.placing:
                    self.discard()
                    if made and not any(self.target.iterdir()):
                        self.target.rmdir()
                raise

    def begun(self, number: int) -> Path:
        """Where this process works on a part until it is whole."""
        return self.folder / f"part-{number:06d}.writing-{os.getpid()}"

    def finish(self, number: int, record: Mapping[str, Any]) -> None:
        """The part in ``begun(number)`` is whole."""
        (self.begun(number) / "part.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        self.begun(number).rename(self._done(number))

    def record(self, number: int) -> PartRecord | None:
        """The part, None if it is not done."""
        folder = self._done(number)
        if not folder.is_dir():
            return None
        content = json.loads((folder / "part.json").read_text(encoding="utf-8"))
        quarantine = tuple(Quarantined(**entry) for entry in content.pop("quarantine"))
        return PartRecord(folder / "data", quarantine=quarantine, **content)

    def tally(self) -> None:
        """Count one episode; any process may."""
        with open(self.folder / "tally", "ab", buffering=0) as file:
            file.write(b".")

    @contextlib.contextmanager
    def progress(self, total: int, done: int, show: bool) -> Iterator[None]:
        """A bar of ``total`` episodes over all processes' ``tally``; ``done`` were there before."""
        from tqdm import tqdm

        tally = self.folder / "tally"
        tally.write_bytes(b"")
        over = threading.Event()
        with tqdm(total=total, initial=done, unit="episode", disable=not show) as bar:

            def follow() -> None:
                last = False
                while not last:
                    last = over.wait(0.2)
                    bar.update(min(done + tally.stat().st_size, total) - bar.n)

            thread = threading.Thread(target=follow, daemon=True)
            if show:
                thread.start()
            try:
                yield
            finally:
                over.set()
                if show:
                    thread.join()

    def place(self, replaced: Iterable[str], check: Callable[[], object]) -> None:
        """Move what lies in ``joined`` into the data set's folder, its description last, and remove the parts.

        Args:
            replaced: names in the folder that make way.
            check: raises where somebody has put another data set there meanwhile.
        """
        if not self.placing:
            if not self._old.exists():
                check()
                self._old.mkdir()
            for name in replaced:
                if (self.target / name).exists():
                    (self.target / name).rename(self._old / name)
            self.joined.rename(self._placing)
        self._put()
        self.discard()

    def discard(self) -> None:
        """Remove everything, the plan first: without it the rest is known for scrap."""
        (self.folder / _PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _done(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}"

    def _plan(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise UserError(f"{self.target} is a file; a data set is a folder") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / _PLAN} cannot be read ({error}); remove {self.folder}") from error

    def _put(self) -> None:
        for path in sorted(self._placing.iterdir(), key=lambda path: (path.name in _DESCRIPTIONS, path.name)):
            os.replace(path, self.target / path.name)

    def _settle(self) -> None:
        """Before another conversion's parts go: a data set that it was about to put in place or to replace is kept."""
        if self.placing:
            self._put()
        elif self._old.is_dir():
            for path in self._old.iterdir():
                path.rename(self.target / path.name)

    def _clear(self) -> None:
        foreign = sorted(path.name for path in self.folder.iterdir() if not _OURS.fullmatch(path.name))
        if foreign:
            raise UserError(f"{self.folder} holds '{foreign[0]}', which no conversion has put there; remove it first")
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def _remove_begun(self) -> None:
        """What killed processes left."""
        for path in self.folder.glob("part-*.writing-*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Only one process converts into a folder; the lock goes with the process, however it ends."""
        with open(self.folder / "lock", "ab") as file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another process is converting into {self.target} now") from error
            except (ImportError, OSError):
                pass  # a system or a file system without locks
            yield


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs first, in words."""
    name = next(name for name in (*new, *old) if old.get(name) != new.get(name))
    if isinstance(new.get(name), dict):
        return f"{name}: others than then"
    before, now = (json.dumps(plan.get(name), ensure_ascii=False) for plan in (old, new))
    return f"{name}: {before} then, {now} now"


def quarantine_lines(entries: Iterable[Quarantined]) -> str:
    """The content of ``quarantine.jsonl``."""
    return "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
