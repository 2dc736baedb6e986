"""Sampling against data with a known flow; folders of samples whatever the batch, the process or the interruption."""

from __future__ import annotations

import json
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from selfflow_mm.errors import UserError
from selfflow_mm.generation.imagenet import ImageNetSampler, ImageNetSampling, parse_classes
from selfflow_mm.generation.imagenet_folder import SampleFolder, SampleSettings
from selfflow_mm.generation.imagenet_run import fill
from selfflow_mm.models import ImageNetConfig, SelfFlowPerTokenDiT
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import NoiseLevels

TINY = ImageNetConfig(input_size=4, hidden_size=16, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=11)
STD = 0.5


class Gaussian(nn.Module):
    """The exact velocity of data whose class c is N(c, STD^2) in every value; the null class 10 is one of them."""

    config = TINY

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1))
        self.calls: list[tuple[float, list[int]]] = []

    def forward(self, x: Tensor, levels: NoiseLevels, labels: Tensor) -> Tensor:
        t = levels.per_token().unsqueeze(-1)
        mean = labels.view(-1, 1, 1).float()
        centred = (x - (1 - t) * mean) / ((1 - t) ** 2 * STD**2 + t**2)
        self.calls.append((float(t.flatten()[0]), labels.tolist()))
        return t * centred - (mean + (1 - t) * STD**2 * centred)


def sampler(net: nn.Module | None = None, seed: int = 0, **options: Any) -> ImageNetSampler:
    if net is None:
        torch.manual_seed(0)
        net = SelfFlowPerTokenDiT.from_config(TINY)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.1)
    return ImageNetSampler(net, ImageNetSampling(**options), seed)  # type: ignore[arg-type]


def first_noise(images: Tensor, seed: int = 0) -> Tensor:
    """Of each image, in the latent's layout: token (row, column), then (channel, row, column) inside the patch."""
    noise = Randomness(seed).normal("imagenet/start", 0, images, 64).view(-1, 2, 2, 4, 2, 2)
    return noise.permute(0, 3, 1, 4, 2, 5).reshape(-1, 4, 4, 4)


def test_the_ode_carries_noise_to_each_classs_data():
    labels, images = torch.tensor([0, 3, 9]), torch.tensor([5, 6, 7])
    draw = sampler(Gaussian(), seed=2, method="ode", steps=25, solver="heun")
    expected = labels.view(-1, 1, 1, 1) + STD * first_noise(images, seed=2)
    torch.testing.assert_close(draw(labels, images), expected, atol=0.02, rtol=0)


def test_the_sde_has_each_classs_mean_and_spread():
    draw = sampler(Gaussian(), steps=40)
    latents = draw(torch.tensor([2] * 30 + [7] * 30), torch.arange(60)).view(2, -1)
    # 1920 values a class: standard error of the mean 0.011; 40 steps leave the spread a few percent off.
    assert latents.mean(dim=1) == pytest.approx([2, 7], abs=0.05)
    assert latents.std(dim=1) == pytest.approx([STD, STD], rel=0.06)


def test_guidance_moves_the_mean_away_from_the_null_classs():
    """Equal spreads make the velocity affine in the mean, so guided means are u + scale (c - u)."""
    labels, images = torch.tensor([4, 6]), torch.arange(2)
    draw = sampler(Gaussian(), method="ode", steps=25, solver="heun", guidance=1.5)
    expected = (10 + 1.5 * (labels - 10)).view(-1, 1, 1, 1) + STD * first_noise(images)
    torch.testing.assert_close(draw(labels, images), expected, atol=0.03, rtol=0)


def test_guidance_acts_in_its_interval_alone():
    net = Gaussian()
    sampler(net, method="ode", steps=10, guidance=2.0, interval=(0.25, 0.75))(torch.tensor([4]), torch.tensor([0]))
    assert len(net.calls) == 10
    for t, labels in net.calls:
        assert labels == ([4, 10] if 0.25 <= t <= 0.75 else [4])


