"""The objective against the paper's statements, one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy import stats

from selfflow_mm.conditions import Conditions, Part
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import PAPER_MASK_RATIO, Batch, Objective, ObjectiveConfig
from selfflow_mm.flow.timesteps import Timesteps
from selfflow_mm.models import JointConfig, JointTransformer, Output
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import NoiseLevels, TokenStream

CONFIG = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
    modalities={"video": 6, "audio": 5}, text_channels=7,
)  # fmt: skip
RANDOM = Randomness(11)


def make_batch(size: int = 4, task: str = "t2va", video: int = 20, audio: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def dense(tokens: int, channels: int) -> TokenStream:
        positions = torch.rand(tokens, 4, generator=generator)
        positions[: tokens // 4, 0] = 0.0
        return TokenStream.dense(torch.randn(size, tokens, channels, generator=generator), positions)

    streams = {"video": dense(video, 6), "audio": dense(audio, 5)}
    conditions = Conditions.named(task)
    return Batch({m: streams[m] for m in conditions.modalities}, conditions, dense(3, 7), torch.arange(size))


class Spy(JointTransformer):
    """A model that remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.calls: list[tuple] = []

    def forward(self, streams, levels, text, features_after=(), features_only=False, given=None) -> Output:
        self.calls.append((streams, levels, text, features_after, features_only))
        return super().forward(streams, levels, text, features_after, features_only, given)


@pytest.fixture
def spies() -> tuple[Spy, Spy]:
    torch.manual_seed(0)
    model = Spy()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model, copy.deepcopy(model)


@pytest.mark.parametrize("name", ["flow", "dual"])
@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_marginal_of_one_random_token_is_p_of_t_with_and_without_the_schedule(name, modality):
    """Sec. 3.3: dual timesteps change the joint distribution of the tokens' levels and no token's own."""
    objective = Objective(ObjectiveConfig(name=name, timesteps={modality: Timesteps("logit-normal", shift=2.95)}))
    count, tokens = 4000, 8
    stream = TokenStream.dense(torch.zeros(count, tokens, 1), torch.zeros(tokens, 4))
    draw = objective.draw(modality, stream, torch.arange(count), RANDOM, 0)
    tau = draw.tau.per_token()
    picked = tau[torch.arange(count), torch.arange(count) % tokens].double().numpy()
    logit = torch.special.logit(torch.tensor(picked)).numpy()
    assert stats.kstest(logit, stats.norm(torch.tensor(2.95).log().item(), 1).cdf).pvalue > 1e-3
    if name == "dual":  # the joint one does change: tokens of one sample are no longer all at one level
        assert (tau.std(dim=1) > 0).float().mean() > 0.4
        t, s = draw.tau.levels.unbind(1)
        assert (s < t).float().mean() == pytest.approx(0.5, abs=0.05)  # drawn unsorted
    else:
        assert (tau.std(dim=1) == 0).all()


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_mask_ratios_are_the_papers(modality):
    count, tokens = 500, 200
    stream = TokenStream.dense(torch.zeros(count, tokens, 1), torch.zeros(tokens, 4))
    draw = Objective(ObjectiveConfig()).draw(modality, stream, torch.arange(count), RANDOM, 0)
    n, ratio = count * tokens, {"image": 0.25, "video": 0.1, "audio": 0.5}[modality]
    assert PAPER_MASK_RATIO[modality] == ratio
    mask = (draw.tau.group == 1).float()
    assert abs(float(mask.mean()) - ratio) < 5 * (ratio * (1 - ratio) / n) ** 0.5
    assert mask.sum(1).std() > 0  # Bernoulli per token, not an exact count


def test_noise_is_standard_normal_and_independent_of_the_levels():
    stream = TokenStream.dense(torch.zeros(200, 20, 5), torch.zeros(20, 4))
    draw = Objective(ObjectiveConfig()).draw("audio", stream, torch.arange(200), RANDOM, 3)
    assert stats.kstest(draw.noise.flatten().double().numpy(), "norm").pvalue > 1e-3


