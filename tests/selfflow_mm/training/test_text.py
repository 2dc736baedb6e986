"""Training on the tokens of an encoder of transformers, and with pretrained tokenizers of media."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfflow_mm.cli.main import main
from selfflow_mm.config import from_dict, load_config, to_dict
from selfflow_mm.data.encode_dataset import encode_dataset
from selfflow_mm.data.latents import fingerprint
from selfflow_mm.data.shards import ShardDataset
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_mm.training import loop
from selfflow_mm.training.batches import Batches
from selfflow_mm.training.config import SourceConfig, TextConfig, TrainConfig
from selfflow_mm.training.parts import blind_to_word_order, build_text_encoder, encode_captions, load_tokenizers
from selfflow_mm.training.plan import describe
from selfflow_tokenizers import ByteTextEncoder, load_tokenizer
from selfflow_tokenizers.text_pretrained import PretrainedTextEncoder

from ...tokenizers import texts
from .test_loop import assert_same, killed_at


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts.t5(tmp_path_factory.mktemp("text") / "t5")


@pytest.fixture(scope="module")
def latents(small_clips, small_tokenizers, tmp_path_factory):
    tokenizers = {"video": load_tokenizer(small_tokenizers["video"])}
    return encode_dataset(ShardDataset(small_clips), tokenizers, {"video": "h"}, tmp_path_factory.mktemp("x") / "y")


def train(config: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    settings = load_config(TrainConfig, config, ["run.threads=1", *overrides])
    return loop.train(settings, out, resume=resume)


def test_a_run_trains_on_the_encoders_tokens_and_ends_in_the_same_bits_when_killed(small_config, tmp_path, t5, capsys):
    """Also where the stored embeddings are lost between: a fresh encoding gives what was stored."""
    setting = f"text.encoder={t5}"
    train(small_config, tmp_path / "whole", setting)
    assert "captions: 23 texts of" in capsys.readouterr().out  # ten clips of two wordings, two prompts, the empty one
    with killed_at(5):
        train(small_config, tmp_path / "cut", setting)
    shutil.rmtree(tmp_path / "cut" / "text")
    train(small_config, tmp_path / "cut", setting, resume=True)
    assert_same(tmp_path / "whole/checkpoints/step-000006", tmp_path / "cut/checkpoints/step-000006")
    line = json.loads((tmp_path / "whole/log.jsonl").read_text().splitlines()[-1])
    assert 0 < line["loss"] < 100
    about = json.loads((tmp_path / "whole/model/config.json").read_text())
    assert about["model"]["text_channels"] == 16
    assert about["text_encoder"]["encoder"] == str(t5) and about["text_encoder"]["name"].startswith("t5-")


def test_a_trained_model_finds_its_encoder_again_and_refuses_others(small_config, tmp_path, t5):
    moved = shutil.copytree(t5, tmp_path / "t5")
    run = tmp_path / "run"
    train(small_config, run, f"text.encoder={moved}", "run.steps=2")
    [first] = Pipeline.from_pretrained(run)(["a red ball"], "t2i")
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="text encoder cannot be had: .*--text-encoder"):
        Pipeline.from_pretrained(run)
    [again] = Pipeline.from_pretrained(run, text_encoder=str(tmp_path / "elsewhere"))(["a red ball"], "t2i")
    assert torch.equal(first.image.pixels, again.image.pixels)
    command = ["generate", "a red ball", "--model", str(run), "--out", str(tmp_path / "a.png")]
    assert main(command) == 2 and main([*command, "--text-encoder", str(tmp_path / "elsewhere")]) == 0
    other = shutil.copytree(t5, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    for given in (str(other), PretrainedTextEncoder.from_pretrained(other), ByteTextEncoder(16)):
        with pytest.raises(UserError, match="was trained with the text encoder .*has other weights"):
            Pipeline.from_pretrained(run, text_encoder=given)
    with pytest.raises(UserError, match="was trained with the text encoder"):
        train(small_config, run, f"text.encoder={other}", "run.steps=4", resume=True)
    with pytest.raises(UserError, match="'bytes', so it cannot take"):
        Pipeline.from_pretrained("tiny", text_encoder=str(other))


def test_an_encoder_that_is_not_here_is_refused_before_there_is_a_folder(small_config, tmp_path):
    for name, message in (("nobody/t5", "hf download nobody/t5"), (str(tmp_path / "t5"), "no folder")):
        with pytest.raises(UserError, match=f"text: .*{message}"):
            describe(small_config, [f"text.encoder={name}"])
        with pytest.raises(UserError, match=message):
            train(small_config, tmp_path / "run", f"text.encoder={name}")
    assert not (tmp_path / "run").exists()


def test_the_dry_run_tells_the_encoder_and_the_room_its_captions_take(small_config, t5):
    shown = describe(small_config, [f"text.encoder={t5}", "text.layers=[1, 2]", "text.rounding=float16"])
    assert f"Text: {t5}, 32 channels, at most 256 tokens, layers 1, 2 (t5-" in shown
    assert "0 KiB for a caption of 3" in shown and "text about 3)" in shown  # "clip 0" and the end token
    assert "cannot tell the order of words" not in shown
    bundled = describe(small_config, [])
    assert "Text: bytes, 192 channels, at most 256 tokens\n" in bundled and "cannot tell the order of words" in bundled


def test_only_the_bundled_encoder_is_blind_to_the_order_of_words(t5):
    from selfflow_mm.models.joint import JointConfig

    blind = JointConfig(width=32, heads=2, rope_axes=(8, 4, 4, 0), modalities={"video": 4}, text_channels=16)
    assert blind_to_word_order(blind, ByteTextEncoder(16))
    assert not blind_to_word_order(blind, PretrainedTextEncoder.from_pretrained(t5))


def cached_batches(latents, t5: Path, tmp_path: Path, dropout: float) -> Batches:
    """Batches whose encoder can only read what was encoded ahead."""
    config = TrainConfig(text=TextConfig(encoder=str(t5)))
    sources = {"clips": (SourceConfig("a", {"t2v": 1.0}, batch=4), latents)}
    encoder = encode_captions(config, build_text_encoder(config.text), sources, tmp_path, torch.device("cpu"))

    def gone(dtype: torch.dtype) -> torch.nn.Module:
        raise AssertionError("the encoder was asked for")

    encoder.encoder._load = gone
    return Batches(sources, encoder, 7, dropout)


def test_captions_are_dropped_at_their_rate_and_the_empty_one_is_stored(latents, t5, tmp_path):
    batches = cached_batches(latents, t5, tmp_path, dropout=0.3)
    empty = PretrainedTextEncoder.from_pretrained(t5).encode([""]).values[0]
    dropped = []
    for step in range(100):
        text = batches.at(step)[2].text
        for value, valid in zip(text.values, text.valid, strict=True):
            dropped.append(int(valid.sum()) == 1)
            assert torch.equal(value[valid], empty) == dropped[-1]
    assert sum(dropped) / len(dropped) == pytest.approx(0.3, abs=0.05)


def test_every_caption_is_the_encoders_own(latents, t5, tmp_path):
    batches = cached_batches(latents, t5, tmp_path, dropout=0.0)
    fresh = PretrainedTextEncoder.from_pretrained(t5)
    wordings = {text for captions in latents.captions for text in captions}
    values = {text: fresh.encode([text]).values[0] for text in wordings}
    for step in range(5):
        text = batches.at(step)[2].text
        for value, valid, i in zip(
            text.values, text.valid, batches.numbers("clips", batches.at(step)[2]), strict=False
        ):
            assert any(torch.equal(value[valid], v) for v in values.values()), i


def test_settings_of_text_are_checked_and_older_configs_load(t5):
    old = to_dict(TrainConfig())
    del old["text"]
    assert from_dict(TrainConfig, old) == TrainConfig() and TrainConfig().text.encoder == "bytes"
    for data, message in (
        ({"encoder": "bytes", "layers": [1]}, "layers is of encoders of transformers"),
        ({"cache": "somewhere"}, "cache is of encoders"),
        ({"max_tokens": 0}, "max_tokens is at least 1"),
        ({"pad_to": 0}, "as is pad_to"),
        ({"layer": [1]}, "unknown key 'text.layer'; the nearest is 'text.layers'"),
        ({"rounding": "int8"}, "'text.rounding' is \"?'?int8"),
    ):
        with pytest.raises(UserError, match=message):
            from_dict(TrainConfig, {"text": data})
    with pytest.raises(UserError, match="text: layers: this t5 has layers 0 to 2"):
        build_text_encoder(TextConfig(encoder=str(t5), layers=(9,)))
    assert build_text_encoder(TextConfig(max_tokens=5)).encode(["a b c d e f g"]).values.shape[1] == 5


# Pretrained tokenizers of media


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan 2.2's real class with a few thousand random weights: 4 frames x 16 x 16 pixels to a token."""
    from selfflow_tokenizers import ensure_torchaudio

    ensure_torchaudio()
    diffusers = pytest.importorskip("diffusers", reason="diffusers is in the extra 'pretrained'")
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[True, True],
        latents_mean=[0.4, -0.2, 0.1, -0.3], latents_std=[0.5, 1.1, 0.7, 0.9],
        is_residual=True, in_channels=12, out_channels=12, patch_size=2, decoder_base_dim=6,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("wan") / "weights"
    vae.save_pretrained(folder)
    return folder


