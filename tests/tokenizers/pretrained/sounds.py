"""Random small sound codecs of the real classes, and what every adapter of sounds is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfflow_tokenizers import Audio, AudioTokenizer, UserError, ensure_torchaudio, load_tokenizer
from selfflow_tokenizers.codecs import SoundCodec
from selfflow_tokenizers.folder import tokenizer_from_codec
from selfflow_tokenizers.pretrained import adapter

ensure_torchaudio()
diffusers = pytest.importorskip("diffusers", reason="diffusers is in the extra 'pretrained'")
#: Of the largest value; float32 rounds in another order where a batch or a piece differs.
TOLERANCE = 1e-4


def seeded(cls: Any, *args: Any, **config: Any) -> Any:
    torch.manual_seed(1)
    return cls(*args, **config).eval()


def noise(*shape: int, peak: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return peak * (2 * torch.rand(*shape, generator=generator) - 1)


def same(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-6), (a - b).abs().max()


@torch.no_grad()
def check_lengths(codec: Any, latents: int) -> None:
    """Exactly n latents of n samples_per_latent samples, and back, for two sounds at once and for one of them."""
    assert isinstance(codec, SoundCodec)
    x = noise(2, codec.channels, latents * codec.samples_per_latent)
    z = codec.encode(x)
    assert z.shape == (2, latents, codec.latent_channels)
    assert torch.equal(z, codec.encode(x)), "encoding is not deterministic"
    same(codec.encode(x[1:]), z[1:])
    y = codec.decode(z)
    samples = latents * codec.samples_per_latent * codec.decoded_rate
    assert samples % codec.sample_rate == 0
    assert y.shape == (2, codec.channels, samples // codec.sample_rate)
    same(codec.decode(z[1:]), y[1:])
    assert not any(p.requires_grad for p in codec.parameters())


def check_tokens(codec: Any) -> AudioTokenizer:
    """Sounds of odd lengths through the tokenizer: the codec's own latents, standardised, and exact lengths back."""
    tokenizer = tokenizer_from_codec(codec)
    assert isinstance(tokenizer, AudioTokenizer)
    spec, step = tokenizer.spec, codec.samples_per_latent
    assert (spec.modality, spec.licence, spec.channels) == ("audio", codec.licence, codec.latent_channels)
    assert spec.latents_per_second == pytest.approx(codec.sample_rate / step)
    short, long = Audio(noise(codec.channels, step - 1), codec.sample_rate), noise(1, 2 * step + 1)
    stream = tokenizer.encode([short, Audio(long, codec.sample_rate)])
    assert stream.values.shape == (2, 3, codec.latent_channels)
    assert stream.valid.sum(1).tolist() == [1, 3]

    raw = codec.encode(torch.nn.functional.pad(long.expand(codec.channels, -1), (0, step - 1))[None])
    mean, deviation = codec.statistics()
    expected = raw if mean is None else (raw - mean) / deviation
    same(stream.values[1:], expected, 1e-4)

    sounds = tokenizer.decode(stream)
    assert [s.rate for s in sounds] == [codec.decoded_rate] * 2
    assert [s.waveform.shape[0] for s in sounds] == [codec.channels] * 2
    for sound, samples in zip(sounds, (step - 1, 2 * step + 1), strict=True):
        assert sound.waveform.shape[1] == round(samples * codec.decoded_rate / codec.sample_rate)
        assert torch.isfinite(sound.waveform).all()
    return tokenizer


def check_centres(tokenizer: AudioTokenizer) -> None:
    """A latent is where the middle of its samples is."""
    step, rate = tokenizer.model.samples_per_latent, tokenizer.model.sample_rate
    for samples in (1, step, 3 * step - 1):
        covered = torch.arange(-(-samples // step) * step).view(-1, step).double().add(0.5).mean(1) / rate
        where = tokenizer.positions(samples)
        assert torch.allclose(where[:, 0], covered.float(), rtol=1e-6)
        assert not where[:, 1:].any()


@torch.no_grad()
def check_pieces(codec: Any, latents: int) -> None:
    """``codec.reach`` latents on each side are enough for a piece's latents and its samples, to float64's last bits."""
    codec = codec.double()
    step, reach = codec.samples_per_latent, codec.reach
    x = noise(1, codec.channels, latents * step).double()
    z = codec.encode(x)
    y = codec.decode(z)
    start, end = latents // 2 - 1, latents // 2 + 1
    first, last = start - reach, end + reach
    assert 0 < first and last < latents
    piece = codec.encode(x[..., first * step : last * step])[:, reach : reach + 2]
    same(piece, z[:, start:end], 1e-11)
    piece = codec.decode(z[:, first:last])[..., reach * step : (reach + 2) * step]
    same(piece, y[..., start * step : end * step], 1e-11)


def check_files(codec: Any, folder: Path) -> None:
    """Saved with its tokenizer, and as the library's files alone, it gives the same latents and the same sound."""
    tokenizer = tokenizer_from_codec(codec)
    sound = Audio(noise(codec.channels, 2 * codec.samples_per_latent), codec.sample_rate)
    stream = tokenizer.encode([sound])
    tokenizer.save_pretrained(folder / "ours")
    codec.save_pretrained(folder / "library")
    for source in (folder / "ours", f"{codec.name}:{folder / 'library'}"):
        again = load_tokenizer(source)
        assert again.spec == tokenizer.spec
        assert torch.equal(again.encode([sound]).values, stream.values)
        assert torch.equal(again.decode(stream)[0].waveform, tokenizer.decode(stream)[0].waveform)
    assert not list((folder / "ours").rglob("*.bin")) and not list((folder / "ours").rglob("*.pt"))


def check_errors(name: str, folder: Path, stranger: Any, *, parts: tuple[str, ...] = ("",)) -> None:
    """No weights, or another class's: one sentence, with what to fetch."""
    with pytest.raises(UserError, match="hf download") as missing:
        load_tokenizer(name)
    sentence = str(missing.value)
    cls = adapter(name)
    assert cls.source in sentence and f"name {name}:" in sentence and "\n" not in sentence
    for part in parts:
        assert not part or f"'{part}/*'" in sentence
    with pytest.raises(UserError, match=r"empty|vocoder"):
        (folder / "empty").mkdir()
        load_tokenizer(f"{name}:{folder / 'empty'}")
    for part in parts:
        stranger.save_pretrained(folder / "stranger" / part, safe_serialization=True)
    with pytest.raises(UserError, match="config.json is that of") as wrong:
        load_tokenizer(f"{name}:{folder / 'stranger'}")
    assert "\n" not in str(wrong.value)


def check_missing_weight(name: str, module: Any, folder: Path, key: str) -> None:
    """A checkpoint without one of its weights is refused, not started at random."""
    from safetensors.torch import load_file, save_file

    module.save_pretrained(folder, safe_serialization=True)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    del weights[key]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=key.split(".")[0]):
        load_tokenizer(f"{name}:{folder}")