def test_student_sees_t_or_s_and_teacher_the_smaller_with_the_same_noise_and_text(spies):
    model, teacher = spies
    batch = make_batch()
    objective = Objective(ObjectiveConfig(mask_ratio={"video": 0.4}))
    objective.loss(model, teacher, batch, RANDOM, 5)
    [(seen, levels, text, after, only)] = model.calls
    [(seen_t, levels_t, text_t, after_t, only_t)] = teacher.calls
    assert (after, only, after_t, only_t) == ((1,), False, (2,), True)  # .3 and .7 of three blocks
    assert text is text_t
    for m, stream in batch.streams.items():
        draw = objective.draw(m, stream, batch.ids, RANDOM, 5)
        tau, (t, s) = draw.tau.per_token(), draw.tau.levels.unbind(1)
        assert torch.equal(tau, torch.where(draw.tau.group == 1, s[:, None], t[:, None]))
        least = torch.minimum(t, s)[:, None].expand_as(tau)
        assert torch.equal(levels[m].per_token(), tau)
        assert torch.equal(levels_t[m].per_token(), least)
        for values, level in ((seen[m].values, tau), (seen_t[m].values, least)):
            expected = stream.values * (1 - level[..., None]) + draw.noise * level[..., None]
            assert torch.allclose(values, expected, atol=1e-6)


def test_timesteps_of_modalities_are_independent_or_shared():
    stream = TokenStream.dense(torch.zeros(300, 4, 1), torch.zeros(4, 4))
    ids = torch.arange(300)
    same = {m: Timesteps("uniform", shift=1.0) for m in ("video", "audio")}
    for pairing, correlated in (("independent", False), ("shared", True)):
        objective = Objective(ObjectiveConfig(pairing=pairing, timesteps=same))
        video, audio = (objective.draw(m, stream, ids, RANDOM, 0) for m in ("video", "audio"))
        pairs = list(zip(video.tau.levels.unbind(1), audio.tau.levels.unbind(1), strict=True))  # t and s
        assert [torch.equal(a, b) for a, b in pairs] == [correlated, correlated]
        assert not torch.equal(video.tau.group, audio.tau.group)
        if not correlated:
            assert abs(float(torch.corrcoef(torch.stack(pairs[0]))[0, 1])) < 0.2


def test_no_gradient_reaches_the_teacher(spies):
    model, teacher = spies
    loss, _ = Objective(ObjectiveConfig()).loss(model, teacher, make_batch(), RANDOM, 0)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.projector.parameters())


def test_identical_features_have_no_representation_loss(spies):
    """With one level, the student's own block and an identity head, L_rep is 1 - cos(x, x)."""
    model, _ = spies
    model.projector = torch.nn.Identity()
    batch = make_batch()
    config = ObjectiveConfig(mask_ratio={"video": 0.0, "audio": 0.0}, student_layer=0.5, teacher_layer=0.6)
    objective = Objective(config)
    assert config.layers(3) == (2, 2)

    def draw_once(name, stream, ids, random, step):
        draw = Objective.draw(objective, name, stream, ids, random, step)
        return type(draw)(NoiseLevels.uniform(draw.cleaner, stream.sample), draw.cleaner, draw.noise)

    objective.draw = draw_once
    loss, report = objective.loss(model, copy.deepcopy(model), batch, RANDOM, 0)
    assert float(report["l_rep"]) == pytest.approx(0.0, abs=1e-6)
    assert loss.item() == pytest.approx(float(report["l_gen/video"] + report["l_gen/audio"]), abs=1e-5)


