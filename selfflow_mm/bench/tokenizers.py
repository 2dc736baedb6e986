"""Tokenizers side by side: how close their reconstructions are, what their latents are like, speed and memory."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from selfflow_tokenizers.media import Audio, Image, Media, Video

from ..errors import UserError
from ..evaluation.contestants import Contestant, load_contestant
from ..evaluation.intervals import Mean, mean_with_interval
from ..evaluation.media_set import MediaSet, Named
from ..evaluation.moments import Moments, MomentsOf
from ..evaluation.scores import SCORES, scores_of
from ..training.parts import pick_device
from ..training.run_folder import software_versions
from .report import machine
from .tokenizer_child import Request, Speed, measure_in_child

FORMAT, VERSION = "selfflow-tokenizer-comparison", 1


@dataclass(frozen=True)
class TokenizerPlan:
    """Settings of ``evaluate-tokenizer``.

    Attributes:
        tokenizers: names, see :func:`load_contestant`.
        data: sources, see :class:`MediaSet`.
        split: ``all`` or ``run:FOLDER``, see :class:`MediaSet`.
        max_samples: at most so many samples, evenly spread; 0 takes all.
        batch: samples encoded at once, and timed at once.
        device: ``auto`` (CUDA, else MPS, else CPU), or a torch device.
        threads: CPU threads; 0 leaves torch's choice.
        rounds: timed calls, after one to warm up.
        seed: of the intervals' bootstrap and of Griffin-Lim's phases.
        shown: samples on the page, with every reconstruction.
        download: fetch tokenizers from the hub where they are not here.
    """

    tokenizers: tuple[str, ...]
    data: tuple[str, ...]
    split: str = "all"
    max_samples: int = 0
    batch: int = 8
    device: str = "auto"
    threads: int = 0
    rounds: int = 5
    seed: int = 0
    shown: int = 8
    download: bool = False

    def __post_init__(self) -> None:
        if not self.tokenizers:
            raise UserError("name at least one tokenizer to evaluate")
        twice = next((t for t in self.tokenizers if self.tokenizers.count(t) > 1), None)
        if twice:
            raise UserError(f"'{twice}' is named twice")
        if min(self.batch, self.rounds) < 1 or min(self.max_samples, self.threads, self.shown) < 0:
            raise UserError("batch and rounds are at least 1; max-samples, threads and shown cannot be negative")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed lies in [0, 2**63), got {self.seed}")


@dataclass(frozen=True)
class Result:
    """What was found about one tokenizer.

    Attributes:
        name, about, facts, parameters: see :class:`Contestant`.
        scores: by the names in ``SCORES``.
        tokens, values: latent tokens and values of all samples; 0 where there are none.
        bytes: of coded files, for coders; else 0.
        inputs: pixel values or sound samples that went in, as they are in the data.
        seconds: the samples' length in all; NaN for images.
        moments: of the latents; None where there are none.
        speed: None where it was not measured.
        speed_seconds: seconds of medium that were timed; NaN for images.
        speed_samples: samples that were timed.
        rows: one per sample: key, scores, tokens, values.
        notes: what a reader should know, one sentence each.
    """

    name: str
    about: str
    facts: dict[str, Any]
    parameters: int
    scores: dict[str, Mean]
    samples: int
    tokens: int
    values: int
    bytes: int
    inputs: int
    seconds: float
    moments: Moments | None
    speed: Speed | None
    speed_seconds: float
    speed_samples: int
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @property
    def per_second(self) -> tuple[float, float]:
        """Tokens and values per second of medium; per picture for images."""
        length = self.samples if math.isnan(self.seconds) else self.seconds
        return self.tokens / length, self.values / length

    def real_time(self, seconds: Sequence[float]) -> float:
        """Seconds of medium (or images) per second of computing, the median over rounds."""
        length = self.speed_samples if math.isnan(self.speed_seconds) else self.speed_seconds
        return length / statistics.median(seconds)


@dataclass(frozen=True)
class Comparison:
    """A whole run of ``evaluate-tokenizer``; ``shown`` are the page's samples with each tokenizer's output."""

    plan: TokenizerPlan
    kind: str
    machine: dict[str, Any]
    samples: int
    left_out: tuple[str, ...]
    about_data: str
    results: tuple[Result, ...]
    shown: list[tuple[Named, dict[str, Media]]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values under a format name and version; NaN becomes null. Rows per sample are left to results.jsonl."""
        found = []
        for result in self.results:
            entry = asdict(result)
            entry.pop("rows")
            entry["tokens_per_second"], entry["values_per_second"] = result.per_second
            if result.speed is not None:
                entry["encode_real_time"] = result.real_time(result.speed.encode)
                entry["decode_real_time"] = result.real_time(result.speed.decode)
            found.append(entry)
        plain = {
            "format": FORMAT,
            "version": VERSION,
            "machine": self.machine,
            "versions": software_versions(),
            "plan": asdict(self.plan),
            "kind": self.kind,
            "data": self.about_data,
            "samples": self.samples,
            "left_out": list(self.left_out),
            "scores": {n: asdict(s) for n, s in SCORES.items() if any(n in r.scores for r in self.results)},
            "tokenizers": found,
        }
        return finite(plain)


