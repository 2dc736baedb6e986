"""Where a run's log goes to beside log.jsonl: TensorBoard, Weights & Biases, trackio.

A tracker is a convenience: one that fails in the middle (a network that is gone, a full disk) is switched off with a
warning, and the run goes on. log.jsonl has everything anyway.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError

#: Tracker -> what it is installed by. TensorBoard is used where it is there, and missed by nobody where it is not.
EXTRAS = {"wandb": "wandb", "trackio": "trackio"}


@dataclass(frozen=True)
class Beginning:
    """What a tracker is told at its start.

    Attributes:
        folder: the run's.
        project: the run's name is its folder's.
        config: every setting, nested.
        key: of the run in the tracker; the same when the run goes on.
        step: steps done; 0 for a new run.
        sent: up to which step the tracker has the log already; a run that was killed does some steps again.
    """

    folder: Path
    project: str
    config: Mapping[str, Any]
    key: str
    step: int = 0
    sent: int = 0


class Tracker(Protocol):
    """One place that a log goes to."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def media(self, step: int, files: Sequence[Path]) -> None:
        """Pictures (.png), clips (.mp4) and sounds (.wav), called by their names without the ending."""
        ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in ``RUN/tensorboard``. Clips are shown as film strips and sounds as spectrograms: more would ask for
    libraries that nothing else needs.

    Raises:
        ImportError: it is not installed.
    """

    def __init__(self, beginning: Beginning) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard hides what was logged from purge_step on, as the run folder's log forgets it.
        purge = beginning.step + 1 if beginning.step else None
        self._writer = SummaryWriter(str(beginning.folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def media(self, step: int, files: Sequence[Path]) -> None:
        import numpy as np

        from ..data.reading import read_media
        from ..evaluation.page import film_strip, spectrogram

        for file in files:
            media = read_media(file)
            pictures: dict[str, Any] = {}
            if media.image is not None:
                pictures["picture"] = media.image.pixels
            if media.video is not None:
                pictures["frames"] = film_strip(media.video).convert("RGB")
            if media.audio is not None:
                pictures["spectrogram"] = spectrogram(media.audio).convert("RGB")
            for kind, picture in pictures.items():
                pixels = np.asarray(picture)
                self._writer.add_image(f"samples/{file.stem}/{kind}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _LikeWandb:
    """What wandb and trackio have in common."""

    def __init__(self, library: Any, run: Any, sent: int) -> None:
        self._run, self._sent = run, sent
        self._kinds = {".png": library.Image, ".mp4": library.Video, ".wav": library.Audio}

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if step > self._sent:
            self._run.log(dict(scalars), step=step)

    def media(self, step: int, files: Sequence[Path]) -> None:
        if step > self._sent:
            self._run.log({f"samples/{f.stem}": self._kinds[f.suffix](str(f)) for f in files}, step=step)

    def close(self) -> None:
        self._run.finish()


class Wandb(_LikeWandb):
    """Weights & Biases; ``WANDB_MODE=offline`` and the other variables of its own hold. Its files lie in
    ``RUN/wandb``.
    """

    def __init__(self, beginning: Beginning) -> None:
        wandb = _library("wandb")
        run = wandb.init(
            project=beginning.project,
            name=beginning.folder.name,
            id=beginning.key,
            resume="allow",
            config=dict(beginning.config),
            dir=str(beginning.folder),
            settings=wandb.Settings(console="off"),  # the panel is no log
        )
        super().__init__(wandb, run, beginning.sent)


class Trackio(_LikeWandb):
    """trackio; where it keeps its files, or to which Space it sends them, its own variables say (``TRACKIO_DIR``)."""

    def __init__(self, beginning: Beginning) -> None:
        trackio = _library("trackio")
        run = trackio.init(
            project=beginning.project,
            name=beginning.folder.name,
            # A run is known by its name; a new one of a name that was used before must not go on with the old.
            resume="allow" if beginning.step else "never",
            config=dict(beginning.config),
            embed=False,
        )
        super().__init__(trackio, run, beginning.sent)


TRACKERS: dict[str, Callable[[Beginning], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


def require_trackers(names: Sequence[str]) -> None:
    """UserError where the library of one of ``names`` is not installed; says how to install it."""
    for name in names:
        if name in EXTRAS:
            _library(name)


class Trackers:
    """The trackers of a run, opened together; each may fail without harm to the others.

    Args:
        beginnings: tracker -> what it is told.
        warn: takes a sentence about one that is switched off.
    """

    def __init__(self, beginnings: Mapping[str, Beginning], warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for name, beginning in beginnings.items():
            try:
                self._open[name] = TRACKERS[name](beginning)
            except ImportError:  # only TensorBoard's, see require_trackers
                continue
            except Exception as error:
                self._off(name, error)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(step, scalars))

    def media(self, step: int, files: Sequence[Path]) -> None:
        self._each(lambda tracker: tracker.media(step, files))

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())
        self._open = {}

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                do(tracker)
            except Exception as error:  # whatever a tracker has against it, training goes on
                del self._open[name]
                self._off(name, error)

    def _off(self, name: str, error: Exception) -> None:
        said = str(error).strip().splitlines() or [""]
        self._warn(f"{name} is switched off from here on, log.jsonl goes on: {type(error).__name__}: {said[0]}")


def _library(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = None
    if not hasattr(module, "init"):  # a folder of that name (wandb makes one) is no library either
        extra = EXTRAS[name]
        raise UserError(
            f'run.trackers names {name}, which is not installed; pip install "selfflow-mm[{extra}]", or leave it out'
        )
    return module