def test_losses_are_the_formulas_over_all_tokens(spies):
    """L_gen and L_rep recomputed with plain loops from what the models returned."""
    model, teacher = spies
    batch = make_batch(2, video=5, audio=3)
    config = ObjectiveConfig(weights={"audio": 2.0}, gamma=0.5)
    loss, report = Objective(config).loss(model, teacher, batch, RANDOM, 1)
    streams, levels, text, after, _ = model.calls[-1]
    with torch.no_grad():
        out = JointTransformer.forward(model, streams, levels, text, after)
    streams_t, levels_t, text_t, after_t, _ = teacher.calls[-1]
    target = JointTransformer.forward(teacher, streams_t, levels_t, text_t, after_t, True).features[after_t[0]]
    total, cosines = 0.0, []
    for m, weight in (("video", 1.0), ("audio", 2.0)):
        noise = Objective(config).draw(m, batch.streams[m], batch.ids, RANDOM, 1).noise
        clean = batch.streams[m].values
        errors = [
            float(((out.velocity[m][b, i] - (noise[b, i] - clean[b, i])) ** 2).mean())
            for b in range(2)
            for i in range(clean.shape[1])
        ]
        total += weight * sum(errors) / len(errors)
        predicted = model.projector(out.features[after[0]][m]).detach()
        for b in range(2):
            for i in range(clean.shape[1]):
                x, y = predicted[b, i], target[m][b, i]
                cosines.append(float(x @ y / (x.norm() * y.norm())))
    l_rep = sum(1 - c for c in cosines) / len(cosines)
    assert float(report["l_rep"]) == pytest.approx(l_rep, abs=1e-5)
    assert loss.item() == pytest.approx(total + 0.5 * l_rep, rel=1e-5)


def test_given_tokens_are_clean_and_count_in_no_loss(spies):
    model, teacher = spies
    batch = make_batch(task="i2va")
    objective = Objective(ObjectiveConfig())
    _, before = objective.loss(model, teacher, batch, RANDOM, 0)
    given = batch.conditions.masks(batch.streams)["video"]
    assert 0 < int(given.sum()) < given.numel()
    streams, levels, *_ = model.calls[-1]
    assert (levels["video"].per_token()[given] == 0).all()
    assert torch.equal(streams["video"].values[given], batch.streams["video"].values[given])

    # A wrong velocity or feature at given tokens changes nothing.
    class Wrong(Spy):
        def forward(self, *args, **options) -> Output:
            out = super().forward(*args, **options)
            for values in (out.velocity, *out.features.values()):
                if "video" in values:
                    values["video"] = torch.where(given[..., None], values["video"] + 100.0, values["video"])
            return out

    wrong = Wrong()
    wrong.load_state_dict(model.state_dict())
    _, after = objective.loss(wrong, teacher, batch, RANDOM, 0)
    for name in before:
        assert torch.allclose(before[name], after[name], atol=1e-5)


def test_a_given_sound_gets_no_loss_at_all(spies):
    _, report = Objective(ObjectiveConfig()).loss(*spies, make_batch(task="a2v"), RANDOM, 0)
    assert "l_gen/video" in report and "l_gen/audio" not in report


def test_published_layers_at_depth_28():
    assert ObjectiveConfig().layers(28) == (8, 20)


def test_a_gaussians_known_velocity_is_recovered_by_a_short_run():
    """Data N(2, 0.5^2) per channel: E[x1 - x0 | x_t] is linear in x_t with known coefficients."""
    torch.manual_seed(0)
    config = JointConfig(
        width=32, heads=2, double_blocks=0, single_blocks=2, mlp_ratio=2, rope_axes=(8, 4, 4, 0),
        modalities={"video": 1}, text_channels=2,
    )  # fmt: skip
    model = JointTransformer(config)
    objective = Objective(ObjectiveConfig(name="flow", timesteps={"video": Timesteps("uniform", shift=1.0)}))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0)
    mean, sigma, batch_size, steps = 2.0, 0.5, 32, 200
    text = TokenStream.dense(torch.zeros(batch_size, 1, 2), torch.zeros(1, 4))
    for step in range(steps):
        ids = torch.arange(batch_size) + batch_size * step
        values = mean + sigma * RANDOM.normal("data", 0, ids, 8).view(batch_size, 8, 1)
        stream = TokenStream.dense(values, torch.zeros(8, 4))
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, 2 * (1 - step / steps))
        batch = Batch({"video": stream}, Conditions.named("t2v"), text, ids)
        loss, _ = objective.loss(model, None, batch, RANDOM, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.linspace(-1.0, 3.0, batch_size).view(batch_size, 1, 1).expand(-1, 8, 1).contiguous()
    errors, truth = [], []
    for t in (0.3, 0.5, 0.7):
        spread = ((1 - t) ** 2 * sigma**2 + t**2) ** 0.5
        x_t = (1 - t) * mean + spread * (x - 1.0)  # two deviations to either side
        stream = TokenStream.dense(x_t, torch.zeros(8, 4))
        levels = {m: NoiseLevels.uniform(torch.full((batch_size,), t), s.sample) for m, s in (("video", stream),)}
        levels["text"] = NoiseLevels.uniform(torch.zeros(batch_size), text.sample)
        with torch.no_grad():
            predicted = model({"video": stream}, levels, text).velocity["video"]
        expected = (t - (1 - t) * sigma**2) / spread**2 * (x_t - (1 - t) * mean) - mean
        errors.append((predicted - expected).square().mean())
        truth.append(expected.var())
    assert float(torch.stack(errors).mean() / torch.stack(truth).mean()) < 0.05


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match=r"mask_ratio.video lies in \[0, 0.5\]"):
        ObjectiveConfig(mask_ratio={"video": 0.6})
    with pytest.raises(UserError, match="student < teacher"):
        ObjectiveConfig(student_layer=0.8)