def compare(plan: TokenizerPlan) -> Comparison:
    """Run everything; nothing is written.

    Raises:
        UserError: a tokenizer or the data cannot be read, or tokenizers of pictures and of sound are mixed.
    """
    if plan.threads:
        torch.set_num_threads(plan.threads)
    device = pick_device(plan.device)
    kind = _kind(plan, device)
    media = MediaSet(plan.data, kind, plan.split, plan.max_samples)
    timed = media.first(plan.batch)
    shown: list[tuple[Named, dict[str, Media]]] = []
    results = [_evaluate(plan, name, media, timed, shown, device) for name in plan.tokenizers]
    return Comparison(
        plan,
        kind,
        machine(device),
        results[0].samples,
        tuple(media.left_out),
        _about(timed, results[0].samples),
        tuple(results),
        shown,
    )


def write_json(folder: Path, comparison: Comparison) -> None:
    """``results.jsonl`` (a row per tokenizer and sample) and ``results.json``, each written beside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"tokenizer": r.name, **row} for r in comparison.results for row in r.rows]
    _write(folder / "results.jsonl", "".join(json.dumps(finite(row)) + "\n" for row in rows))
    _write(folder / "results.json", json.dumps(comparison.to_json(), indent=1) + "\n")


def finite(value: Any) -> Any:
    """The same with NaN and infinity as None, which JSON can say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def _kind(plan: TokenizerPlan, device: torch.device) -> str:
    """What all tokenizers are for; loads each once, so that a wrong name is said before any work is done."""
    kinds = {n: load_contestant(n, torch.device("cpu"), download=plan.download).kind for n in plan.tokenizers}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{name} is for {kind}s" for name, kind in kinds.items())
        raise UserError(f"tokenizers of pictures and of sounds cannot be compared with each other: {said}")
    return next(iter(kinds.values()))


def _evaluate(
    plan: TokenizerPlan,
    name: str,
    media: MediaSet,
    timed: list[Named],
    shown: list[tuple[Named, dict[str, Media]]],
    device: torch.device,
) -> Result:
    request = Request(
        name, [t.medium for t in timed], str(device), torch.get_num_threads(), plan.rounds, plan.seed, plan.download
    )
    speed = measure_in_child(request)
    contestant = load_contestant(name, device, seed=plan.seed, download=plan.download)
    rows: list[dict[str, Any]] = []
    totals = {"tokens": 0, "values": 0, "bytes": 0}
    moments, inputs, seconds = MomentsOf(), 0, 0.0
    bar = tqdm(total=len(media), desc=name, unit="sample")
    with bar as progress, torch.no_grad():
        for group in _groups(_counted(media, progress), plan.batch):
            for item, output, size, latents in _reconstruct(contestant, group):
                for values, positions in latents:
                    moments.add(values, positions)
                rows.append({"key": item.key, **scores_of(output, item.medium), **size})
                for what in totals:
                    totals[what] += size[what]
                inputs += _inputs(item.medium)
                seconds += getattr(item.medium, "seconds", math.nan)
                _show(shown, len(rows) - 1, item, name, output, plan.shown)
            progress.update(len(group))
    scores = {s: mean_with_interval([row[s] for row in rows], plan.seed) for s in SCORES if s in rows[0]}
    length = [getattr(t.medium, "seconds", math.nan) for t in timed]
    return Result(
        name,
        contestant.about,
        contestant.facts,
        contestant.parameters,
        {s: m for s, m in scores.items() if m.n},
        len(rows),
        **totals,
        inputs=inputs,
        seconds=seconds,
        moments=moments.result() if totals["tokens"] and contestant.parameters else None,
        speed=speed,
        speed_seconds=sum(length),
        speed_samples=len(timed),
        rows=tuple(rows),
        notes=tuple(_notes(contestant, timed, scores, len(rows))),
    )