@settings(max_examples=6)
@given(st.integers(1, 5), st.integers(0, 5), st.sampled_from(["sde", "ode"]))
def test_an_image_does_not_depend_on_its_batch(size, first, method):
    draw = sampler(steps=3, method=method, guidance=1.5)
    images = torch.arange(first, first + size)
    labels = draw.labels("random", images)
    together = draw(labels, images)
    apart = torch.cat([draw(label, image) for label, image in zip(labels.split(1), images.split(1), strict=True)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_bfloat16_sampling_stays_near():
    labels, images = torch.tensor([1, 2]), torch.arange(2)
    full = sampler(steps=4)(labels, images)
    half = sampler(steps=4, precision="bfloat16")(labels, images)
    assert half.dtype == torch.float32 and 0 < (half - full).abs().max() < 0.05 * full.abs().max()


def test_classes():
    draw, images = sampler(), torch.arange(1000)
    assert torch.equal(draw.labels("balanced", images).bincount(), torch.full((10,), 100))
    assert draw.labels("7,2-4", images[:6]).tolist() == [7, 2, 3, 4, 7, 2]
    chosen = draw.labels("random", images)
    assert torch.equal(chosen[500:], draw.labels("random", images[500:]))
    counts = chosen.bincount()
    assert len(counts) == 10 and counts.min() > 60  # 100 each, standard deviation 9.5; never the null class
    assert parse_classes("10", 11) == [10]
    for text in ("cat", "", "3-", "-3", "11", "5-3", "1,,2"):
        with pytest.raises(UserError, match="classes"):
            parse_classes(text, 11)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 1}, "at least 2 steps"),
        ({"solver": "heun"}, "the ODE's"),
        ({"shift": 2.0}, "the ODE's"),
        ({"method": "pde"}, "sde or ode"),
        ({"method": "ode", "steps": 0}, "steps >= 1"),
        ({"method": "ode", "shift": -1.0}, "positive shift"),
        ({"interval": (0.5, 0.5)}, "0 <= low < high <= 1"),
        ({"interval": (0.0, 1.5)}, "0 <= low < high <= 1"),
        ({"guidance": -1.0}, "guidance is at least 0"),
        ({"guidance": float("nan")}, "guidance is at least 0"),
    ],
)
def test_impossible_settings_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        ImageNetSampling(**options)


def test_numbers_that_are_not_finite_are_no_image():
    draw = sampler(steps=2)
    nn.init.constant_(draw.net.final_layer.linear.bias, float("nan"))
    with pytest.raises(UserError, match="not finite"):
        draw(torch.tensor([1]), torch.tensor([1]))


SETTINGS = SampleSettings("0" * 64, 23, "balanced", 0, ImageNetSampling(steps=3), "latents", False)
PIXELS = replace(SETTINGS, decoder="tests:pixels", png=True)


def pixels(latents: Tensor) -> Tensor:
    return (127.5 + 60 * latents[:, :3]).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def make(path: Path, settings: SampleSettings, batch: int, block: int, world: int = 1) -> Path:
    folders = [SampleFolder(path, settings, block, rank, world) for rank in range(world)]
    for folder in reversed(folders):  # process 0 may be the last
        draw = ImageNetSampler(sampler().net, settings.sampling, settings.seed)
        fill(folder, draw, None if settings.decoder == "latents" else pixels, batch)
    folders[0].wait()
    return folders[0].merge({})


def test_latents_do_not_depend_on_batch_parts_or_processes(tmp_path):
    arrays = []
    for i, (batch, block, world) in enumerate([(23, 23, 1), (4, 4, 2), (3, 8, 1), (10, 3, 3)]):
        with np.load(make(tmp_path / str(i), SETTINGS, batch, block, world)) as file:
            arrays.append((file["arr_0"], file["arr_1"]))
    for latents, labels in arrays:
        assert latents.shape == (23, 4, 4, 4) and latents.dtype == np.float32
        assert np.abs(latents - arrays[0][0]).max() < 1e-5
        assert labels.dtype == np.int64 and labels.tolist() == [i % 10 for i in range(23)]


