"""Report pages: one self-contained HTML file with players, pictures, tables and curves, light or dark by preference.

Used by the demo's index, the run report, the report of ``prepare`` and those of the tokenizers. Nothing is loaded
from elsewhere; media that lie in the page's folder are linked, anything else is embedded. A gallery embeds all of them:
it is one file that can be sent to somebody.
"""

from __future__ import annotations

import base64
import html
import io
import mimetypes
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from PIL import Image as Pillow

from .chart import Series, line_chart
from .page_script import GALLERY_SCRIPT
from .page_style import STYLE
from .pictures import film_strip, spectrogram

__all__ = ["Card", "Page", "film_strip", "spectrogram"]

MediaKind = Literal["video", "audio", "image"]
Source = Path | str | bytes


@dataclass(frozen=True)
class Card:
    """One clip on a page: a player, pictures under it, its prompt, and small facts such as the seed.

    Attributes:
        prompt: the text it was made from, or its title.
        label: what sets it apart from its neighbours, above the prompt.
        media: file or bytes for the player; None for a card of pictures only.
        kind: what ``media`` is.
        pictures: film strip, spectrogram, ...
        details: small facts, such as ``{"seed": 3, "steps": 30}``.
        command: what to type to make it again.
        poster: what a video shows until it plays.
    """

    prompt: str
    media: Source | None = None
    kind: MediaKind = "video"
    pictures: tuple[Pillow.Image, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    command: str = ""
    poster: Pillow.Image | None = None


class Page:
    """A page under construction; every method adds one block, ``save`` writes the file.

    Args:
        title: of the page.
        subtitle: a line under it.
        gallery: a page to be shown around. All media are in the file; videos play by themselves, silent until one is
            tapped; small pictures keep their pixels when enlarged.
    """

    def __init__(self, title: str, subtitle: str = "", *, gallery: bool = False) -> None:
        self.title, self.subtitle, self.gallery = title, subtitle, gallery
        # Blocks are written when the page's folder is known, because links are relative to it.
        self._blocks: list[Callable[[Path], str]] = []

    def heading(self, text: str) -> None:
        self._add(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph; text in `backticks` becomes code, an empty line starts another paragraph."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self._add(f"<p>{_inline(paragraph)}</p>")

    def table(self, rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
        """Rows of text and numbers; columns of numbers are set flush right."""
        numeric = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(header))]
        head = "".join(f"<th{_align(n)}>{html.escape(str(t))}</th>" for t, n in zip(header, numeric, strict=True))
        cells = ([(_inline(_text(v)), _align(n)) for v, n in zip(row, numeric, strict=True)] for row in rows)
        lines = ["".join(f"<td{align}>{text}</td>" for text, align in row) for row in cells]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        self._add(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')

    def curve(self, title: str, series: Series, *, log_y: bool = False, x_label: str = "step") -> None:
        """A line chart of ``{name: (xs, ys)}``; ``log_y`` for losses that fall over orders of magnitude."""
        chart = line_chart(series, log_y=log_y, x_label=x_label)
        self._add(f"<figure class='box'><figcaption>{html.escape(title)}</figcaption>{chart}</figure>")

    def media(self, source: Source, kind: MediaKind, caption: str = "") -> None:
        """A player (or picture) with a caption; ``source`` is a file or the file's bytes."""
        self._blocks.append(
            lambda folder: f"<figure class='box'>{self._player(source, kind, folder)}{_figcaption(caption)}</figure>"
        )

    def picture(self, image: Pillow.Image, caption: str = "") -> None:
        self._add(f"<figure class='box'>{_picture(image, caption)}{_figcaption(caption)}</figure>")

    def cards(self, cards: Sequence[Card], columns: int | None = None) -> None:
        """A grid of clips: as many side by side as there is room for, or ``columns`` (two on a phone)."""
        cards = tuple(cards)
        side_by_side = "" if columns is None else f" side-by-side' style='--columns: {columns}"
        self._blocks.append(
            lambda folder: f"<div class='grid{side_by_side}'>{''.join(self._card(c, folder) for c in cards)}</div>"
        )

    def hero(self, cards: Sequence[Card]) -> None:
        """A row of large players with nothing but their prompts."""
        cards = tuple(cards)
        self._blocks.append(
            lambda folder: "<div class='hero'>" + "".join(self._figure(card, folder) for card in cards) + "</div>"
        )

    def save(self, path: Path | str) -> None:
        """Write the page; media files must exist by now."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        title = html.escape(self.title)
        subtitle = f"<p class='subtitle'>{_inline(self.subtitle)}</p>" if self.subtitle else ""
        kind = script = ""
        if self.gallery:
            kind, script = " class='gallery'", f"<script>{GALLERY_SCRIPT}</script>"
        text = (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width, initial-scale=1'>"
            f"<title>{title}</title><style>{STYLE}</style></head>\n<body{kind}><main>"
            f"<header><h1>{title}</h1>{subtitle}</header>\n"
            + "\n".join(block(path.parent) for block in self._blocks)
            + f"\n</main>{script}</body></html>\n"
        )
        draft = path.with_name(f".{path.name}.tmp")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)

    def _add(self, block: str) -> None:
        self._blocks.append(lambda folder: block)

    def _card(self, card: Card, folder: Path) -> str:
        parts = ["<article class='card'>"]
        if card.media is not None:
            parts.append(self._player(card.media, card.kind, folder, card.poster))
        label = f"<p class='label'>{html.escape(card.label)}</p>" if card.label else ""
        parts.append(f"<div class='body'>{label}<p class='prompt'>{html.escape(card.prompt)}</p>")
        parts.extend(_picture(picture, card.prompt) for picture in card.pictures)
        if card.details:
            pairs = [(html.escape(str(name)), html.escape(_text(value))) for name, value in card.details.items()]
            facts = "".join(f"<span>{name} <b>{value}</b></span>" for name, value in pairs)
            parts.append(f"<p class='facts'>{facts}</p>")
        if card.command:
            again = html.escape(card.command)
            parts.append(f"<details><summary>Make it again</summary><pre><code>{again}</code></pre></details>")
        parts.append("</div></article>")
        return "".join(parts)

    def _figure(self, card: Card, folder: Path) -> str:
        player = "" if card.media is None else self._player(card.media, card.kind, folder, card.poster)
        return f"<figure>{player}<figcaption>{html.escape(card.prompt)}</figcaption></figure>"

    def _player(self, source: Source, kind: MediaKind, folder: Path, poster: Pillow.Image | None = None) -> str:
        url = html.escape(self._url(source, kind, folder), quote=True)
        if kind == "image":
            return f'<img src="{url}" alt="">'
        if kind == "audio":
            return f"<audio controls preload='metadata' src=\"{url}\"></audio>"
        playing = "autoplay muted " if self.gallery else ""
        still = "" if poster is None else f' poster="{_png(poster)}"'
        return f"<video {playing}controls loop playsinline preload='auto'{still} src=\"{url}\"></video>"

    def _url(self, source: Source, kind: MediaKind, folder: Path) -> str:
        """A relative link for a file in the page's folder, unless it is a gallery, else the data themselves."""
        if isinstance(source, bytes):
            return _data_url(source, _sniff(source, kind))
        path = Path(source).resolve()
        if path.is_relative_to(folder.resolve()) and not self.gallery:
            return quote(path.relative_to(folder.resolve()).as_posix())
        return _data_url(path.read_bytes(), mimetypes.guess_type(path.name)[0] or _sniff(b"", kind))


def _sniff(data: bytes, kind: MediaKind) -> str:
    if kind == "image":
        return "image/jpeg" if data.startswith(b"\xff\xd8") else "image/png"
    return "video/mp4" if kind == "video" else "audio/wav"


def _data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _picture(image: Pillow.Image, caption: str) -> str:
    return f'<img src="{_png(image)}" alt="{html.escape(caption, quote=True)}">'


def _png(image: Pillow.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return _data_url(buffer.getvalue(), "image/png")


def _figcaption(caption: str) -> str:
    return f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _align(numeric: bool) -> str:
    return " class='number'" if numeric else ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
