"""Tokenizers by name: folders, pretrained ones, the hub's cache; and the protocol both classes keep."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from selfflow_tokenizers import (
    Audio,
    AudioTokenizer,
    Image,
    Tokenizer,
    TokenStream,
    UserError,
    VideoTokenizer,
    load_tokenizer,
)
from selfflow_tokenizers.audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig
from selfflow_tokenizers.pretrained import ADAPTERS, adapter
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig


def video() -> VideoTokenizer:
    torch.manual_seed(0)
    sizes = dict(latent_channels=3, fine_width=12, width=16, frame_width=8, fine_blocks=1, blocks=1)
    return VideoTokenizer(VideoAutoencoder(VideoAutoencoderConfig(**sizes)))


def audio() -> AudioTokenizer:
    torch.manual_seed(0)
    sizes = dict(latent_channels=4, frame=8, strides=(2, 4), widths=(12, 16, 20), blocks=(1, 1, 1))
    return AudioTokenizer(AudioAutoencoder(AudioAutoencoderConfig(**sizes)))


@pytest.mark.parametrize("make", [video, audio])
def test_both_keep_the_protocol(make, tmp_path: Path) -> None:
    tokenizer = make()
    assert isinstance(tokenizer, Tokenizer)
    small = Image(torch.zeros(8, 9, 3, dtype=torch.uint8)) if make is video else Audio(torch.zeros(2, 100), 16000)
    stream = tokenizer.encode([small, small])
    assert isinstance(stream, TokenStream) and stream.values.shape[-1] == tokenizer.spec.channels
    assert [type(m) for m in tokenizer.decode(stream)] == [type(small)] * 2
    tokenizer.save_pretrained(tmp_path / "saved")
    again = type(tokenizer).from_pretrained(tmp_path / "saved")
    assert again.spec == tokenizer.spec
    other = AudioTokenizer if make is video else VideoTokenizer
    with pytest.raises(UserError, match="use load_tokenizer"):
        other.from_pretrained(tmp_path / "saved")


def test_a_hub_id_is_looked_up_in_the_cache_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's layout is the hub library's: models--ORG--NAME/{refs/main, snapshots/COMMIT/files}."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="hf download someone/tokenizer --local-dir tokenizer"):
        load_tokenizer("someone/tokenizer")
    tokenizer, commit = video(), "a" * 40
    home = tmp_path / "models--someone--tokenizer"
    tokenizer.save_pretrained(home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs/main").write_text(commit)
    assert load_tokenizer("someone/tokenizer").spec == tokenizer.spec


def test_every_adapter_states_its_facts() -> None:
    for name in ADAPTERS:
        codec = adapter(name)
        assert codec.name == name and codec.modality in ("image", "video", "audio")
        assert codec.library.split(":")[0].split(".")[0] in ("diffusers", "transformers")
        assert codec.source.count("/") == 1 and codec.licence and codec.__doc__
    with pytest.raises(UserError, match="sd-vae, flux2"):
        adapter("vqgan")


def test_names_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.json"):
        load_tokenizer("not-a-tokenizer")
    with pytest.raises(UserError, match="holds no AutoencoderKL "):
        load_tokenizer(f"sd-vae:{tmp_path}")


def test_an_interrupted_save_leaves_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.json comes last: weights without it are no tokenizer, and nobody loads half of one."""
    import selfflow_tokenizers.folder as folder

    tokenizer = video()

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(folder, "save_tensors", full)
    with pytest.raises(OSError):
        tokenizer.save_pretrained(tmp_path / "t")
    monkeypatch.undo()
    with pytest.raises(UserError):
        load_tokenizer(tmp_path / "t")
    shutil.rmtree(tmp_path / "t")
    tokenizer.save_pretrained(tmp_path / "t")
    assert load_tokenizer(tmp_path / "t").spec == tokenizer.spec
