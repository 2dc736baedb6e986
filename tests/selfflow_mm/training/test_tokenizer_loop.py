"""Training of tokenizers: it learns, it goes on to the same bits, it says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from selfflow_mm.config import from_dict, load_config
from selfflow_mm.data.shards import ShardDataset, ShardWriter
from selfflow_mm.data.writing import encode_mp4, encode_png, encode_wav
from selfflow_mm.errors import UserError
from selfflow_mm.training import tokenizer_loop
from selfflow_mm.training.checkpoint import load_group
from selfflow_mm.training.stopping import Stopped
from selfflow_mm.training.tokenizer_adversary import Adversary
from selfflow_mm.training.tokenizer_audio import AudioTask
from selfflow_mm.training.tokenizer_config import TokenizerTrainConfig
from selfflow_mm.training.tokenizer_data import Clips
from selfflow_mm.training.tokenizer_loop import train_tokenizer
from selfflow_mm.training.tokenizer_plan import describe_tokenizer
from selfflow_mm.training.tokenizer_state import build_discriminator
from selfflow_tokenizers import Audio, AudioTokenizer, Image, Video, VideoTokenizer, load_tokenizer

ROOT = Path(__file__).parents[3]
RUN = {"steps": 6, "batch": 2, "save_every": 3, "evaluate_every": 0, "log_every": 2, "device": "cpu"}
VIDEO = {
    "name": "test",
    "video": {
        "frames": 5,
        "model": {"latent_channels": 4, "fine_width": 24, "width": 24, "blocks": 1, "frame_blocks": 0},
    },
    "optimizer": {"lr": 2e-3},
    "run": RUN,
}
AUDIO = {
    "name": "test",
    "audio": {
        "latents": 8,
        "model": {"latent_channels": 8, "frame": 16, "strides": [5, 8], "widths": [32, 32, 16], "blocks": [1, 1, 1]},
        "loss": {"windows": [256]},
    },
    "optimizer": {"lr": 1e-3},
    "run": RUN,
}


def config(data: dict, **run: object) -> TokenizerTrainConfig:
    return from_dict(TokenizerTrainConfig, {**data, "run": {**data["run"], **run}})


def disc(seed: int) -> Video:
    """A bright disc that crosses a grey field."""
    generator = torch.Generator().manual_seed(seed)
    start, speed = torch.rand(2, generator=generator) * 24, torch.rand(2, generator=generator) * 3
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    frames = torch.full((9, 32, 32, 3), 90, dtype=torch.uint8)
    for t in range(9):
        y, x = (start + speed * t).tolist()
        frames[t][(rows - y) ** 2 + (columns - x) ** 2 < 25] = torch.tensor([220, 60, 40], dtype=torch.uint8)
    return Video(frames, 16.0)


def click(seed: int, channels: int = 2, rate: int = 16000) -> Audio:
    generator = torch.Generator().manual_seed(seed)
    start, pitch = int(torch.randint(0, rate // 2, (1,), generator=generator)), 300 + 50 * seed
    time = torch.arange(rate - start) / rate
    wave = torch.zeros(channels, rate)
    wave[:, start:] = 0.5 * torch.exp(-20 * time) * torch.sin(2 * torch.pi * pitch * time)
    return Audio(wave, rate)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "clips"
    with ShardWriter(folder, info={"modalities": ["video", "audio"]}) as writer:
        for i in range(8):
            seconds = click(i).waveform[:, :9000]
            writer.add(f"{i:04d}", {"mp4": encode_mp4(disc(i), Audio(seconds, 16000))}, {"captions": [f"disc {i}"]})
    return folder


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_video_tokenizer_learns_and_is_exported(shards: Path, tmp_path: Path) -> None:
    exported = train_tokenizer(config(VIDEO, steps=40, evaluate_every=20), shards, tmp_path / "run")
    scores = [line["psnr"] for line in log(tmp_path / "run") if "psnr" in line]
    assert len(scores) == 3 and scores[-1] > scores[0] + 1
    tokenizer = load_tokenizer(exported)
    assert isinstance(tokenizer, VideoTokenizer) and tokenizer.spec.channels == 16
    values = tokenizer.encode([ShardDataset(shards)[i].video for i in range(8)]).values
    cells = values.view(-1, 4)
    # Measured on the training clips alone, so only about standard over all clips.
    assert cells.mean(0).abs().max() < 0.3 and (cells.std(0) - 1).abs().max() < 0.3
    report = (tmp_path / "run/report.html").read_text()
    assert "data:video/mp4" in report and "PSNR over moving pixels" in report
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert set(scores) == {"psnr", "object_psnr", "dead_channels", "latent_kurtosis"} and scores["dead_channels"] == 0


def test_a_finished_run_is_made_isometric(shards: Path, tmp_path: Path) -> None:
    """What is decoded stays, the latents become steep, and one number divides all channels."""
    plain = load_tokenizer(train_tokenizer(config(VIDEO, steps=10), shards, tmp_path / "run"))
    before = json.loads((tmp_path / "run/scores.json").read_text())
    settings = config(VIDEO, steps=10)
    assert settings.video is not None
    video = dataclasses.replace(settings.video, model=dataclasses.replace(settings.video.model, isometric=True))
    made = load_tokenizer(
        train_tokenizer(dataclasses.replace(settings, video=video), shards, tmp_path / "run", resume=True)
    )
    after = json.loads((tmp_path / "run/scores.json").read_text())
    assert after["psnr"] == pytest.approx(before["psnr"], abs=0.02)
    assert len(set(plain.spec.scale)) == 4 and len(set(made.spec.scale)) == 1
    clips = [ShardDataset(shards)[i].video for i in range(8)]
    spreads = []
    for tokenizer in (plain, made):
        cells = tokenizer.encode(clips).values.view(-1, 4)
        spreads.append(torch.linalg.eigvalsh(torch.cov(cells.T)))
    assert spreads[1].mean() == pytest.approx(1, abs=0.2)
    assert spreads[1][-1] / spreads[1].sum() > 1.2 * spreads[0][-1] / spreads[0].sum()


def test_an_audio_tokenizer_learns_and_is_exported(shards: Path, tmp_path: Path) -> None:
    settings = config({**AUDIO, "optimizer": {"lr": 4e-3}}, steps=60, batch=6, log_every=10)
    exported = train_tokenizer(settings, shards, tmp_path / "run")
    losses = [line["loss"] for line in log(tmp_path / "run") if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    tokenizer = load_tokenizer(exported)
    assert isinstance(tokenizer, AudioTokenizer) and tokenizer.spec.latents_per_second == 25
    scores = json.loads((tmp_path / "run/scores.json").read_text())
    assert scores["silence_db"] == -120.0 and "si_sdr" in scores and "onset_recall" in scores
    report = (tmp_path / "run/report.html").read_text()
    # Two held-out sounds, each as original, reconstruction and difference.
    assert report.count("data:audio/wav") == 6 and "Its terms, as weighted" in report


def with_part(data: dict, kind: str, **part: object) -> dict:
    """``data`` with settings of its medium's section that differ."""
    merged = {k: {**data[kind].get(k, {}), **v} if isinstance(v, dict) else v for k, v in part.items()}
    return {**data, kind: {**data[kind], **merged}}


