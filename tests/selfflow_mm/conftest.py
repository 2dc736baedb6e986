"""A model's world small enough to train in a test: tokenizers of a few thousand weights and a data set of ten clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

SMALL = {
    "model": {
        "width": 32,
        "heads": 2,
        "double_blocks": 1,
        "single_blocks": 2,
        "mlp_ratio": 2,
        "rope_axes": [8, 4, 4, 0],
    },
    "optimizer": {"lr": 1e-3, "warmup_steps": 2},
    "run": {"steps": 6, "save_every": 3, "log_every": 2, "seed": 5, "threads": 2, "prompts": ["one", "two"]},
    "sampling": {"steps": 2},
}


@pytest.fixture(scope="session")
def small_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a video and an audio tokenizer with random weights."""
    from selfflow_tokenizers import (
        AudioAutoencoder,
        AudioAutoencoderConfig,
        AudioTokenizer,
        VideoAutoencoder,
        VideoAutoencoderConfig,
        VideoTokenizer,
    )

    root = tmp_path_factory.mktemp("tokenizers")
    torch.manual_seed(0)
    video = VideoAutoencoderConfig(
        latent_channels=3, fine_width=8, width=8, frame_width=8, fine_blocks=1, blocks=1, frame_blocks=1
    )
    VideoTokenizer(VideoAutoencoder(video)).save_pretrained(root / "video")
    audio = AudioAutoencoderConfig(latent_channels=4, widths=(8, 8, 8), blocks=(1, 1, 1))
    AudioTokenizer(AudioAutoencoder(audio)).save_pretrained(root / "audio")
    return {"image": str(root / "video"), "video": str(root / "video"), "audio": str(root / "audio")}


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of 9 frames of 32 x 32 with 0.5625 s of stereo sound; the last two have no sound."""
    from selfflow_mm.data.shards import ShardWriter
    from selfflow_mm.data.writing import encode_mp4
    from selfflow_tokenizers.media import Audio, Video

    folder = tmp_path_factory.mktemp("clips") / "data"
    generator = torch.Generator().manual_seed(0)
    info = {
        "modalities": ["video", "audio"],
        "video": {"frames": 9, "height": 32, "width": 32, "fps": 16},
        "audio": {"rate": 16000, "channels": 2},
        "created_by": "tests",
    }
    with ShardWriter(folder, samples_per_shard=6, info=info) as writer:
        for i in range(10):
            frames = torch.zeros(9, 32, 32, 3, dtype=torch.uint8)
            for t in range(9):
                frames[t, 2 * t : 2 * t + 8, 8:16] = torch.tensor([25 * i, 255 - 25 * i, 100], dtype=torch.uint8)
            sound = Audio(0.3 * torch.randn(2, 9000, generator=generator).clamp(-3, 3) / 3, 16000) if i < 8 else None
            data = encode_mp4(Video(frames, 16.0), sound, fast=True)
            writer.add(f"{i:06d}", {"mp4": data}, {"captions": [f"clip {i}", f"number {i}"]})
    return folder


@pytest.fixture(scope="session")
def mixed_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain tar of a dozen clips, half with sound: six of 9 x 32 x 32, four of 5 x 16 x 48, two of 5 x 48 x 16.

    Tokens fill grids of 3 x 2 x 2, and six tokens two grids, 2 x 1 x 3 and 2 x 3 x 1.
    """
    import tarfile
    from io import BytesIO

    from selfflow_mm.data.writing import encode_mp4
    from selfflow_tokenizers.media import Audio, Video

    folder = tmp_path_factory.mktemp("mixed") / "data"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    sizes = [(9, 32, 32), (5, 16, 48), (9, 32, 32), (5, 48, 16), (9, 32, 32), (5, 16, 48)] * 2
    with tarfile.open(folder / "clips.tar", "w") as tar:
        for i, (frames, height, width) in enumerate(sizes):
            picture = torch.full((frames, height, width, 3), 20 * i, dtype=torch.uint8)
            picture[:, : height // 2] = 255 - 20 * i
            noise = 0.1 * torch.randn(2, 1000 * frames, generator=generator)
            sound = Audio(noise.clamp(-1, 1), 16000) if i < 6 else None
            files = {"mp4": encode_mp4(Video(picture, 16.0), sound, fast=True), "txt": f"mixed {i}".encode()}
            for ending, content in files.items():
                member = tarfile.TarInfo(f"{i:04d}.{ending}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    return folder


@pytest.fixture
def small_config(tmp_path: Path, small_tokenizers: dict[str, str], small_clips: Path, tmp_path_factory) -> Path:
    """A YAML file that trains on the clips, with shared latents so that they are encoded once for all tests."""
    latents = tmp_path_factory.getbasetemp() / "latents"
    sources = {
        "clips": {"path": str(small_clips), "batch": 3, "tasks": {"t2va": 0.5, "t2v": 0.2, "v2a": 0.2, "t2i": 0.1}}
    }
    config = SMALL | {"tokenizers": small_tokenizers, "data": {"latents": str(latents), "sources": sources}}
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path
