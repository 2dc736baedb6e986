"""The demo: clips from prompts of the bundled world, on a page a person enjoys."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from tqdm import tqdm

from ..conditions import Conditions
from ..data.world.prompts import example_prompts
from ..errors import UserError
from ..generation.pipeline import Generated, Pipeline
from .page import Card, Page, film_strip, spectrogram


def make_demo(out: Path, clips: int = 8, seed: int = 0, model: str = "tiny") -> Path:
    """Generate ``clips`` videos with sound, then a silent video, a sound and two images; returns ``index.html``'s path.

    A folder that already holds a demo is written over, clip by clip.

    Raises:
        UserError: ``clips`` < 1, or ``out`` is a file or a folder of something else.
    """
    if clips < 1:
        raise UserError(f"a demo has at least one clip, got {clips}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "index.html").exists())):
        raise UserError(f"{out} exists and holds something else than a demo; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.from_pretrained(model)
    prompts = example_prompts(clips + 4, seed)
    jobs = [(prompt, "t2va", ".mp4") for prompt in prompts[:clips]]
    jobs += [(prompts[clips], "t2v", ".mp4"), (prompts[clips + 1], "t2a", ".wav")]
    jobs += [(prompt, "t2i", ".png") for prompt in prompts[clips + 2 :]]
    jobs = [job for job in jobs if _can(pipeline, job[1])]
    cards: dict[str, list[Card]] = {}
    started = time.perf_counter()
    for i, (prompt, task, ending) in enumerate(tqdm(jobs, desc="generating", unit="clip")):
        [result] = pipeline([prompt], task, seed=seed + i)
        path = result.save(out / f"{i:02d}-{task}{ending}")
        cards.setdefault(task, []).append(_card(result, path, model))
    seconds = time.perf_counter() - started
    return _page(out, cards, pipeline, model, seconds)


def _can(pipeline: Pipeline, task: str) -> bool:
    return set(Conditions.named(task).modalities) <= set(pipeline.model.config.modalities)


def _card(result: Generated, path: Path, model: str) -> Card:
    pictures = []
    if result.video is not None:
        pictures.append(film_strip(result.video))
    if result.audio is not None:
        pictures.append(spectrogram(result.audio))
    kind = {".mp4": "video", ".wav": "audio", ".png": "image"}[path.suffix]
    option = "" if model == "tiny" else f" --model {shlex.quote(model)}"
    task = path.stem.split("-")[1]
    command = (
        f"selfflow-mm generate {shlex.quote(result.prompt)} --task {task} --seed "
        f"{result.seed}{option} --out {path.name}"
    )
    return Card(result.prompt, path, kind, tuple(pictures), {"seed": result.seed, "again": command})  # type: ignore[arg-type]


TITLES = {
    "t2va": "Video with sound",
    "t2v": "Video alone",
    "t2a": "Sound alone",
    "t2i": "Images",
}


def _page(out: Path, cards: dict[str, list[Card]], pipeline: Pipeline, model: str, seconds: float) -> Path:
    parameters = sum(p.numel() for p in pipeline.model.parameters()) / 1e6
    count = sum(map(len, cards.values()))
    page = Page(
        "selfflow-mm", f"Made from text by the model `{model}` ({parameters:.1f} M parameters) in {seconds:.0f} s"
    )
    page.text(
        "Every clip below began as noise. One transformer turned the noise into picture and sound at once, "
        "following the "
        "prompt; nothing was rendered, recorded or chosen by hand. Turn the sound on: what lands should be heard."
    )
    for task, group in cards.items():
        page.heading(TITLES[task])
        page.cards(group)
    page.text(
        f"{count} results. The sampler took {pipeline.sampling.steps} {pipeline.sampling.solver} steps "
        f"each. The same seed "
        "and prompt make the same clip again; the command is under each."
    )
    path = out / "index.html"
    page.save(path)
    return path