#: Everything at once. The discriminator begins after four steps of six: after the checkpoint, before the kill.
FULL_VIDEO = with_part(
    VIDEO,
    "video",
    crop=32,
    patch=1,
    model={"latent": "gaussian"},
    loss={"pyramid": 1.0, "perceptual": "gradients"},
    adversarial={"weight": 0.5, "start": 0.6, "ramp": 0.3, "width": 4, "layers": 2, "span": 2, "frames": 2},
)
FULL_AUDIO = with_part(
    AUDIO,
    "audio",
    model={"latent": "gaussian"},
    loss={"windows": [256], "convergence": 0.5, "mel": 0.5, "side": True},
    adversarial={"weight": 0.5, "start": 0.6, "width": 2, "windows": [128], "freeze_encoder": True},
)


@pytest.mark.parametrize(
    "data", [VIDEO, AUDIO, FULL_VIDEO, FULL_AUDIO], ids=["video", "audio", "full video", "full audio"]
)
def test_a_resumed_run_ends_in_the_same_bits(
    data: dict, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = data in (FULL_VIDEO, FULL_AUDIO)
    train_tokenizer(config(data), shards, tmp_path / "whole")
    step = tokenizer_loop._step

    def killed(*args: object) -> dict[str, float]:
        if args[1].step == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt  # two steps after the checkpoint, as an abrupt end would be
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizer_loop, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(config(data), shards, tmp_path / "cut")
    monkeypatch.undo()
    train_tokenizer(config(data), shards, tmp_path / "cut", resume=True)
    for name in ("model", "ema", "optimizer", *(("discriminator", "discriminator_optimizer") if full else ())):
        a, b = (load_group(tmp_path / run / "checkpoints/step-000006", name) for run in ("whole", "cut"))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    a, b = ((tmp_path / run / "tokenizer/model.safetensors").read_bytes() for run in ("whole", "cut"))
    assert a == b
    if full:
        before, after = (
            next(line for line in log(tmp_path / "cut") if line["step"] == step and "loss" in line) for step in (2, 6)
        )
        assert "discriminator" not in before and {"discriminator", "adversarial", "real", "fake"} <= after.keys()
        # The frozen encoder's term has gone.
        assert "kl" in before and ("kl" in after) == (data is FULL_VIDEO)


def test_a_frozen_encoder_keeps_its_weights(shards: Path, tmp_path: Path) -> None:
    train_tokenizer(config(FULL_AUDIO, save_every=1, keep=6), shards, tmp_path / "run")
    three, four, six = (
        load_group(tmp_path / f"run/checkpoints/step-00000{step}", "model") for step in (3, 4, 6)
    )
    encoder = [k for k in six if k.startswith(("analysis", "down", "encoder", "to_"))]
    decoder = [k for k in six if k not in encoder]
    assert all(torch.equal(four[k], six[k]) for k in encoder)
    assert not all(torch.equal(three[k], four[k]) for k in encoder)
    assert not any(torch.equal(four[k], six[k]) for k in decoder if six[k].ndim > 1)


def test_a_discriminator_may_join_a_run_that_had_none(shards: Path, tmp_path: Path) -> None:
    train_tokenizer(config(VIDEO, steps=3), shards, tmp_path / "run")
    joined = with_part(VIDEO, "video", adversarial={"weight": 0.1, "start": 0.5, "width": 4, "layers": 2})
    train_tokenizer(config(joined), shards, tmp_path / "run", resume=True)
    last = [line for line in log(tmp_path / "run") if "loss" in line][-1]
    assert last["step"] == 6 and "discriminator" in last
    report = (tmp_path / "run/report.html").read_text()
    assert "The discriminator" in report


def test_a_run_keeps_the_perceptual_term_it_began_with(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SELFFLOW_WEIGHTS", str(tmp_path))
    data = with_part(VIDEO, "video", loss={"perceptual": "auto"})
    train_tokenizer(config(data, steps=2), shards, tmp_path / "run")
    assert "LPIPS needs vgg16-397923af.pth" in capsys.readouterr().out
    assert "LPIPS needs vgg16-397923af.pth" in (tmp_path / "run/report.html").read_text()
    (tmp_path / "lpips").mkdir()
    for name in ("vgg16.pth", "vgg.pth"):
        (tmp_path / "lpips" / name).write_bytes(b"not read")
    train_tokenizer(config(data, steps=4), shards, tmp_path / "run", resume=True)
    assert "as the run began with it" in capsys.readouterr().out


def test_a_discriminator_that_is_not_finite_is_named(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Adversary.learn

    def spoiled(self: Adversary, *args: object) -> dict[str, float]:
        return {**learn(self, *args), "discriminator": float("nan")}  # type: ignore[arg-type]

    monkeypatch.setattr(Adversary, "learn", spoiled)
    with pytest.raises(UserError, match="step 4: discriminator is not finite.*the discriminator's lr"):
        train_tokenizer(config(FULL_VIDEO), shards, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/step-000003").exists()


def test_a_signal_saves_first(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tokenizer_loop._step

    def signalled(*args: object) -> dict[str, float]:
        if args[1].step == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizer_loop, "_step", signalled)
    with pytest.raises(Stopped, match="step 2.*--resume"):
        train_tokenizer(config(VIDEO), shards, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/step-000002/state.json").exists()


def test_a_loss_that_is_not_finite_stops_the_run(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tokenizer_loop._step

    def spoiled(*args: object) -> dict[str, float]:
        state = args[1]
        if state.step == 4:  # type: ignore[attr-defined]
            with torch.no_grad():
                next(state.model.parameters()).fill_(float("nan"))  # type: ignore[attr-defined]
        return step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizer_loop, "_step", spoiled)
    with pytest.raises(UserError, match="step 4: loss is not finite.*last good checkpoint"):
        train_tokenizer(config(VIDEO), shards, tmp_path / "run")
    saved = load_group(tmp_path / "run/checkpoints/step-000003", "model")
    assert all(bool(torch.isfinite(v).all()) for v in saved.values())
    assert not (tmp_path / "run/checkpoints/step-000004").exists()


def test_pictures_alone(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "data", info={"modalities": ["image"]}) as writer:
        for i in range(6):
            writer.add(f"{i}", {"png": encode_png(Image(disc(i).frames[i]))}, {"captions": []})
    tokenizer = load_tokenizer(train_tokenizer(config(VIDEO), tmp_path / "data", tmp_path / "run"))
    image = Image(disc(0).frames[0])
    (back,) = tokenizer.decode_images(tokenizer.encode([image]))
    assert back.pixels.shape == image.pixels.shape
    assert "data:image/png" in (tmp_path / "run/report.html").read_text()


def test_pictures_of_many_sizes_are_cut_and_filled(tmp_path: Path) -> None:
    sizes = [(32, 32), (40, 57), (16, 80), (100, 20), (33, 31), (64, 64)]
    with ShardWriter(tmp_path / "data", info={"modalities": ["image"]}) as writer:
        for i, (height, width) in enumerate(sizes):
            pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
            writer.add(f"{i}", {"png": encode_png(Image(pixels))}, {"captions": []})
    with pytest.raises(UserError, match="differ in size.*video.crop"):
        train_tokenizer(config(VIDEO, steps=2), tmp_path / "data", tmp_path / "whole")
    data = with_part(VIDEO, "video", crop=32, frames=1, model={"time_compression": 1, "space_compression": 16})
    tokenizer = load_tokenizer(train_tokenizer(config(data, steps=2), tmp_path / "data", tmp_path / "run"))
    assert tokenizer.spec.modality == "image" and tokenizer.spec.space_compression == 32


def test_sounds_alone_of_another_rate_in_mono(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "data", info={"modalities": ["audio"]}) as writer:
        for i in range(6):
            writer.add(f"{i}", {"wav": encode_wav(click(i, 1, 8000))}, {"captions": []})
    tokenizer = load_tokenizer(train_tokenizer(config(AUDIO), tmp_path / "data", tmp_path / "run"))
    assert tokenizer.spec.audio_channels == 2 and tokenizer.spec.sample_rate == 16000


def test_samples_without_the_medium_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ShardWriter(tmp_path / "data", info={"modalities": ["image", "audio"]}) as writer:
        for i in range(4):
            writer.add(f"seen{i}", {"png": encode_png(Image(disc(i).frames[0]))}, {"captions": []})
        writer.add("heard", {"wav": encode_wav(click(0))}, {"captions": []})
    train_tokenizer(config(VIDEO, steps=1), tmp_path / "data", tmp_path / "run")
    assert "left out 1 of 5 samples" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 usable samples"):
        train_tokenizer(config(AUDIO, steps=1), tmp_path / "data", tmp_path / "other")


@pytest.mark.parametrize(("file", "data"), [("tiny_video.yaml", "cifar10"), ("tiny_audio.yaml", "fsdd")])
def test_shared_data_trains_with_the_shipped_settings(file: str, data: str, tmp_path: Path) -> None:
    folder = ROOT / "../shared/data" / data
    if not folder.is_dir():
        pytest.skip(f"the shared data set {data} is not here")
    settings = load_config(
        TokenizerTrainConfig, ROOT / "configs/tokenizers" / file, ["data.max_clips=12", "run.steps=2"]
    )
    tokenizer = load_tokenizer(train_tokenizer(settings, folder, tmp_path / "run"))
    assert tokenizer.spec.name.startswith("tiny-")


@pytest.mark.parametrize(("level", "said"), [(0.1, True), (0.02, False), (0.001, True), (0.01, False)])
def test_a_level_far_from_the_sounds_is_remarked(level: float, said: bool) -> None:
    quiet = 0.01 * torch.ones(2, 4000)
    part = config(AUDIO).audio
    part = dataclasses.replace(part, model=dataclasses.replace(part.model, level=level))
    notes = AudioTask(config(AUDIO), part, Clips([quiet, -quiet], [quiet], 1.0, [""])).notes()
    assert bool(notes) == said
    assert not said or "audio.model.level=0.01" in notes[0]


def test_pictures_of_a_wrong_size_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "data", info={"modalities": ["image"]}) as writer:
        for i in range(4):
            writer.add(f"{i}", {"png": encode_png(Image(disc(i).frames[0, :24]))}, {"captions": []})
    with pytest.raises(UserError, match="24 x 32.*prepare"):
        train_tokenizer(config(VIDEO), tmp_path / "data", tmp_path / "run")


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "configs/tokenizers").glob("*.yaml")))
def test_the_dry_run_counts_exactly(file: str) -> None:
    settings = load_config(TokenizerTrainConfig, ROOT / "configs/tokenizers" / file)
    with torch.device("meta"):
        total = sum(p.numel() for p in tokenizer_loop.build_autoencoder(settings).parameters())
        judge = sum(p.numel() for p in build_discriminator(settings).parameters())
    text = describe_tokenizer(settings)
    assert f"Parameters: {total:,}," in text and "Memory estimate" in text
    assert (f"Discriminator: {judge:,} parameters" in text) == (settings.adversarial.weight > 0)


THIN_PICTURES = [
    "video.model.fine_width=16", "video.model.width=16", "video.model.fine_blocks=1", "video.model.blocks=1",
    "video.model.frame_blocks=0", "video.crop=32", "video.adversarial.width=4", "video.frames=5",
]  # fmt: skip
THIN_SOUNDS = [
    "audio.model.widths=[16,16,16,16]", "audio.model.blocks=[1,1,1,1]", "audio.adversarial.width=2", "audio.latents=4",
]  # fmt: skip


@pytest.mark.parametrize("name", ["image_8x", "video_8x", "audio_16k", "audio_48k"])
def test_a_shipped_recipe_runs_to_its_end(name: str, shards: Path, tmp_path: Path) -> None:
    """All its terms, the discriminator and the report, on the preset's layout made thin."""
    thin = THIN_SOUNDS if name.startswith("audio") else THIN_PICTURES
    run = ["run.steps=2", "run.batch=2", "optimizer.warmup_steps=0", "run.device=cpu"]
    settings = load_config(TokenizerTrainConfig, ROOT / f"configs/tokenizers/{name}.yaml", [*thin, *run])
    tokenizer = load_tokenizer(train_tokenizer(settings, shards, tmp_path / "run"))
    last = [line for line in log(tmp_path / "run") if "loss" in line][-1]
    wanted = {"convergence", "mel"} if name.startswith("audio") else {"pyramid", "perceptual"}
    assert wanted | {"adversarial", "discriminator"} <= last.keys()
    assert tokenizer.spec.name.startswith(name.replace("_", "-"))


def test_pictures_too_small_for_the_discriminator(shards: Path, tmp_path: Path) -> None:
    data = with_part(VIDEO, "video", adversarial={"weight": 1.0, "layers": 4})
    with pytest.raises(UserError, match="4 layers needs pictures of 48 pixels"):
        train_tokenizer(config(data), shards, tmp_path / "run")