def test_the_result_is_what_adms_evaluator_reads(tmp_path):
    path = make(tmp_path / "out", PIXELS, 6, 6)
    assert path.name == "samples_23.npz"
    with np.load(path) as file:
        images = file["arr_0"]
    assert images.shape == (23, 4, 4, 3) and images.dtype == np.uint8
    # The evaluator does not load the array but reads it from the archive piece by piece, in this way.
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as entry:
        assert np.lib.format.read_magic(entry) == (1, 0)
        assert np.lib.format.read_array_header_1_0(entry) == ((23, 4, 4, 3), False, np.dtype(np.uint8))
        assert entry.read() == images.tobytes()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "images" / "000022.png")), images[22])
    sheet = np.asarray(Image.open(tmp_path / "out" / "contact.png"))
    assert sheet.shape == (20, 20, 3) and np.array_equal(sheet[16:20, 8:12], images[22]) and not sheet[16:, 12:].any()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "contact.png",
        "images",
        "run.json",
        "samples_23.npz",
        "settings.json",
    ]
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert settings["num_images"] == 23 and settings["sampling"]["steps"] == 3


def test_what_is_there_is_not_made_again_and_nothing_goes_before_the_merge(tmp_path):
    folder = SampleFolder(tmp_path / "out", SETTINGS, 4)
    draw = sampler(steps=3)
    calls = []

    class Stopped(Exception):
        pass

    def progress(made: float) -> None:
        calls.append(made)
        if len(calls) == 8:  # in the third part's steps
            raise Stopped

    with pytest.raises(Stopped):
        fill(folder, draw, None, 4, progress)
    assert folder.done() == 8 and not folder.complete
    with pytest.raises(UserError, match=r"000008-000011.npz cannot be read"):
        folder.merge({})
    assert folder.done() == 8

    again = SampleFolder(tmp_path / "out", SETTINGS, 9)
    assert again.block == 4 and len(again.missing()) == 4
    made: list[float] = []
    fill(again, draw, None, 9, made.append)
    assert made[0] > 8 and made[-1] == pytest.approx(23)
    (again.parts / "000004-000007.npz").write_bytes(b"")
    with pytest.raises(UserError, match="000004-000007.npz cannot be read .* delete it"):
        again.merge({})
    (again.parts / "000004-000007.npz").unlink()
    assert again.done() == 19
    fill(again, draw, None, 9)
    with np.load(again.merge({})) as file, np.load(make(tmp_path / "once", SETTINGS, 23, 23)) as once:
        assert np.abs(file["arr_0"] - once["arr_0"]).max() < 1e-5
    assert again.complete and not again.parts.exists()


def test_other_settings_are_refused(tmp_path):
    SampleFolder(tmp_path, SETTINGS, 4)
    other = replace(SETTINGS, seed=1, sampling=replace(SETTINGS.sampling, steps=4), checkpoint="1" * 64)
    with pytest.raises(UserError) as caught:
        SampleFolder(tmp_path, other, 4)
    assert "(checkpoint 000000000000, now 111111111111, seed 0, now 1, steps 3, now 4)" in str(caught.value)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="does not describe samples"):
        SampleFolder(tmp_path, SETTINGS, 4)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match="holds parts but no settings.json"):
        SampleFolder(tmp_path, SETTINGS, 4)


def test_a_process_waits_for_process_0s_settings(tmp_path):
    timer = threading.Timer(0.3, SampleFolder, (tmp_path / "out", SETTINGS, 4, 0, 2))
    timer.start()
    assert SampleFolder(tmp_path / "out", SETTINGS, 9, rank=1, world=2).block == 4
    timer.join()