def _counted(media: MediaSet, progress: Any) -> Iterator[Named]:
    """Those that have the medium; the others are done with here."""
    for item in media:
        if item is None:
            progress.update()
        else:
            yield item


def _groups(items: Iterator[Named], size: int) -> Iterator[list[Named]]:
    while group := list(islice(items, size)):
        yield group


def _reconstruct(contestant: Contestant, group: Sequence[Named]) -> Iterator[tuple[Named, Media, dict[str, int], Any]]:
    """Each medium with its reconstruction, the size of its code, and its latents."""
    prepared = [contestant.prepare(item.medium) for item in group]
    code = contestant.encode(prepared)
    outputs = contestant.decode(code)
    latents = list(contestant.latents(code))
    for i, (item, output) in enumerate(zip(group, outputs, strict=True)):
        own = [latents[i]] if latents else []
        if own:
            tokens, channels = own[0][0].shape
            size = {"tokens": tokens, "values": tokens * channels, "bytes": 0}
        else:
            size = asdict(contestant.size([code[i]]))
        yield item, contestant.finish(output, item.medium), size, own


def _show(
    shown: list[tuple[Named, dict[str, Media]]], place: int, item: Named, name: str, output: Media, most: int
) -> None:
    """Keep the first few reconstructions for the page."""
    if place < most:
        if place == len(shown):
            shown.append((item, {}))
        shown[place][1][name] = output


def _inputs(medium: Media) -> int:
    if isinstance(medium, Audio):
        return medium.waveform.numel()
    return medium.frames.numel() if isinstance(medium, Video) else medium.pixels.numel()


def _about(timed: list[Named], samples: int) -> str:
    """The data in words, from the first few samples."""
    first = timed[0].medium
    if isinstance(first, Audio):
        rates = sorted({t.medium.rate for t in timed if isinstance(t.medium, Audio)})
        return f"{samples} sounds at {', '.join(map(str, rates))} Hz, {first.waveform.shape[0]} channel(s)"
    if isinstance(first, Video):
        frames, height, width, _ = first.frames.shape
        return f"{samples} videos, the first of {frames} frames of {height} x {width} at {first.fps:g} per second"
    height, width, _ = first.pixels.shape
    return f"{samples} images, the first of {height} x {width}"


def _notes(contestant: Contestant, timed: list[Named], scores: dict[str, Mean], samples: int) -> Iterator[str]:
    first = timed[0].medium
    if isinstance(first, Audio):
        given = contestant.prepare(first)
        assert isinstance(given, Audio)
        if given.rate != first.rate:
            yield f"takes {given.rate} Hz: sounds were resampled to that and its output back to {first.rate} Hz"
        have, takes = first.waveform.shape[0], given.waveform.shape[0]
        if have != takes:
            yield f"takes {takes} channel(s), the data have {have}: sounds were mixed to that and its output back"
    if isinstance(first, Video) and contestant.facts.get("spec", {}).get("modality") == "image":
        yield "knows images only: videos went through frame by frame"
    if isinstance(first, Image) and min(first.pixels.shape[:2]) < 11:
        yield "SSIM needs pictures of 11 x 11 pixels"
    for name, mean in scores.items():
        if 0 < mean.n < samples:
            yield f"{SCORES[name].title} is not defined for {samples - mean.n} of {samples} samples (silence)"


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