def test_a_run_trains_on_a_pretrained_tokenizer_and_takes_it_along(small_config, small_tokenizers, tmp_path, wan):
    tokenizers = {"video": f"wan2.2:{wan}", "image": f"wan2.2:{wan}", "audio": small_tokenizers["audio"]}
    settings = [f"tokenizers={json.dumps(tokenizers)}", f"data.latents={tmp_path / 'latents'}", "run.steps=2"]
    assert "video 12," in describe(small_config, settings)  # 3 latent frames of 2 x 2 tokens
    model = train(small_config, tmp_path / "run", *settings)
    about = json.loads((tmp_path / "latents/clips/latents.json").read_text())["tokenizers"]
    loaded, _ = load_tokenizers(tokenizers)
    assert about["video"] == loaded["video"].spec.name and about["video"].startswith("wan2.2-")
    assert loaded["video"] is loaded["image"]
    pipeline = Pipeline.from_pretrained(model)
    assert pipeline.tokenizers["video"].spec == loaded["video"].spec
    [clip] = pipeline(["a"], "t2va")
    assert clip.video.frames.shape == (9, 32, 32, 3) and clip.audio.waveform.shape == (2, 9000)


def test_latents_of_another_pretrained_tokenizer_are_refused(small_clips, tmp_path, wan):
    tokenizer = load_tokenizer(f"wan2.2:{wan}")
    name = fingerprint(tokenizer, f"wan2.2:{wan}")
    assert name == tokenizer.spec.name
    data = ShardDataset(small_clips)
    encode_dataset(data, {"video": tokenizer}, {"video": name}, tmp_path / "l", max_samples=1)
    with pytest.raises(UserError, match="latents of another tokenizers"):
        encode_dataset(data, {"video": tokenizer}, {"video": name[:-1] + "x"}, tmp_path / "l", max_samples=1)


def test_names_of_tokenizers_that_are_none_are_refused(small_tokenizers):
    for name, message in (
        ("nowhere", "tokenizers.video: there is no folder 'nowhere'.*tiny/video.*wan2.2"),
        ("tiny/audio", "tokenizers.video: .* is a tokenizer of audio"),
        ("wan2.2:/nowhere", "wan2.2"),
        ("nobody/nothing", "hf download nobody/nothing"),
    ):
        with pytest.raises(UserError, match=message):
            load_tokenizers({"video": name})
    loaded, named = load_tokenizers({"video": small_tokenizers["video"], "image": "tiny/video"})
    assert loaded["video"].spec != loaded["image"].spec and named["image"].endswith("tiny/tokenizers/video")
