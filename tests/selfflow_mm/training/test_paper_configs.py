"""Every run of the paper plans from its file, offline, with the values that the paper publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfflow_mm.cli.main import main
from selfflow_mm.config import config_folder, load_config
from selfflow_mm.errors import UserError
from selfflow_mm.models.presets import counted
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.loop import train
from selfflow_mm.training.plan import make_plan

FOLDER = config_folder() / "paper"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
MIXED = {
    # App. D, table 6: the loss weights of image, video and audio.
    "mixed_625m_07_32_61": (0.067, 0.319, 0.614),
    "mixed_625m_10_51_39": (0.105, 0.506, 0.389),
    "mixed_625m_video": (0.131, 0.628, 0.241),
    "mixed_625m_audio": (0.196, 0.079, 0.725),
    "mixed_625m_image": (0.308, 0.123, 0.569),
}
#: File -> published millions of parameters, steps, tokens by modality, samples of the data sets (sec. 4, app. A, D, I).
PUBLISHED: dict[str, tuple[float, int, dict[str, int], set[int]]] = {
    "imagenet_xl2": (675, 4_000_000, {"image": 256}, {1_281_167}),
    "t2i_290m": (290, 1_000_000, {"image": 256}, {20_000_000}),
    "t2i_420m": (420, 1_000_000, {"image": 256}, {20_000_000}),
    "t2i_625m": (625, 1_000_000, {"image": 256}, {20_000_000}),
    "t2i_1b": (1000, 1_000_000, {"image": 256}, {20_000_000}),
    "t2v_625m": (625, 600_000, {"video": 3024}, {6_000_000}),
    "t2a_625m": (625, 350_000, {"audio": 250}, {1_000_000}),
    **{
        name: (
            625,
            1_000_000,
            {"image": 256, "video": 3024, "audio": 250},
            {200_000_000, 6_000_000, 1_000_000},
        )
        for name in MIXED
    },
}
#: Shift of p(t) and R, by tokenizer (app. A.2, A.3); a uniform distribution has none.
SHIFTS = {"sd-vae": 1.0, "flux2": 4.63, "wan2.2": 2.95, "avae": 1.0}
SAMPLE_SHIFTS = {"sd-vae": 1.78, "flux2": 6.93, "wan2.2": 15.0, "avae": 6.93}
RATIOS = {"image": 0.25, "video": 0.1, "audio": 0.5}


def _load(name: str) -> TrainConfig:
    return load_config(TrainConfig, f"paper/{name}.yaml")


def test_every_run_has_its_file() -> None:
    assert set(NAMES) == {*PUBLISHED, "joint_av_625m", "mixed_4b"}


@pytest.mark.parametrize("name", NAMES)
def test_it_plans_offline(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = "2" if name in MIXED else "8"  # batches of 38 pictures, which eight processes could not share
    assert main(["train", f"paper/{name}.yaml", "--dry-run", "--gpu", "h200", "--gpus", gpus, "--shard"]) == 0
    shown = capsys.readouterr().out
    assert "GPU-hours" in shown and "Memory per device" in shown


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_steps_tokens_and_data_are_the_papers(name: str) -> None:
    millions, steps, tokens, samples = PUBLISHED[name]
    config, plan = _load(name), make_plan(_load(name))
    assert counted(plan.counts) == pytest.approx(millions * 1e6, rel=0.04)
    assert config.run.steps == steps
    assert {m: n for d in plan.draws for m, n in d.sizes.items()} == tokens
    assert {source.expects.samples for source in config.data.sources.values()} == samples


@pytest.mark.parametrize("name", NAMES)
def test_the_method_is_the_papers(name: str) -> None:
    config = _load(name)
    o = config.objective
    assert (o.name, o.gamma, o.fractions, config.run.ema_decay) == ("self-flow", 0.8, (0.3, 0.7), 0.9999)
    assert (config.optimizer.clip, config.run.precision) == (1, "bfloat16")
    generated = {m for d in make_plan(config).draws for m in d.sizes}
    for m in generated:
        tokenizer = config.tokenizers[m]
        assert o.timesteps[m].shift == SHIFTS[tokenizer] and o.mask_ratio[m] == RATIOS[m]
        assert o.timesteps[m].kind == ("uniform" if tokenizer == "sd-vae" else "logit-normal")
        if not config.imagenet:
            assert (config.sampling.steps, config.sampling.shift[m]) == (50, SAMPLE_SHIFTS[tokenizer])
            assert config.sampling.guidance_of(m) == (3.5 if m == "image" else 5)  # of pictures people look at


def test_imagenet_has_the_released_networks_parameters_and_repas_setup() -> None:
    config, plan = _load("imagenet_xl2"), make_plan(_load("imagenet_xl2"))
    # By hand: 28 blocks of qkv, proj, two of the MLP, six modulations; patches, times, 1001 labels, the last layer.
    d = 1152
    block = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + (6 * d * d + 6 * d)
    ends = (16 * d + d) + (256 * d + d + d * d + d) + 1001 * d + (2 * d * d + 2 * d) + (32 * d + 32)
    assert sum(plan.counts.values()) - plan.counts["projector"] == 28 * block + ends + 256 * d == 675_129_632
    batch = config.data.sources["imagenet"].batch
    assert (batch, config.optimizer.lr, config.optimizer.betas) == (256, 1e-4, (0.9, 0.999))
    assert config.optimizer.weight_decay == 0 and plan.draws[0].text == 0


def test_imagenet_cannot_be_trained_and_says_so(tmp_path, capsys) -> None:
    with pytest.raises(UserError, match="class-conditional training is not built yet"):
        train(_load("imagenet_xl2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "NOT TRAINABLE YET" in (FOLDER / "imagenet_xl2.yaml").read_text()


def test_pictures_of_other_sizes_are_none_of_its() -> None:
    config = load_config(TrainConfig, "paper/imagenet_xl2.yaml", ["data.sources.imagenet.expects.height=128"])
    with pytest.raises(UserError, match="imagenet takes 256 tokens, these pictures have 128"):
        make_plan(config)


@pytest.mark.parametrize(("name", "weights"), MIXED.items())
def test_weights_batches_and_shares_of_the_mixed_runs(name: str, weights: tuple[float, ...]) -> None:
    config = _load(name)
    assert tuple(config.objective.weights[m] for m in ("image", "video", "audio")) == weights
    drawn = {s.batch: s.ratio for s in config.data.sources.values()}
    assert drawn == {38: 0.57, 8: 0.30, 16: 0.13}
    # App. D: epochs of 5.26 M and .75 M batches of pictures and videos, .0625 M of sounds.
    epochs = [s.expects.samples / s.batch for s in config.data.sources.values()]
    assert epochs == pytest.approx([5.26e6, 0.75e6, 0.0625e6], rel=1e-3)


def test_the_mixed_runs_differ_in_nothing_but_weights() -> None:
    def rest(name: str) -> Any:
        config = _load(name)
        return replace(config, objective=replace(config.objective, weights={}))

    assert all(rest(name) == rest("mixed_625m_image") for name in MIXED)


def test_the_scaling_runs_differ_in_nothing_but_depth() -> None:
    depths = {"t2i_290m": 8, "t2i_420m": 14, "t2i_625m": 21, "t2i_1b": 28}
    for name, depth in depths.items():
        config = _load(name)
        assert config.model.depth == depth
        assert replace(config, model=_load("t2i_625m").model) == _load("t2i_625m")


def test_the_joint_run_goes_on_from_a_mixed_one_and_from_a_noised_first_frame() -> None:
    joint, mixed = _load("joint_av_625m"), _load("mixed_625m_video")
    assert joint.model == mixed.model and joint.tokenizers == mixed.tokenizers and joint.text == mixed.text
    (draw,) = make_plan(joint).draws
    assert draw.task == "i2va" and dict(draw.sizes) == {"video": 3024, "audio": 48}
    assert joint.objective.given_levels == {"video": 0.2}


def test_the_4b_run_has_its_data_and_steps() -> None:
    config, plan = _load("mixed_4b"), make_plan(_load("mixed_4b"))
    assert counted(plan.counts) == pytest.approx(4e9, rel=0.04) and config.run.steps == 100_000
    samples = {name: source.expects.samples for name, source in config.data.sources.items()}
    assert samples == {"images": 200_000_000, "videos": 6_000_000, "pairs": 2_000_000}
