"""Latents on a store are copied once, whole, and go on where a copy was cut off."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from selfflow_mm.cli.main import main
from selfflow_mm.data.latents import LatentDataset
from selfflow_mm.data.latents_copy import described_at, latents_at
from selfflow_mm.data.retrying import Unreachable
from selfflow_mm.data.sizes import captions_at, samples_at, sizes_at
from selfflow_mm.errors import UserError

from .flaky_store import FlakyStore, upload

ABOUT = {
    "format": "selfflow-latents",
    "version": 1,
    "data": "made up",
    "samples": 6,
    "parts": 3,
    "tokenizers": {"audio": "abc"},
    "names": {"audio": "a-tokenizer"},
    "sizes": {"samples": 33},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFFLOW_CACHE", str(tmp_path / "cache"))
    FlakyStore.reset()
    return tmp_path / "cache" / "latents"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "x"
    (folder / "text/bytes").mkdir(parents=True)
    for part in range(3):
        values = torch.full((2, 4, 3), float(part), dtype=torch.float16)
        save_file(
            {"audio.values": values, "audio.ids": torch.tensor([2 * part, 2 * part + 1])},
            folder / f"part-{part:05d}.safetensors",
        )
    save_file({"audio": torch.zeros(4, 4)}, folder / "positions.safetensors")
    (folder / "captions.jsonl").write_text("".join(f'["number {i}"]\n' for i in range(6)))
    (folder / "text/bytes/cache.json").write_text("{}")
    (folder / "latents.json").write_text(json.dumps(ABOUT))
    return folder


def test_a_copy_is_the_folder_and_is_made_once(folder, cache):
    url = upload(folder, "flaky://b/x")
    copied = latents_at(url)
    assert copied is not None and copied.parent == cache
    there = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p.relative_to(copied): p.read_bytes() for p in copied.rglob("*") if p.is_file()} == there
    data = LatentDataset(copied)
    assert data.stream("audio", [5, 0]).values[:, 0, 0].tolist() == [2.0, 0.0]
    FlakyStore.asked.clear()
    assert latents_at(f"{url}/") == copied
    assert FlakyStore.asked == [("read", "latents.json", None, None)]


def test_what_is_not_latents_is_none(cache, folder):
    assert latents_at("flaky://b/none") is None and described_at("flaky://b/none") is None
    assert latents_at(folder) == folder == latents_at(str(folder)) and latents_at(folder.parent) is None


def test_a_plan_fetches_the_description_alone(folder, cache):
    url = upload(folder, "flaky://b/x")
    assert sizes_at(url) == {"samples": 33} and samples_at(url) == 6
    assert FlakyStore.reads() == FlakyStore.reads("latents.json") == 2
    assert captions_at(url, 6) == [f"number {i}" for i in range(6)]


def test_a_copy_that_was_cut_off_goes_on(folder, cache, monkeypatch):
    url = upload(folder, "flaky://b/x")
    real, got = FlakyStore.get_file, []

    def dies(self, remote, local, **more):
        if len(got) == 3:
            raise KeyboardInterrupt
        got.append(remote.rpartition("/")[2])
        return real(self, remote, local, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FlakyStore, "get_file", dies)
        latents_at(url)
    (begun,) = cache.iterdir()
    assert not (begun / "latents.json").exists() and sorted(p.name for p in begun.iterdir()) == sorted(got)
    fetched = []
    monkeypatch.setattr(
        FlakyStore, "get_file", lambda self, a, b, **m: fetched.append(a.rpartition("/")[2]) or real(self, a, b, **m)
    )
    assert latents_at(url) == begun
    assert set(got) | set(fetched) == {p.name for p in folder.rglob("*") if p.is_file()} - {"latents.json"}
    assert not set(got) & set(fetched)


def test_other_contents_are_another_copy(folder, cache):
    first = latents_at(upload(folder, "flaky://b/x"))
    (folder / "latents.json").write_text(json.dumps(ABOUT | {"data": "something else"}))
    second = latents_at(upload(folder, "flaky://b/x"))
    assert first != second and len(list(cache.iterdir())) == 2


def test_a_folder_that_is_not_whole_is_refused(folder, cache, monkeypatch):
    url = upload(folder, "flaky://b/x")
    part = FlakyStore.store.pop("/b/x/part-00001.safetensors")
    with pytest.raises(UserError, match="flaky://b/x' holds 2 parts, its latents.json says 3"):
        latents_at(url)
    FlakyStore.store["/b/x/part-00001.safetensors"] = part
    monkeypatch.setattr(FlakyStore, "get_file", lambda self, remote, local, **_: open(local, "wb").close())
    with pytest.raises(UserError, match="came as 0 bytes of"):
        latents_at(url)
    FlakyStore.failures.append(PermissionError("403"))
    with pytest.raises(Unreachable, match="403"):
        latents_at(url)
    assert not list(cache.rglob("latents.json"))


def test_inspect_says_what_is_on_a_store(folder, cache, capsys):
    assert main(["inspect", upload(folder, "flaky://b/x")]) == 0
    assert capsys.readouterr().out == "flaky://b/x: latents of 6 samples of made up: audio by a-tokenizer\n"
