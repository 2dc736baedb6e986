"""The baselines and negative controls: each against its own definition."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfflow_mm.conditions import Conditions
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import METHODS, Batch, Objective, ObjectiveConfig
from selfflow_mm.flow.schedules import Chance, masked
from selfflow_mm.flow.timesteps import Timesteps
from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream

CONFIG = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=3, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
    modalities={"video": 6, "audio": 5}, text_channels=7,
)  # fmt: skip
RANDOM = Randomness(4)
UNIFORM = {m: Timesteps("uniform", shift=1.0) for m in ("image", "video", "audio")}


def make_batch(size: int = 3, task: str = "t2va") -> Batch:
    generator = torch.Generator().manual_seed(1)

    def dense(tokens: int, channels: int) -> TokenStream:
        values = torch.randn(size, tokens, channels, generator=generator)
        return TokenStream.dense(values, torch.rand(tokens, 4, generator=generator))

    streams, conditions = {"video": dense(9, 6), "audio": dense(5, 5)}, Conditions.named(task)
    return Batch({m: streams[m] for m in conditions.modalities}, conditions, dense(3, 7), torch.arange(size))


@pytest.fixture
def model() -> JointTransformer:
    torch.manual_seed(0)
    model = JointTransformer(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def draws(name: str, count: int = 3000, tokens: int = 8, modality: str = "audio"):
    stream = TokenStream.dense(torch.zeros(count, tokens, 1), torch.zeros(tokens, 4))
    config = ObjectiveConfig(name=name, timesteps=UNIFORM, encoders={"image": "x"} if name == "repa" else {})
    objective = Objective(config, features=lambda batch: {})
    return objective.draw(modality, stream, torch.arange(count), RANDOM, 0)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_draws_its_levels_from_p_of_t(name):
    """The marginal of a token is p(t); in full masking it is so for the tokens that are not masked."""
    draw = draws(name)
    tau = draw.tau.per_token()
    picked = tau[torch.arange(len(tau)), torch.arange(len(tau)) % tau.shape[1]]
    if name == "full-masking":
        assert float((picked == 1).float().mean()) == pytest.approx(0.5, abs=0.05)  # R of sound
        picked = picked[picked < 1]
    assert stats.kstest(picked.double().numpy(), "uniform").pvalue > 1e-3
    assert (draw.cleaner <= tau.amin(dim=1) + 1e-7).all()  # no teacher sees more noise than its student


def test_diffusion_forcing_gives_every_token_a_level_of_its_own():
    tau = draws("diffusion-forcing").tau.per_token()
    assert abs(float(torch.corrcoef(tau[:, :2].T)[0, 1])) < 0.06
    assert torch.equal(draws("diffusion-forcing").cleaner, tau.amin(dim=1))


def test_full_masking_puts_the_masked_at_pure_noise_and_the_rest_at_one_level():
    draw = draws("full-masking")
    t = draw.tau.levels[:, :1]
    assert torch.equal(draw.tau.per_token(), torch.where(draw.tau.group == 1, torch.ones_like(t), t))


def test_sras_teacher_trails_by_up_to_a_fifth():
    draw = draws("sra")
    t = draw.tau.levels[:, 0]
    behind = (t - draw.cleaner)[t > 0.2]
    assert stats.kstest((behind / 0.2).double().numpy(), "uniform").pvalue > 1e-3
    assert (draw.cleaner >= 0).all()


@given(st.integers(1, 5), st.integers(1, 40), st.floats(0, 0.5), st.integers(0, 30))
def test_exact_counts_are_exact_and_leave_padding_alone(batch, tokens, ratio, padding):
    padding = min(padding, tokens - 1)
    sample = torch.zeros(batch, tokens, dtype=torch.int64)
    sample[:, tokens - padding :] = -1
    stream = TokenStream(torch.zeros(batch, tokens, 1), torch.zeros(batch, tokens, 4), sample)
    chance = Chance(RANDOM, 0, torch.arange(batch), "video")
    mask = masked(chance, stream, ratio, exact=True)
    assert mask.sum(dim=1).tolist() == [round(torch.tensor(ratio * (tokens - padding)).round().item())] * batch
    assert not (mask & ~stream.valid).any()


def test_exact_counts_are_an_option_of_the_objective():
    config = ObjectiveConfig(mask_count="exact", mask_ratio={"audio": 0.25})
    stream = TokenStream.dense(torch.zeros(50, 8, 1), torch.zeros(8, 4))
    draw = Objective(config).draw("audio", stream, torch.arange(50), RANDOM, 0)
    assert (draw.tau.group.sum(dim=1) == 2).all()
    assert draw.tau.group.float().mean(dim=0).std() < 0.15  # any token may be meant


@pytest.mark.parametrize(
    ("name", "gamma", "layers"),
    [("self-flow", 0.8, (8, 20)), ("sra", 0.5, (8, 20)), ("layersync", 0.2, (8, 16)), ("flow", 0.0, (8, 20))],
)
def test_weights_and_layers_are_the_authors_unless_stated(name, gamma, layers):
    objective = Objective(ObjectiveConfig(name=name))
    assert (objective.gamma, objective.config.layers(28)) == (gamma, layers)
    stated = ObjectiveConfig(name=name, gamma=0.3, student_layer=0.25, teacher_layer=0.5)
    assert (Objective(stated).gamma, stated.layers(28)) == (0.3, (7, 14))


def representation(student, target) -> float:
    """1 - cos over the tokens of all modalities, with loops."""
    found = [
        1 - float(x @ y / (x.norm() * y.norm()))
        for m in student
        for x, y in zip(student[m].detach().flatten(0, 1), target[m].flatten(0, 1), strict=True)
    ]
    return sum(found) / len(found)


class Recorder:
    """Stands before a model and keeps what it gave."""

    def __init__(self, model: JointTransformer) -> None:
        self.model, self.config, self.projector, self.out = model, model.config, model.projector, []

    def __call__(self, *args, **options):
        self.out.append(self.model(*args, **options))
        return self.out[-1]


def test_layersync_compares_the_students_own_layers_without_a_head(model):
    spy = Recorder(model)
    objective = Objective(ObjectiveConfig(name="layersync"))
    loss, report = objective.loss(spy, None, make_batch(), RANDOM, 0)
    [out] = spy.out
    shallow, deep = objective.config.layers(4)
    assert (shallow, deep) == (1, 2)
    expected = representation(out.features[1], {m: z.detach() for m, z in out.features[2].items()})
    assert float(report["l_rep"]) == pytest.approx(expected, abs=1e-5)
    generation = sum(v for n, v in report.items() if n.startswith("l_gen"))
    assert float(loss) == pytest.approx(float(generation) + 0.2 * expected, rel=1e-5)
    loss.backward()
    assert all(p.grad is None for p in model.projector.parameters())
    # The deeper layer is a target, not something to be moved: without L_gen it gets no gradient.
    model.zero_grad()
    loss, report = Objective(ObjectiveConfig(name="layersync", weights={"video": 0.0, "audio": 0.0})).loss(
        model, None, make_batch(), RANDOM, 0
    )
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.single_blocks[0].parameters())
    assert model.double_blocks[0].media.qkv.weight.grad.any()


def test_a_layer_is_not_compared_with_itself():
    with pytest.raises(UserError, match="compares block 1 with itself at depth 2"):
        ObjectiveConfig(name="layersync").layers(2)
    assert ObjectiveConfig().layers(2) == (1, 1)  # another input, another network: still a comparison


def test_sras_target_is_the_teacher_at_its_cleaner_level(model):
    teacher, spy = Recorder(copy.deepcopy(model)), Recorder(model)
    objective = Objective(ObjectiveConfig(name="sra"))
    _, report = objective.loss(spy, teacher, make_batch(), RANDOM, 0)
    student = {m: model.projector(h) for m, h in spy.out[0].features[1].items()}
    assert float(report["l_rep"]) == pytest.approx(representation(student, teacher.out[0].features[3]), abs=1e-5)
    assert not teacher.out[0].velocity  # stopped after block k = round(.7 x 4)


def test_repa_compares_with_what_the_encoder_says_of_the_clean_data():
    torch.manual_seed(0)
    model = JointTransformer(CONFIG.__class__(**{**CONFIG.__dict__, "projector_channels": 11}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch, asked = make_batch(), []
    target = {"video": torch.randn(3, 9, 11)}  # of pictures only: sound is left out of the comparison

    def encoder(given: Batch):
        asked.append(given)
        return target

    spy = Recorder(model)
    objective = Objective(ObjectiveConfig(name="repa", encoders={"video": "some/encoder"}), features=encoder)
    loss, report = objective.loss(spy, None, batch, RANDOM, 0)
    assert asked == [batch]
    student = {"video": model.projector(spy.out[0].features[1]["video"])}
    assert float(report["l_rep"]) == pytest.approx(representation(student, target), abs=1e-5)
    assert "cosine/video" in report and "cosine/audio" not in report
    loss.backward()
    assert model.projector[2].weight.grad.any()


def test_repa_wants_an_encoder_and_one_feature_for_each_token(model):
    with pytest.raises(UserError, match="encoders are named for repa"):
        ObjectiveConfig(name="repa")
    with pytest.raises(UserError, match="encoders are named for repa"):
        ObjectiveConfig(name="self-flow", encoders={"video": "x"})
    config = ObjectiveConfig(name="repa", encoders={"video": "x"})
    with pytest.raises(UserError, match="repa needs an encoder"):
        Objective(config)
    objective = Objective(config, features=lambda batch: {"video": torch.randn(3, 4, 32)})
    with pytest.raises(UserError, match=r"gave \(3, 4\) features of video for \(3, 9\) tokens"):
        objective.loss(model, None, make_batch(), RANDOM, 0)


def test_a_batch_that_no_encoder_speaks_of_reports_no_alignment(model):
    config = ObjectiveConfig(name="repa", encoders={"video": "some/encoder"})
    _, report = Objective(config, features=lambda batch: {}).loss(model, None, make_batch(task="t2a"), RANDOM, 0)
    assert set(report) == {"l_gen/audio"}


def test_alignment_stops_at_its_step_and_the_teacher_is_spared(model):
    teacher = Recorder(copy.deepcopy(model))
    objective = Objective(ObjectiveConfig(stop_alignment_at=2))
    for step, aligned in ((1, True), (2, False), (3, False)):
        loss, report = objective.loss(model, teacher, make_batch(), RANDOM, step)
        assert ("l_rep" in report) == aligned
        if not aligned:
            assert float(loss) == pytest.approx(float(report["l_gen/video"] + report["l_gen/audio"]), rel=1e-6)
    assert len(teacher.out) == 1


def test_l1_is_the_mean_distance_of_features(model):
    teacher, spy = Recorder(copy.deepcopy(model)), Recorder(model)
    _, report = Objective(ObjectiveConfig(similarity="l1")).loss(spy, teacher, make_batch(), RANDOM, 0)
    parts = [
        (model.projector(spy.out[0].features[1][m]) - teacher.out[0].features[3][m]).abs().mean(-1).flatten()
        for m in ("video", "audio")
    ]
    assert float(report["l_rep"]) == pytest.approx(float(torch.cat(parts).mean()), rel=1e-5)


def test_the_loss_stays_in_float32_under_bfloat16(model):
    with torch.autocast("cpu", torch.bfloat16):
        loss, report = Objective(ObjectiveConfig()).loss(model, copy.deepcopy(model), make_batch(), RANDOM, 0)
    assert loss.dtype == torch.float32 and all(v.dtype == torch.float32 for v in report.values())
    full, _ = Objective(ObjectiveConfig()).loss(model, copy.deepcopy(model), make_batch(), RANDOM, 0)
    assert float(loss) == pytest.approx(float(full), rel=0.05)
