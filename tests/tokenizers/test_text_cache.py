"""Embeddings on disk: the encoder's own bits, whatever is killed, cut short, changed or written at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_tokenizers import ByteTextEncoder, TokenStream, UserError, text_cache
from selfflow_tokenizers.text_cache import CachedTextEncoder


class Counting(ByteTextEncoder):
    """An encoder whose values are those of bytes in a type, and that remembers what it was asked."""

    def __init__(self, dtype: torch.dtype = torch.float32, channels: int = 8) -> None:
        super().__init__(channels)
        self.values_dtype, self.asked, self.unloaded = dtype, list[str](), 0

    def encode(self, texts: Sequence[str]) -> TokenStream:
        self.asked += texts
        stream = super().encode(texts)
        return stream.with_values(stream.values.to(self.values_dtype).float())

    def unload(self) -> None:
        self.unloaded += 1


CAPTIONS = [f"caption number {i} of a {'very ' * (i % 5)}small set" for i in range(40)] + ["", "日本 🎈"]


def same(a: TokenStream, b: TokenStream) -> bool:
    parts = ("values", "positions", "sample")
    return a.full == b.full and all(torch.equal(getattr(a, n), getattr(b, n)) for n in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_read_is_what_the_encoder_gave_and_it_is_asked_once(tmp_path, dtype):
    encoder = Counting(dtype)
    cache = CachedTextEncoder(encoder, tmp_path)
    assert cache.fill(CAPTIONS + CAPTIONS[:5]) == len(CAPTIONS)
    assert sorted(encoder.asked) == sorted(CAPTIONS)
    again = CachedTextEncoder(untouched := Counting(dtype), tmp_path)
    for texts in (CAPTIONS, CAPTIONS[::-3], ["", ""], [CAPTIONS[7]]):
        assert same(again.encode(texts), Counting(dtype).encode(texts))
        assert same(cache.encode(texts), Counting(dtype).encode(texts))
    assert again.fill(CAPTIONS) == 0 and untouched.asked == []


@settings(max_examples=20)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
def test_any_texts_come_back(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    expected = Counting().encode(texts)
    assert same(CachedTextEncoder(Counting(), folder).encode(texts), expected)
    cache = CachedTextEncoder(Counting(), folder)
    cache.fill(texts)
    assert same(CachedTextEncoder(Counting(), folder).encode(texts), expected)


def test_texts_that_were_not_foreseen_are_kept_and_written_when_it_is_freed(tmp_path):
    encoder = Counting()
    cache = CachedTextEncoder(encoder, tmp_path)
    for _ in range(3):
        cache.encode(["one", "two"])
    assert encoder.asked == ["one", "two"] and not list(cache.folder.glob("part-*"))  # a file for every text is many
    cache.unload()
    assert encoder.unloaded == 1 and len(list(cache.folder.glob("part-*"))) == 1
    assert CachedTextEncoder(Counting(), tmp_path).fill(["one", "two"]) == 0


def test_many_captions_are_few_files_and_little_more_than_their_values(tmp_path):
    encoder = Counting(torch.bfloat16, channels=64)
    cache = CachedTextEncoder(encoder, tmp_path)
    captions = [f"caption {i}" for i in range(3000)]
    cache.fill(captions)
    texts, tokens, size = cache.size()
    assert (texts, tokens) == (3000, 3 * 3000)
    assert len(list(cache.folder.iterdir())) == 2
    assert tokens * 64 * 2 < size < tokens * 64 * 2 + 3000 * 33 + 1000  # key, length and check of each


def test_parts_are_written_while_filling_and_a_large_index_finds_all(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "PART_BYTES", 2000)
    monkeypatch.setattr(text_cache, "_RECENT", 10)
    cache = CachedTextEncoder(Counting(), tmp_path)
    captions = [f"caption {i}" for i in range(300)]
    cache.fill(captions)
    assert len(list(cache.folder.glob("part-*"))) == 5
    again = CachedTextEncoder(encoder := Counting(), tmp_path)
    assert same(again.encode(captions), Counting().encode(captions)) and encoder.asked == []
    assert len(again._keys) == 300 and not again._recent


def test_a_filling_that_was_killed_goes_on_behind_its_last_part(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "PART_BYTES", 2000)

    class Dies(Counting):
        def encode(self, texts: Sequence[str]) -> TokenStream:
            if len(self.asked) >= 128:
                raise KeyboardInterrupt
            return super().encode(texts)

    captions = [f"caption {i}" for i in range(300)]
    with pytest.raises(KeyboardInterrupt):
        CachedTextEncoder(Dies(), tmp_path).fill(captions)
    cache = CachedTextEncoder(encoder := Counting(), tmp_path)
    assert cache.fill(captions) == 300 - 128 == len(encoder.asked)
    assert same(cache.encode(captions), Counting().encode(captions))


@pytest.mark.parametrize("left", [0, 5, 400, -1])
def test_a_part_that_was_cut_short_is_made_again(tmp_path, left):
    cache = CachedTextEncoder(Counting(), tmp_path)
    cache.fill(CAPTIONS)
    [part] = cache.folder.glob("part-*")
    data = part.read_bytes()
    part.write_bytes(data[:left])
    again = CachedTextEncoder(encoder := Counting(), tmp_path)
    assert same(again.encode(CAPTIONS), Counting().encode(CAPTIONS))
    assert sorted(encoder.asked) == sorted(CAPTIONS) and not part.exists()


def flip(part: Path, tensor: str) -> None:
    """One bit of a tensor's last number."""
    data = bytearray(part.read_bytes())
    length = int.from_bytes(data[:8], "little")
    data[8 + length + json.loads(data[8 : 8 + length])[tensor]["data_offsets"][1] - 3] ^= 1
    part.write_bytes(data)


