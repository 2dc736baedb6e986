"""LPIPS against its definition written out; where its weights are looked for; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from selfflow_mm.errors import UserError
from selfflow_mm.training.lpips import Lpips, load_lpips, lpips_files, lpips_folder
from selfflow_mm.training.tokenizer_video_loss import Perceptual, VideoLossConfig

#: torchvision's vgg16: channels of its convolutions, M for a pooling; each convolution is followed by a ReLU.
LAYOUT = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def vgg16(thin: int = 1) -> dict[str, torch.Tensor]:
    """Random weights in torchvision's layout; ``thin`` divides the channels, for speed."""
    generator = torch.Generator().manual_seed(0)
    state, place, before = {}, 0, 3
    for entry in LAYOUT:
        if entry == "M":
            place += 1
            continue
        assert isinstance(entry, int)
        after = entry // thin
        weight = torch.randn(after, before, 3, 3, generator=generator)
        state[f"features.{place}.weight"] = weight * (2 / (9 * before)) ** 0.5
        state[f"features.{place}.bias"] = 0.1 * torch.randn(after, generator=generator)
        place, before = place + 2, after
    return state


def linear(thin: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = (64, 128, 256, 512, 512)
    return {f"lin{i}.model.1.weight": torch.rand(1, w // thin, 1, 1, generator=generator) for i, w in enumerate(widths)}


def by_definition(vgg: dict, lin: dict, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Zhang et al. (2018), eq. 1, layer by layer as VGG16 is laid out, in float64."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = torch.cat([a, b]).double()
    # Of pictures in [0, 1]; the authors' constants are these, rounded and restated for [-1, 1].
    x = ((x + 1) / 2 - mean.double().view(1, 3, 1, 1)) / deviation.double().view(1, 3, 1, 1)
    distance, stage, place = torch.zeros(len(a), dtype=torch.float64), 0, 0
    for i, entry in enumerate(LAYOUT):
        if entry == "M":
            x = F.max_pool2d(x, 2)
            place += 1
            continue
        weight, bias = (vgg[f"features.{place}.{name}"].double() for name in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, padding=1).relu()
        place += 2
        if LAYOUT[i + 1] == "M":
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            error = (unit[: len(a)] - unit[len(a) :]).square()
            distance += (lin[f"lin{stage}.model.1.weight"][0].double() * error).sum(1).mean((1, 2))
            stage += 1
    return distance


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    a = torch.rand(2, 3, 40, 33, generator=generator) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)


def write(folder: Path, thin: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vgg16(thin) | {"classifier.0.weight": torch.zeros(3, 3)}, folder / "vgg16-397923af.pth")
    torch.save(linear(thin), folder / "vgg.pth")
    return folder


def test_the_definition(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pictures
    ours = Lpips(vgg16(4), linear(4))(a, b)
    assert torch.allclose(ours.double(), by_definition(vgg16(4), linear(4), a, b), rtol=2e-3)
    assert float(ours.min()) > 0.1


def test_the_same_picture_is_at_distance_nothing_and_black_has_a_gradient() -> None:
    network = Lpips(vgg16(8), linear(8))
    picture = torch.rand(1, 3, 32, 32)
    assert float(network(picture, picture)) == 0
    for bias in (name for name in network.state_dict() if name.endswith("bias")):
        network.state_dict()[bias].fill_(-10.0)  # then every feature is 0, as in a dead region
    black = torch.zeros(1, 3, 32, 32, requires_grad=True)
    network(black, picture).sum().backward()
    assert black.grad is not None and bool(torch.isfinite(black.grad).all())
    assert not any(p.requires_grad for p in network.parameters())


def test_both_kinds_of_files_are_read(tmp_path: Path, pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    wanted = Lpips(vgg16(8), linear(8))(*pictures)
    assert torch.equal(load_lpips(write(tmp_path / "pth"))(*pictures), wanted)
    folder = tmp_path / "safetensors"
    folder.mkdir()
    save_file(vgg16(8), folder / "vgg16.safetensors")
    save_file(linear(8), folder / "vgg.safetensors")
    assert torch.equal(load_lpips(folder)(*pictures), wanted)


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFFLOW_WEIGHTS", str(tmp_path))
    assert lpips_folder() == tmp_path / "lpips" and lpips_files(lpips_folder()) is None
    monkeypatch.delenv("SELFFLOW_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lpips_folder() == tmp_path / ".cache/selfflow/lpips"


def test_auto_takes_what_is_there_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFFLOW_WEIGHTS", str(tmp_path))
    config = VideoLossConfig(perceptual="auto")
    without = Perceptual(config)
    assert without.kind == "gradients" and "vgg16-397923af.pth" in str(without.choice)
    assert str(tmp_path / "lpips") in str(without.choice)
    write(tmp_path / "lpips")
    found = Perceptual(config)
    assert found.kind == "lpips" and "LPIPS, weights of" in str(found.choice)
    # A run that began without goes on without; one that began with LPIPS cannot go on when it is gone.
    assert Perceptual(config, "gradients").kind == "gradients"
    assert Perceptual(config, "none").kind == "lpips"
    (tmp_path / "lpips/vgg.pth").unlink()
    with pytest.raises(UserError, match="LPIPS needs vgg16"):
        Perceptual(config, "lpips")
    with pytest.raises(UserError, match="LPIPS needs vgg16"):
        Perceptual(VideoLossConfig(perceptual="lpips"))


def test_the_term_is_that_of_the_frames_drawn(tmp_path: Path) -> None:
    config = VideoLossConfig(perceptual="lpips", perceptual_weight=0.5, lpips=str(write(tmp_path)))
    term = Perceptual(config)
    clips = torch.rand(2, 2, 5, 32, 32, 3) * 2 - 1
    frames = torch.tensor([[0, 3], [1, 4]])
    assert term.network is not None
    chosen = [(clips[0, i, t], clips[1, i, t]) for i in range(2) for t in frames[i].tolist()]
    each = [float(term.network(*(x.permute(2, 0, 1)[None] for x in pair))) for pair in chosen]
    assert float(term(clips[0], clips[1], frames)) == pytest.approx(0.5 * sum(each) / 4, rel=1e-4)
    with pytest.raises(UserError, match="16 pixels"):
        term.check(8)


@pytest.mark.parametrize("content", [b"no weights", None, "wrong"])
def test_files_that_are_no_weights(content: object, tmp_path: Path) -> None:
    file = write(tmp_path) / "vgg.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(Path("x") if content is None else {"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)}, file)
    with pytest.raises(UserError, match="vgg.pth"):
        load_lpips(tmp_path)
