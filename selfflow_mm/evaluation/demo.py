"""The demo: clips from prompts of the bundled world, on a page to send to a friend."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from tqdm import tqdm

from ..data.reading import Clip, read_media
from ..errors import UserError
from ..generation.pipeline import Generated, Pipeline
from .demo_plan import Section, Wish, plan_demo
from .page import Card, MediaKind, Page, film_strip, spectrogram

_ENDINGS = {"t2a": ".wav", "t2i": ".png"}
_KINDS: dict[str, MediaKind] = {".mp4": "video", ".wav": "audio", ".png": "image"}
#: Option of `generate` that names what a task is given.
_GIVEN_BY = {"v2a": "video", "i2va": "image"}
#: Cards side by side, and clips in the row at the top.
_COLUMNS = 4


def make_demo(out: Path, clips: int = 8, seed: int = 0, model: str = "tiny") -> Path:
    """Generate ``clips`` videos with sound and some of everything else that the model can make; returns
    ``index.html``'s path. The page holds all its media and may be sent alone.

    A folder that already holds a demo is written over, clip by clip.

    Raises:
        UserError: ``clips`` < 1, ``out`` is a file or a folder of something else, or the model makes no media.
    """
    if clips < 1:
        raise UserError(f"a demo has at least one clip, got {clips}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "index.html").exists())):
        raise UserError(f"{out} exists and holds something else than a demo; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.from_pretrained(model)
    sections = plan_demo(out, pipeline, clips, seed)
    wishes = [wish for section in sections for wish in section.wishes]
    cards = []
    started = time.perf_counter()
    for i, wish in enumerate(tqdm(wishes, desc="generating", unit="clip")):
        path = out / f"{i:02d}-{wish.task}{_ENDINGS.get(wish.task, '.mp4')}"
        [result] = pipeline([wish.prompt], wish.task, seed=seed + i, given=_given(wish))
        result.save(path)
        cards.append(_card(wish, result, path, model))
    seconds = time.perf_counter() - started
    return _page(out, sections, cards, pipeline, model, seconds)


def _given(wish: Wish) -> dict[str, Any]:
    """What the command line reads from the same file."""
    if wish.given is None:
        return {}
    clip = read_media(wish.given)
    return {"video": clip.image or clip.video}


def _card(wish: Wish, result: Generated, path: Path, model: str) -> Card:
    made = Clip(video=result.video, audio=result.audio, image=result.image)
    facts = {"seed": result.seed}
    return _shown(wish.prompt, path, made, wish.label, facts, _command(wish, result.seed, path, model))


def _given_card(wish: Wish, given: Path) -> Card:
    return _shown(wish.prompt, given, read_media(given), wish.given_label, {}, "")


def _shown(prompt: str, path: Path, clip: Clip, label: str, facts: dict[str, Any], command: str) -> Card:
    pictures: list[Pillow.Image] = []
    poster = None
    if clip.video is not None:
        frames = clip.video.frames
        pictures.append(film_strip(clip.video, n=6, height=2 * frames.shape[1]))
        poster = Pillow.fromarray(frames[len(frames) // 2].cpu().numpy())
    if clip.audio is not None:
        pictures.append(spectrogram(clip.audio))
    return Card(prompt, path, _KINDS[path.suffix], tuple(pictures), facts, label, command, poster)


def _command(wish: Wish, seed: int, path: Path, model: str) -> str:
    """What makes the very file again, typed in the demo's folder."""
    words = ["selfflow-mm", "generate", wish.prompt, "--task", wish.task, "--seed", str(seed)]
    if wish.given is not None:
        words += [f"--{_GIVEN_BY[wish.task]}", wish.given.name]
    if model != "tiny":
        words += ["--model", str(Path(model).resolve()) if Path(model).exists() else model]
    return shlex.join([*words, "--out", path.name])


def _page(
    out: Path, sections: list[Section], cards: list[Card], pipeline: Pipeline, model: str, seconds: float
) -> Path:
    size = sum(p.numel() for p in pipeline.model.parameters()) / 1e6
    page = Page(
        "selfflow-mm",
        f"{len(cards)} results made from text by the model `{model}` ({size:.1f} M parameters) in {seconds:.0f} s",
        gallery=True,
    )
    films = [card for card in cards[: len(sections[0].wishes)] if card.kind == "video"]
    if films:
        page.hero(films[:: max(1, len(films) // _COLUMNS)][:_COLUMNS])
    page.text(
        "All of this began as noise. One transformer turned it into picture and sound at once, following the prompt; "
        "nothing was rendered, recorded or chosen by hand but what is said to be real. Turn the sound on and tap a "
        "film: what lands should be heard."
    )
    left = iter(cards)
    for section in sections:
        page.heading(section.title)
        if section.text:
            page.text(section.text)
        group = []
        for wish in section.wishes:
            group += [] if wish.given is None else [_given_card(wish, wish.given)]
            group.append(next(left))
        page.cards(group, _COLUMNS)
    page.text(
        f"The sampler took {pipeline.sampling.steps} {pipeline.sampling.solver} steps for each. The same prompt, seed "
        "and given file make the same clip again: the command is under each, to be typed in the folder that this page "
        "came from."
    )
    path = out / "index.html"
    page.save(path)
    return path
