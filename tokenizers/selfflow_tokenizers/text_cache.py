"""Embeddings of captions on disk, so that a text encoder runs once for each text and then need not be in memory.

    FOLDER/<encoder>-<max_tokens>/
        cache.json                    format, version, encoder, channels, type: to look at, and to refuse others
        part-<random>.safetensors     keys (n, 16): the start of SHA-256 of each text; lengths (n,): its tokens;
                                      checks (n,): CRC-32 of its values; values (sum of lengths, C)

A part is written beside its place, flushed and renamed, and never touched again. Every process writes parts of its own,
so any number may read and write one folder: at worst a text is stored twice, with the same values. What a kill or a
full disk leaves behind is not a part; a part that was cut short or changed later fails its size or a check, is removed,
and its texts are encoded again. Values are stored in the type that the encoder rounds to, so nothing is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .errors import UserError
from .stream import TokenStream
from .tensor_file import save_tensors
from .text import TextEncoder, as_stream, check_texts
from .text_files import header

FORMAT, VERSION = "selfflow-text-cache", 1
#: Bytes of values gathered before a part is written: few files, and little to do again after a kill.
PART_BYTES = 128 * 2**20
#: Texts given to the encoder at once while filling.
_CHUNK = 64
#: Entries looked up one by one before they are sorted into the index.
_RECENT = 65_536

_TYPES = {torch.float32: ("F32", 4), torch.bfloat16: ("BF16", 2), torch.float16: ("F16", 2)}


class CachedTextEncoder:
    """A text encoder that asks the disk first; it gives the encoder's own values, to the bit.

    Args:
        encoder: the encoder behind it, used for texts that are not stored yet.
        folder: where embeddings are kept; encoders and lengths have folders of their own inside, so several may share.

    Raises:
        UserError: the folder holds a cache of another format.
    """

    def __init__(self, encoder: TextEncoder, folder: str | Path) -> None:
        self.encoder, self.spec, self.max_tokens = encoder, encoder.spec, encoder.max_tokens
        self.values_dtype = encoder.values_dtype
        self.folder = Path(folder) / f"{self.spec.name}-{self.max_tokens}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._about()
        self._sweep()
        self._parts: list[np.memmap] = []
        self._seen: set[str] = set()
        # Entries of the index, sorted by the first eight bytes of their key: second eight, part, offset, tokens, check.
        self._keys = np.zeros(0, dtype=np.uint64)
        self._entries = np.zeros((0, 5), dtype=np.uint64)
        self._recent: dict[bytes, tuple[int, ...] | Tensor] = {}
        self._pending: dict[bytes, Tensor] = {}
        self._pending_bytes = 0
        self._open_parts()

    @property
    def settings(self) -> dict[str, Any]:
        return self.encoder.settings

    def to(self, device: torch.device | str) -> Self:
        self.encoder.to(device)
        return self

    def unload(self) -> None:
        """Write what is not written yet and free the encoder; it is read again for a text that is not stored."""
        self.flush()
        self.encoder.unload()

    def count(self, texts: Sequence[str]) -> list[int]:
        return self.encoder.count(texts)

    def encode(self, texts: Sequence[str]) -> TokenStream:
        """As the encoder's own; what had to be computed is stored."""
        check_texts(texts)
        values: dict[str, Tensor] = {}
        missing = self._read_into(values, dict.fromkeys(texts))
        if missing and self._open_parts():  # another process may have been here
            missing = self._read_into(values, missing)
        values |= zip(missing, self._compute(missing), strict=True)
        return as_stream([values[text].float() for text in texts])

    def fill(self, texts: Iterable[str]) -> int:
        """Encode all of these that are not stored yet, with a bar; returns how many there were.

        Memory does not grow with the number of texts but for the list of the missing ones.
        """
        self._open_parts()
        missing = [text for text in dict.fromkeys(texts) if not self._stored(key_of(text))]
        missing.sort(key=len)  # neighbours have about as many tokens, which makes full batches
        with tqdm(total=len(missing), desc="encoding captions", unit="text", disable=not missing) as progress:
            for start in range(0, len(missing), _CHUNK):
                chunk = missing[start : start + _CHUNK]
                self._compute([text for text in chunk if not self._stored(key_of(text))])
                progress.update(len(chunk))
        self.flush()
        return len(missing)

    def flush(self) -> None:
        """Write a part of what was computed since the last one."""
        if not self._pending:
            return
        rows = list(self._pending.values())
        tensors = {
            "keys": torch.tensor([list(key) for key in self._pending], dtype=torch.uint8),
            "lengths": torch.tensor([len(row) for row in rows], dtype=torch.int64),
            "checks": torch.tensor([zlib.crc32(_bytes(row)) for row in rows], dtype=torch.int64),
            "values": torch.cat(rows),
        }
        name = f"part-{secrets.token_hex(8)}.safetensors"
        beside = self.folder / f".{name}.tmp"
        save_tensors(tensors, beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without the contents
        os.replace(beside, self.folder / name)
        for key in self._pending:
            self._recent.pop(key, None)
        self._pending, self._pending_bytes = {}, 0
        self._open_parts()

    def size(self) -> tuple[int, int, int]:
        """Stored texts, their tokens, and the bytes of all parts."""
        recent = [e for e in self._recent.values() if isinstance(e, tuple)]
        tokens = int(self._entries[:, 3].sum()) + sum(entry[3] for entry in recent)
        return len(self._entries) + len(recent), tokens, sum(part.nbytes for part in self._parts)

    def _read_into(self, values: dict[str, Tensor], texts: Iterable[str]) -> list[str]:
        """Put stored values in; returns the texts that have none."""
        missing = []
        for text in texts:
            found = self._read(key_of(text))
            if found is None:
                missing.append(text)
            else:
                values[text] = found
        return missing

    def _compute(self, texts: list[str]) -> list[Tensor]:
        if not texts:
            return []
        stream = self.encoder.encode(texts)
        rows = [value[valid].to(self.values_dtype) for value, valid in zip(stream.values, stream.valid, strict=True)]
        for text, row in zip(texts, rows, strict=True):
            key = key_of(text)
            self._pending[key] = self._recent[key] = row
            self._pending_bytes += row.nbytes
        if self._pending_bytes >= PART_BYTES:
            self.flush()
        return rows

    def _stored(self, key: bytes) -> bool:
        return key in self._recent or self._find(key) is not None

    def _read(self, key: bytes) -> Tensor | None:
        """The values ``(N, C)`` of a key in their stored type, or None where there are none, or spoilt ones."""
        entry = self._recent.get(key)
        if isinstance(entry, Tensor):
            return entry
        if entry is None and (entry := self._find(key)) is None:
            return None
        _, part, offset, tokens, check = (int(x) for x in entry)
        row = self.spec.channels * _TYPES[self.values_dtype][1]
        data = bytearray(self._parts[part][offset : offset + tokens * row])
        if zlib.crc32(data) != check:
            Path(str(self._parts[part].filename)).unlink(missing_ok=True)
            return None
        return torch.frombuffer(data, dtype=self.values_dtype).view(tokens, self.spec.channels)

    def _find(self, key: bytes) -> tuple[int, ...] | None:
        first, second = np.frombuffer(key, dtype=">u8").astype(np.uint64)
        at = int(np.searchsorted(self._keys, first))
        while at < len(self._keys) and self._keys[at] == first:
            if self._entries[at, 0] == second:
                return tuple(int(x) for x in self._entries[at])
            at += 1
        return None

    def _open_parts(self) -> bool:
        """Take in the parts that have appeared since the last look; True if there were any."""
        with os.scandir(self.folder) as entries:
            names = {e.name for e in entries if e.name.startswith("part-") and e.name.endswith(".safetensors")}
        fresh = sorted(names - self._seen)
        for name in fresh:
            self._seen.add(name)
            self._open_part(self.folder / name)
        if len(self._recent) > _RECENT:
            self._sort_in()
        return bool(fresh)

    def _open_part(self, path: Path) -> None:
        try:
            about = header(path)
            kind, channels = about["values"]["dtype"], about["values"]["shape"][1]
        except (UserError, KeyError, OSError):
            path.unlink(missing_ok=True)  # cut short; renaming makes it certain that nobody is still writing it
            return
        if (kind, channels) != (_TYPES[self.values_dtype][0], self.spec.channels):
            raise UserError(f"{path} holds {channels} channels of {kind}, which are not of {self.spec.name}; remove it")
        data = np.memmap(path, dtype=np.uint8, mode="r")  # the file is closed again, only the mapping stays
        start = len(data) - max(entry["data_offsets"][1] for entry in about.values())

        def array(name: str, dtype: str) -> np.ndarray:
            begin, end = about[name]["data_offsets"]
            return np.frombuffer(data[start + begin : start + end].tobytes(), dtype=dtype)

        lengths = array("lengths", "<i8")
        if len(lengths) and (lengths.min() < 1 or lengths.sum() != about["values"]["shape"][0]):
            path.unlink(missing_ok=True)
            return
        row = channels * _TYPES[self.values_dtype][1]
        offsets = start + about["values"]["data_offsets"][0] + row * (np.cumsum(lengths) - lengths)
        keys = array("keys", "|u1").reshape(-1, 16)
        self._parts.append(data)
        part, seconds = len(self._parts) - 1, keys[:, 8:].copy().view(">u8")[:, 0]
        found = zip(keys, seconds, offsets, lengths, array("checks", "<i8"), strict=True)
        for key, second, offset, length, check in found:
            self._recent[key.tobytes()] = (int(second), part, int(offset), int(length), int(check))
        if len(self._recent) > _RECENT:
            self._sort_in()

    def _sort_in(self) -> None:
        """Move what was found lately into the sorted arrays: 48 bytes an entry instead of hundreds."""
        moved = {key: entry for key, entry in self._recent.items() if not isinstance(entry, Tensor)}
        if not moved:
            return
        first = np.frombuffer(b"".join(moved), dtype=">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
        # The newest first: where a text is stored twice because one copy was spoilt, the later one counts.
        keys = np.concatenate([first, self._keys])
        entries = np.concatenate([np.array(list(moved.values()), dtype=np.uint64), self._entries])
        order = np.argsort(keys, kind="stable")
        self._keys, self._entries = keys[order], entries[order]
        self._recent = {key: entry for key, entry in self._recent.items() if isinstance(entry, Tensor)}

    def _sweep(self) -> None:
        """Remove what killed processes left half-written: nothing takes a day to write."""
        for path in self.folder.glob(".*.tmp"):
            with suppress(OSError):  # its writer was alive after all, and has just renamed it
                if path.stat().st_mtime < time.time() - 86_400:
                    path.unlink()

    def _about(self) -> None:
        """Write or check ``cache.json``."""
        path = self.folder / "cache.json"
        kind = _TYPES[self.values_dtype][0]
        about = {"format": FORMAT, "version": VERSION, "encoder": self.spec.name, "max_tokens": self.max_tokens}
        about |= {"channels": self.spec.channels, "type": kind}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            differing = [k for k, v in about.items() if found.get(k) != v]
            if differing:
                raise UserError(f"{path} tells of another {' and '.join(differing)}; remove the folder or name another")
            return
        beside = path.with_name(f".cache.json.{secrets.token_hex(4)}.tmp")
        beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)


def key_of(text: str) -> bytes:
    """Sixteen bytes that stand for a text."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()[:16]


def _bytes(row: Tensor) -> bytes:
    return row.contiguous().view(torch.uint8).numpy().tobytes()