@pytest.mark.parametrize(("tensor", "lost"), [("keys", 1), ("checks", 1), ("lengths", len(CAPTIONS))])
def test_a_part_whose_index_changed_loses_no_more_than_it_must(tmp_path, tensor, lost):
    cache = CachedTextEncoder(Counting(), tmp_path)
    cache.fill(CAPTIONS)
    flip(next(cache.folder.glob("part-*")), tensor)
    again = CachedTextEncoder(encoder := Counting(), tmp_path)
    assert same(again.encode(CAPTIONS), Counting().encode(CAPTIONS)) and len(encoder.asked) == lost


def test_a_value_that_changed_on_disk_is_made_again(tmp_path):
    cache = CachedTextEncoder(Counting(), tmp_path)
    cache.fill(CAPTIONS)
    flip(next(cache.folder.glob("part-*")), "values")
    again = CachedTextEncoder(encoder := Counting(), tmp_path)
    assert same(again.encode(CAPTIONS), Counting().encode(CAPTIONS)) and len(encoder.asked) == 1
    assert CachedTextEncoder(Counting(), tmp_path).fill(CAPTIONS) == len(CAPTIONS)  # the part is not trusted again


def test_what_a_kill_left_half_written_is_no_part_and_is_swept_up_a_day_later(tmp_path):
    cache = CachedTextEncoder(Counting(), tmp_path)
    cache.fill(["a"])
    old, new = (cache.folder / f".part-{name}.safetensors.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86_400,) * 2)
    again = CachedTextEncoder(Counting(), tmp_path)
    assert again.fill(["a"]) == 0 and new.exists() and not old.exists()


def test_processes_fill_one_folder_together(tmp_path):
    """Three at once, with overlapping texts and small parts; every text is there in the encoder's own bits."""
    program = """
import sys
import torch
from selfflow_tokenizers import ByteTextEncoder, text_cache
text_cache.PART_BYTES = 20_000
torch.set_num_threads(1)
cache = text_cache.CachedTextEncoder(ByteTextEncoder(8), sys.argv[1])
first = int(sys.argv[2])
cache.fill(f"caption {i}" for i in range(first, first + 600))
wrong = [i for i in range(first, first + 600) if not torch.equal(
    cache.encode([f"caption {i}"]).values, ByteTextEncoder(8).encode([f"caption {i}"]).values)]
sys.exit(len(wrong))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen([*command, str(first)], stderr=subprocess.DEVNULL) for first in (0, 400, 0)]
    assert [process.wait(timeout=100) for process in running] == [0, 0, 0]
    cache = CachedTextEncoder(encoder := Counting(), tmp_path)
    captions = [f"caption {i}" for i in range(1000)]
    assert same(cache.encode(captions), ByteTextEncoder(8).encode(captions)) and encoder.asked == []
    assert not list(cache.folder.glob(".*"))


def test_one_process_reads_what_another_has_just_written(tmp_path):
    reader, writer = CachedTextEncoder(encoder := Counting(), tmp_path), CachedTextEncoder(Counting(), tmp_path)
    writer.fill(CAPTIONS)
    assert same(reader.encode(CAPTIONS), Counting().encode(CAPTIONS)) and encoder.asked == []


def test_encoders_do_not_read_each_others(tmp_path):
    a, b = CachedTextEncoder(Counting(), tmp_path), CachedTextEncoder(other := Counting(channels=16), tmp_path)
    a.fill(CAPTIONS)
    assert b.encode(CAPTIONS[:3]).values.shape[-1] == 16 and len(other.asked) == 3
    shorter = ByteTextEncoder(8, max_tokens=2)
    assert CachedTextEncoder(shorter, tmp_path).encode(CAPTIONS[:1]).values.shape[1] == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_of_another_format_is_refused(tmp_path):
    about = CachedTextEncoder(Counting(), tmp_path).folder / "cache.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"version": 2}))
    with pytest.raises(UserError, match="tells of another version"):
        CachedTextEncoder(Counting(), tmp_path)
    with pytest.raises(UserError, match="list"):
        CachedTextEncoder(Counting(channels=9), tmp_path).encode("a text")


def test_an_encoder_of_transformers_gives_the_same_bits_through_the_disk(tmp_path):
    from selfflow_tokenizers.text_pretrained import PretrainedTextEncoder

    from . import texts

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder: Path = texts.t5(tmp_path / "t5")
    options: dict[str, Any] = {"rounding": "bfloat16"}
    cache = CachedTextEncoder(PretrainedTextEncoder.from_pretrained(folder, **options), tmp_path / "cache")
    cache.fill(texts.TEXTS)
    cache.unload()
    fresh = PretrainedTextEncoder.from_pretrained(folder, **options)
    assert same(cache.encode(texts.TEXTS), fresh.encode(texts.TEXTS))
    assert cache.encoder._model is None  # the disk has all that was asked for
    torch.set_num_threads(threads)
