"""Report pages: self-contained, escaped, with links that a browser would follow to the right file."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from selfflow_mm.evaluation.page import Card, Page

VOID = {"meta", "img", "br", "line", "circle", "polyline"}


class Reader(HTMLParser):
    """Collects tags, addresses and text; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _full(text: str, folder: Path, gallery: bool = False) -> Reader:
    page = Page(text, text, gallery=gallery)
    page.heading(text)
    page.text(text)
    page.table([[text, 1, 2.5, None, True]], [text, "b", "c", "d", "e"])
    page.curve(text, {text: ([1, 2, 3], [3.0, 2.0, 1.0])}, x_label=text)
    page.picture(Pillow.new("RGB", (4, 4)), text)
    page.media(b"RIFF", "audio", text)
    still = Pillow.new("RGB", (4, 4))
    card = Card(text, b"mp4", "video", (still,), {text: text}, label=text, command=text, poster=still)
    page.hero([card])
    page.cards([card], columns=4)
    page.save(folder / "index.html")
    return Reader((folder / "index.html").read_text(encoding="utf-8"))


@given(st.text(st.characters(codec="utf-8"), max_size=30) | st.text("<>&\"'`/ab=", max_size=30))
def test_no_text_becomes_markup(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("page")
    known = {*_full("plain `code`\n\ntwo", folder).tags, "code", "p"}
    assert set(_full(text, folder).tags) <= known


def test_everything_is_in_the_file(tmp_path: Path) -> None:
    page = _full("x", tmp_path)
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    text = (tmp_path / "index.html").read_text()
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert "script" not in page.tags
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_media_in_the_folder_are_linked_and_others_embedded(tmp_path: Path) -> None:
    inside = tmp_path / "page" / "clips" / "a ball & more #1.mp4"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"inside")
    outside = tmp_path / "b.wav"
    outside.write_bytes(b"outside")
    page = Page("t")
    page.media(inside, "video")
    page.cards([Card("b", outside, "audio")])
    page.media(b"\xff\xd8jpeg", "image")
    page.save(tmp_path / "page" / "index.html")
    linked, embedded, picture = Reader((tmp_path / "page" / "index.html").read_text()).sources
    assert (tmp_path / "page" / unquote(linked)).read_bytes() == b"inside" and "#" not in linked
    head, _, data = embedded.partition(",")
    assert head.startswith("data:audio/") and base64.b64decode(data) == b"outside"
    assert picture.startswith("data:image/jpeg;base64,")


def test_a_gallery_is_one_file_whose_films_run_silently(tmp_path: Path) -> None:
    inside = tmp_path / "clip.mp4"
    inside.write_bytes(b"inside")
    page = Page("t", gallery=True)
    page.hero([Card("a", inside)])
    page.save(tmp_path / "index.html")
    (source,) = Reader((tmp_path / "index.html").read_text()).sources
    head, _, data = source.partition(",")
    assert head == "data:video/mp4;base64" and base64.b64decode(data) == b"inside"
    full = _full("x", tmp_path, gallery=True)
    assert full.tags.count("script") == 1 and all(source.startswith("data:") for source in full.sources)
    text = (tmp_path / "index.html").read_text()
    assert "http" not in text and "url(" not in text and "import" not in text
    assert full.tags.count("video") == text.count("<video autoplay muted controls loop playsinline") == 2


def test_pictures_keep_their_pixels(tmp_path: Path) -> None:
    image = Pillow.effect_noise((20, 10), 80).convert("RGB")
    page = Page("t")
    page.picture(image)
    page.save(tmp_path / "index.html")
    (source,) = Reader((tmp_path / "index.html").read_text()).sources
    shown = Pillow.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert shown.tobytes() == image.tobytes()


def test_columns_of_numbers_are_flush_right(tmp_path: Path) -> None:
    page = Page("t")
    page.table([["a", 1, "x"], ["b", None, 2]], ["name", "count", "mixed"])
    page.save(tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert "<th class='number'>count</th>" in text and "<td class='number'>1</td>" in text
    assert "<th>mixed</th>" in text and "<td>2</td>" in text