def seen_levels(model, config: ObjectiveConfig, batch: Batch, step: int = 5):
    """Levels per token as the student saw them, and the loss."""
    model.calls.clear()
    loss, _ = Objective(config).loss(model, model, batch, RANDOM, step)
    return {m: levels.per_token() for m, levels in model.calls[0][1].items()}, loss


def test_given_tokens_are_at_the_level_of_their_modality(spies):
    """U(0, level) for each sample: one draw for all modalities, scaled by what is stated for each."""
    model, _ = spies
    dense = make_batch(6)
    given = {"video": Part("first_frame"), "audio": Part("all")}
    batch = Batch(dense.streams, Conditions(("video",), given), dense.text, dense.ids)
    config = ObjectiveConfig(given_level=0.3, given_levels={"audio": 0.05})
    levels, _ = seen_levels(model, config, batch)
    u = RANDOM.uniform("given_level", 5, batch.ids)
    first = batch.conditions.masks(batch.streams)["video"]
    assert (
        torch.allclose(levels["video"][:, :5], (0.3 * u).expand(6, 5))
        and first[0].tolist() == [True] * 5 + [False] * 15
    )
    assert torch.allclose(levels["audio"], (0.05 * u).expand(6, 12))
    assert 0 < float(levels["audio"].min()) and float(levels["audio"].max()) < 0.05
    # What is generated keeps its own levels, and those that are named nought stay data.
    draw = Objective(config).draw("video", batch.streams["video"], batch.ids, RANDOM, 5)
    assert torch.equal(levels["video"][:, 5:], draw.tau.per_token()[:, 5:])
    clean, _ = seen_levels(model, ObjectiveConfig(given_level=0.3, given_levels={"audio": 0.0}), batch)
    assert not clean["audio"].any() and torch.equal(clean["video"], levels["video"])


@pytest.mark.parametrize("level", [0.0, 0.2])
def test_levels_of_single_modalities_change_no_bit_where_they_say_the_same(spies, level):
    model, _ = spies
    dense = make_batch()
    given = {"video": Part("first_frame"), "audio": Part("all")}
    batch = Batch(dense.streams, Conditions(("video",), given), dense.text, dense.ids)
    one, loss = seen_levels(model, ObjectiveConfig(given_level=level), batch)
    each = ObjectiveConfig(given_level=0.7, given_levels={"video": level, "audio": level, "unknown": 0.9})
    other, same = seen_levels(model, each, batch)
    assert torch.equal(loss, same) and all(torch.equal(one[m], other[m]) for m in one)
    if level:  # level * u, as it was before single modalities could be named
        expected = level * RANDOM.uniform("given_level", 5, batch.ids)[:, 0]
        assert torch.equal(one["audio"][:, 0], expected)


def test_given_levels_out_of_range():
    for level in (-0.1, 1.0):
        with pytest.raises(UserError, match=r"given_levels.video lies in \[0, 1\)"):
            ObjectiveConfig(given_levels={"video": level})
