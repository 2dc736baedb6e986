"""Films: what is put in, and that batches do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.report_card.films import Imagining, batches, mirrored, still
from selfflow_robotics.report_card.held_out import HeldOut, View, choose_clips
from tests.robotics.report_card.toys import HEIGHT, WIDTH, Model, Tokenizing, play, squares

ALL = (
    "model",
    "other_seed",
    "zero_actions",
    "mirrored_actions",
    "shuffled_actions",
    "reanchor8",
    "copy_last_frame",
    "tokenizer_ceiling",
)


def clips(horizons: tuple[int, ...] = (2, 12)) -> HeldOut:
    return choose_clips(squares([[15, 14, 4, 5, 13]]), 7, horizons, seed=0, view=View(HEIGHT, WIDTH))


@given(st.integers(1, 5), st.booleans())
def test_mirroring_twice_is_nothing(length: int, pose: bool) -> None:
    actions = np.random.default_rng(length).normal(size=(length, 7)).astype(np.float32)
    options = {} if pose else {"names": tuple("abcdefg"), "low": (-1.0,) * 7, "high": (3.0,) * 7}
    once = mirrored(actions, **options)  # type: ignore[arg-type]
    assert np.allclose(mirrored(once, **options), actions, atol=1e-6)  # type: ignore[arg-type]
    middle = (once + actions) / 2
    assert np.allclose(middle, [0, 0, 0, 0, 0, 0, 0.5] if pose else 1, atol=1e-6)


def test_stillness_keeps_the_gripper() -> None:
    actions = np.full((3, 7), 0.25, np.float32)
    assert np.array_equal(still(actions), [[0, 0, 0, 0, 0, 0, 0.25]] * 3)


def test_a_right_model_gives_the_truth_and_follows_what_is_put_in() -> None:
    seen = 0
    for batch in batches(Tokenizing("right"), clips(), Imagining(batch=3), ALL):
        assert len(batch.clips) <= 3
        for row, clip in enumerate(batch.clips):
            seen += 1
            truth = batch.truth[row]
            assert np.array_equal(batch.films["model"][row], truth[1:])
            assert np.array_equal(batch.films["other_seed"][row], truth[1:])
            assert np.array_equal(batch.films["shuffled_actions"][row], play(truth[0], clip.strange_actions))
            assert np.array_equal(batch.films["mirrored_actions"][row], play(truth[0], mirrored(clip.actions)))
            assert (batch.films["copy_last_frame"][row] == truth[0]).all()
            assert (truth[1:] - batch.films["tokenizer_ceiling"][row] == 4).all()
            assert ("reanchor8" in batch.films) == (len(clip) > 8)
    assert seen == 7


def test_reanchoring_starts_from_the_truth_every_eight_frames() -> None:
    """A model that copies gives the true picture before each stretch."""
    first = next(iter(batches(Model("copies"), clips((12,)), Imagining(), ["reanchor8"])))
    film = first.films["reanchor8"]
    assert film.shape[1] == 12
    assert (film[:, :8] == first.truth[:, :1]).all() and (film[:, 8:] == first.truth[:, 8:9]).all()
    longer = choose_clips(squares([[40, 40]]), 2, [32], seed=0, view=View(HEIGHT, WIDTH))
    assert next(iter(batches(Model(), longer, Imagining(), ["reanchor8"]))).films["reanchor8"].shape[1] == 16


def test_batches_do_not_matter() -> None:
    def films(size: int) -> dict[tuple[int, str], bytes]:
        return {
            (clip.number, name): film[row].tobytes()
            for batch in batches(Model("noisy"), clips(), Imagining(seed=3, batch=size), ALL)
            for row, clip in enumerate(batch.clips)
            for name, film in batch.films.items()
        }

    assert films(1) == films(4)


def test_only_what_is_wanted_is_imagined() -> None:
    model = Model()
    list(batches(model, clips((2,)), Imagining(batch=100), ["model", "copy_last_frame"]))
    assert model.calls == 1


def test_a_model_that_gives_something_else() -> None:
    class Short(Model):
        def _film(self, first: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
            return super()._film(first, actions, seed)[:-1]

    with pytest.raises(UserError, match="asked for were"):
        list(batches(Short(), clips(), Imagining(), ["model"]))
