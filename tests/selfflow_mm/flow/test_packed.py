"""Packed rows: each sample's levels, noise, loss and gradient are those it has alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfflow_mm.conditions import TASKS, Conditions, Part
from selfflow_mm.flow.objectives import METHODS, Batch, Objective, ObjectiveConfig
from selfflow_mm.models.joint import JointConfig, JointTransformer
from selfflow_mm.randomness import Randomness
from selfflow_mm.tokens import TokenStream

CHANNELS = {"image": 3, "video": 3, "audio": 4}
MODEL = JointConfig(
    width=32, heads=2, double_blocks=1, single_blocks=2, mlp_ratio=2.0, rope_axes=(8, 4, 4, 0),
    modalities=CHANNELS, text_channels=5,
)  # fmt: skip


def model(seed: int = 0, backend: str = "sdpa", **options) -> JointTransformer:
    torch.manual_seed(seed)
    made = JointTransformer(replace(MODEL, **options))
    made.attention_backend = backend
    for p in made.parameters():  # the first velocity of a new model is zero, and modulations are closed
        torch.nn.init.normal_(p, std=0.2)
    return made


def alone(id: int, task: str, lengths: dict[str, int], words: int) -> Batch:
    """One sample as a batch of its own."""
    generator = torch.Generator().manual_seed(id)

    def stream(n: int, channels: int) -> TokenStream:
        places = torch.rand(n, 4, generator=generator)
        places[:, 0] = torch.arange(n) // 2 / 10  # the first two tokens are the first frame
        return TokenStream.dense(torch.randn(1, n, channels, generator=generator), places)

    conditions = Conditions.named(task)
    streams = {m: stream(lengths[m], CHANNELS[m]) for m in conditions.modalities}
    return Batch(streams, conditions, stream(words, 5), torch.tensor([id]))


def packed(rows: list[list[Batch]], weights: list[list[float]] | None = None) -> Batch:
    """Written without the packer that training uses: the rows are laid token by token."""
    everything = [b for row in rows for b in row]
    generate = tuple(dict.fromkeys(m for b in everything for m in b.conditions.generate))
    present = tuple(dict.fromkeys(m for b in everything for m in b.streams))

    def lay(name: str, channels: int):
        width = max(sum(_of(b, name).values.shape[1] for b in row if _of(b, name) is not None) for row in rows)
        values, places = torch.zeros(len(rows), width, channels), torch.zeros(len(rows), width, 4)
        sample = torch.full((len(rows), width), -1)
        masked = torch.zeros(len(rows), width, dtype=torch.bool)
        for r, row in enumerate(rows):
            at = 0
            for slot, b in enumerate(row):
                stream = _of(b, name)
                if stream is None:
                    continue
                part = b.conditions.given.get(name)
                for i in range(stream.values.shape[1]):
                    values[r, at], places[r, at], sample[r, at] = stream.values[0, i], stream.positions[0, i], slot
                    masked[r, at] = part is not None and bool(part.select(stream)[0, i])
                    at += 1
        return TokenStream(values, places, sample), masked

    laid = {m: lay(m, CHANNELS[m]) for m in present}
    masks = {m: Part("mask", tokens=mask) for m, (_, mask) in laid.items() if mask.any()}
    most = max(map(len, rows))
    ids = torch.zeros(len(rows), most, dtype=torch.int64)
    w = torch.ones(len(rows), most)
    for r, row in enumerate(rows):
        for slot, b in enumerate(row):
            ids[r, slot] = int(b.ids)
            w[r, slot] = weights[r][slot] if weights else 1
    sizes = {n: [[0 if _of(b, n) is None else _of(b, n).values.shape[1] for b in row] for row in rows]
             for n in (*present, "text")}  # fmt: skip
    return Batch({m: s for m, (s, _) in laid.items()}, Conditions(generate, masks), lay("text", 5)[0], ids, sizes,
                 w if weights else None)  # fmt: skip


def _of(batch: Batch, name: str) -> TokenStream | None:
    return batch.text if name == "text" else batch.streams.get(name)


@st.composite
def rows_of_samples(draw) -> list[list[Batch]]:
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    ids = iter(range(100, 200))
    return [
        [
            alone(
                next(ids),
                draw(st.sampled_from(sorted(TASKS))),
                {m: draw(st.integers(3, 9)) for m in CHANNELS},
                draw(st.integers(1, 4)),
            )
            for _ in range(count)
        ]
        for count in counts
    ]


def both(rows: list[list[Batch]], objective: Objective, weights=None, **options):
    """(loss, report, gradients) of packed rows, and of the samples one by one, summed."""
    found = []
    together = packed(rows, weights)
    for batches in ([together], [b for row in rows for b in row]):
        student, teacher = model(0, **options), model(1, **options)
        totals = objective.counts(together)
        loss, report = torch.zeros(()), {}
        flat = [w for row in weights for w in row] if weights else [1.0] * len(batches)
        for w, batch in zip(flat, batches, strict=len(batches) > 1):
            if batch.lengths is None and weights:
                batch = replace(batch, weights=torch.tensor([w]))
            part, names = objective.loss(student, teacher, batch, Randomness(3), 7, totals)
            part.backward()
            loss = loss + part.detach()
            for name, value in names.items():
                report[name] = report.get(name, 0) + value
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in student.named_parameters()}
        found.append((loss, report, gradients))
    return found


def assert_near(one, other) -> None:
    assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-5, abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, value in one[1].items():
        assert float(value) == pytest.approx(float(other[1][name]), rel=1e-5, abs=1e-6), name
    scale = max(float(g.abs().max()) for g in one[2].values())
    assert scale > 1e-3
    for name, gradient in one[2].items():
        assert float((gradient - other[2][name]).abs().max()) < 1e-5 * max(1, scale), name


@given(rows=rows_of_samples(), backend=st.sampled_from(["sdpa", "varlen"]), level=st.sampled_from(["zero", "mean"]))
@settings(max_examples=10)
def test_packed_is_unpacked(rows, backend, level):
    objective = Objective(ObjectiveConfig(given_level=0.2, text_level=level))
    assert_near(*both(rows, objective, backend=backend))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.target != "encoder"])
@pytest.mark.parametrize("exact", ["exact", "bernoulli"])
def test_every_method_packs(name, exact):
    rows = [
        [
            alone(1, "t2va", {"video": 8, "audio": 5}, 2),
            alone(2, "i2v", {"video": 6}, 1),
            alone(3, "t2i", {"image": 4}, 3),
        ],
        [alone(4, "v2a", {"video": 8, "audio": 5}, 2), alone(5, "t2a", {"audio": 7}, 2)],
    ]
    assert_near(*both(rows, Objective(ObjectiveConfig(name=name, mask_count=exact, given_level=0.1))))


def test_isolated_conditions_pack():
    rows = [[alone(1, "i2va", {"video": 8, "audio": 5}, 2), alone(2, "v2a", {"video": 6, "audio": 3}, 1)]]
    assert_near(*both(rows, Objective(ObjectiveConfig()), isolate_conditions=True))


def test_weights_of_samples_count():
    rows = [[alone(1, "t2v", {"video": 8}, 2), alone(2, "t2v", {"video": 6}, 1)], [alone(3, "t2v", {"video": 3}, 1)]]
    weights = [[1.0, 3.0], [0.5]]
    assert_near(*both(rows, Objective(ObjectiveConfig()), weights))
    objective = Objective(ObjectiveConfig(name="flow"))
    losses = [float(objective.loss(model(), None, b, Randomness(3), 7)[0]) for row in rows for b in row]
    expected = (8 * losses[0] + 3 * 6 * losses[1] + 0.5 * 3 * losses[2]) / (8 + 18 + 1.5)
    assert float(objective.loss(model(), None, packed(rows, weights), Randomness(3), 7)[0]) == pytest.approx(expected)


def test_an_encoders_features_are_those_of_each_sample_alone():
    """REPA's encoder sees samples one by one: its answer depends on the whole clip."""

    def features(batch: Batch):
        return {m: s.values.mean(dim=1, keepdim=True).expand(-1, s.values.shape[1], -1).repeat(1, 1, 2)
                for m, s in batch.streams.items() if m != "audio"}  # fmt: skip

    rows = [[alone(1, "t2va", {"video": 8, "audio": 4}, 2), alone(2, "t2v", {"video": 6}, 1)]]
    objective = Objective(ObjectiveConfig(name="repa", encoders={"video": "x"}), features=features)
    assert_near(*both(rows, objective, projector_channels=6))


def test_a_stream_may_be_empty_in_a_row():
    rows = [[alone(1, "t2v", {"video": 8}, 2)], [alone(2, "t2a", {"audio": 5}, 1)]]
    whole = packed(rows)
    objective = Objective(ObjectiveConfig())
    totals = objective.counts(whole)
    parts = [objective.loss(model(), model(1), whole.rows(i, i + 1), Randomness(3), 7, totals)[0] for i in (0, 1)]
    together = objective.loss(model(), model(1), whole, Randomness(3), 7)[0]
    assert whole.rows(0, 1).streams["audio"].values.shape[1] == 0
    assert float(sum(parts)) == pytest.approx(float(together), rel=1e-6)
