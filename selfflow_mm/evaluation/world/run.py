"""An evaluation from beginning to end: clips, rows, table and page, and going on where an earlier call stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.data.world.clip import make_clip
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_tokenizers.media import Audio, Video

from .measure import Row, hear, measure_clip
from .memorisation import TrainingClips
from .reader import Reader
from .report import write_report
from .sources import ClipFile, coded_clips, folder_clips, generate, give_sound, real_clips, untrained
from .summary import Table, as_json, summarise

GENERATED, GIVEN, REAL, CODED, UNTRAINED = "generated", "given", "real", "real, coded", "untrained"
SHUFFLED = "shuffled sound"
#: Real pictures with a sound that was made for them, and with one that was made for another.
SOUNDED, SOUNDED_SHUFFLED = "sound for real pictures", "shuffled, sound for real pictures"


@dataclass(frozen=True)
class WorldPlan:
    """What to evaluate.

    Attributes:
        out: folder of results; one with those of the same plan is gone on with.
        model: bundled model, pipeline folder or run folder that makes the clips, or None.
        media: folder of somebody's clips with ``captions.json`` in place of a model, or None.
        tokenizers: model whose tokenizers real clips go through (``model``'s unless named), or None.
        n: clips.
        untrained: clips of a model that has learned nothing.
        sounded: real clips for whose picture the model makes a sound.
        seed: of the noise.
        device: where the model runs.
        train: shards that the model was trained on, for memorisation; None takes clips of the train split of the world
            ``seed 0``.
        train_clips: how many of them, evenly spread.
    """

    out: Path
    model: str | None = None
    media: Path | None = None
    tokenizers: str | None = None
    n: int = 500
    untrained: int = 50
    sounded: int = 100
    seed: int = 0
    device: str = "cpu"
    train: str | None = None
    train_clips: int = 1000

    def __post_init__(self) -> None:
        if self.model and self.media:
            raise UserError("give --model, whose clips are made, or --media, which are there, and not both")
        if self.n < 2 or min(self.untrained, self.train_clips) < 0:
            raise UserError(f"an evaluation needs at least 2 clips, got --n {self.n}, and no other number is negative")
        if self.sounded < 0 or self.sounded == 1:
            raise UserError(f"--sounded is 0, or at least 2 clips whose sounds can be exchanged; got {self.sounded}")


def evaluate(plan: WorldPlan) -> Table:
    """Measure, and write ``results.jsonl``, ``summary.json`` and ``report.html``.

    Raises:
        UserError: the folder holds something else, or a source cannot be read.
    """
    given = folder_clips(plan.media, plan.n) if plan.media else []
    reader = Reader.load()
    pipeline = Pipeline.from_pretrained(plan.model) if plan.model else None
    coder = Pipeline.from_pretrained(plan.tokenizers) if plan.tokenizers else pipeline
    if pipeline is not None:
        pipeline.model.to(plan.device)
    _take(plan)
    rows = _Rows(plan.out / "results.jsonl", reader, plan)
    keys = [str(i) for i in range(plan.n)]
    if pipeline is not None:
        generate(pipeline, plan.out / GENERATED, plan.n, plan.seed)
        rows.add(GENERATED, folder_clips(plan.out / GENERATED, plan.n))
    if given:
        rows.add(GIVEN, given)
    rows.add(REAL, real_clips(rows.missing(REAL, keys)), plan.n)
    if coder is not None:
        rows.add(CODED, coded_clips(rows.missing(CODED, keys), coder.tokenizers), plan.n)
    if pipeline is not None and plan.sounded:
        give_sound(pipeline, plan.out / SOUNDED, plan.sounded, plan.seed)
        rows.add(SOUNDED, folder_clips(plan.out / SOUNDED, plan.sounded))
    if pipeline is not None and plan.untrained:
        generate(untrained(pipeline, plan.seed), plan.out / UNTRAINED, plan.untrained, plan.seed)
        rows.add(UNTRAINED, folder_clips(plan.out / UNTRAINED, plan.untrained))
    sets = rows.sets(GENERATED if pipeline else GIVEN if given else REAL)
    table = summarise(sets)
    novelties = {name: as_json(summarise(group)) for name, group in _by_novelty(sets).items()}
    summary = {"plan": _record(plan), "table": as_json(table), "by what is held out": novelties}
    _write_json(plan.out / "summary.json", summary)
    files = {name: plan.out / name for name in (GENERATED, SOUNDED, UNTRAINED)} | (
        {GIVEN: plan.media} if plan.media else {}
    )
    write_report(plan.out, plan.model or str(plan.media or "real clips"), table, sets, files)
    return table


class _Rows:
    """The rows of all sets, each written as soon as it is measured."""

    def __init__(self, path: Path, reader: Reader, plan: WorldPlan) -> None:
        self._path, self._reader, self._plan = path, reader, plan
        self._rows: dict[str, dict[str, Row]] = {}
        self._training: TrainingClips | None = None
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith("\n"):  # of a call that was killed; its clip is measured again
            del lines[-1]
            _place(path, "".join(lines))
        for row in map(json.loads, lines):
            self._rows.setdefault(row["set"], {})[row["key"]] = row

    def missing(self, name: str, keys: Iterable[str]) -> list[str]:
        done = self._rows.get(name, {})
        return [key for key in keys if key not in done]

    def add(self, name: str, clips: Iterable[ClipFile], total: int | None = None) -> None:
        """Measure the clips that have no row yet."""
        done = self._rows.setdefault(name, {})
        total = len(clips) if isinstance(clips, list) else total
        with open(self._path, "a", encoding="utf-8") as file:
            for clip in tqdm(clips, desc=f"measuring {name}", unit="clip", total=total):
                if clip.key not in done:
                    row = {"set": name, "key": clip.key, "novelty": clip.novelty} | self._measure(clip)
                    done[clip.key] = row
                    file.write(json.dumps(row) + "\n")
                    file.flush()

    def sets(self, shuffle: str) -> dict[str, list[Row]]:
        """Rows of each set in the order of the table; ``shuffle`` names the one whose sounds are exchanged as well."""
        order = (GENERATED, GIVEN, REAL, CODED)
        found = {name: list(self._rows[name].values()) for name in order if self._rows.get(name)}
        found[SHUFFLED] = shuffled(found[shuffle])
        if self._rows.get(SOUNDED):
            found[SOUNDED] = list(self._rows[SOUNDED].values())
            found[SOUNDED_SHUFFLED] = shuffled(found[SOUNDED])
        if self._rows.get(UNTRAINED):
            found[UNTRAINED] = list(self._rows[UNTRAINED].values())
        return found

    def _measure(self, clip: ClipFile) -> Row:
        video, audio = clip.read()
        row = measure_clip(self._reader, clip.caption, video, audio)
        if self._plan.train_clips:
            if self._training is None:
                self._training = TrainingClips(_training_clips(self._plan))
            nearest = self._training.nearest(video, audio)
            row |= {"nearest picture": round(nearest.picture, 4), "nearest sound": round(nearest.sound, 4)}
        return row


def shuffled(rows: list[Row], fps: float = 16.0) -> list[Row]:
    """The same pictures, each with the onsets of the next clip: what sync is by chance."""
    pairs = zip(rows, rows[1:] + rows[:1], strict=True)
    mixed = [row | {"onsets": other["onsets"]} for row, other in pairs]
    return [row | hear(row, None, fps) for row in mixed]


def _by_novelty(sets: dict[str, list[Row]]) -> dict[str, dict[str, list[Row]]]:
    """What is held out -> the sets that follow the test split's captions, of these clips alone."""
    novelty = {int(row["key"]): row["novelty"] for row in sets[REAL]}
    found: dict[str, dict[str, list[Row]]] = {}
    for name in (GENERATED, REAL, CODED):
        for row in sets.get(name, ()):
            group = found.setdefault(novelty[int(row["key"].removesuffix(".mp4"))], {})
            group.setdefault(name, []).append(row)
    return found


def _training_clips(plan: WorldPlan) -> Iterator[tuple[Video, Audio]]:
    if plan.train is None:
        for index in tqdm(range(plan.train_clips), desc="training clips", unit="clip"):
            clip = make_clip(0, index, "train")
            yield clip.video, clip.audio
        return
    data = ShardDataset(plan.train)
    count = min(plan.train_clips, len(data))
    for i in tqdm(range(count), desc="training clips", unit="clip"):
        sample = data[i * len(data) // count]
        if sample.video is not None and sample.audio is not None:
            yield sample.video, sample.audio


def _take(plan: WorldPlan) -> None:
    """A new folder, or one of the same plan."""
    file = plan.out / "plan.json"
    if file.is_file():
        if json.loads(file.read_text(encoding="utf-8")) != _record(plan):
            raise UserError(f"{plan.out} holds an evaluation with other settings (plan.json); give another --out")
        return
    if plan.out.exists() and (not plan.out.is_dir() or any(plan.out.iterdir())):
        raise UserError(f"{plan.out} exists and holds something else than an evaluation; give another --out")
    plan.out.mkdir(parents=True, exist_ok=True)
    _write_json(file, _record(plan))


def _record(plan: WorldPlan) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(plan).items() if name != "out"
    }


def _write_json(path: Path, content: Any) -> None:
    _place(path, json.dumps(content, indent=1) + "\n")


def _place(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
