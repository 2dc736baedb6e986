"""Sections that one pass measures, on models whose grades are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selfflow_robotics.report_card.card import Section
from selfflow_robotics.report_card.counterfactual import Counterfactual
from selfflow_robotics.report_card.films import Imagining, batches
from selfflow_robotics.report_card.held_out import View, choose_clips
from selfflow_robotics.report_card.moving import LEAST, THRESHOLD, Moving
from selfflow_robotics.report_card.open_loop import OpenLoop
from selfflow_robotics.report_card.picture_errors import FLOOR
from tests.robotics.report_card.toys import HEIGHT, WIDTH, Model, Tokenizing, squares

HORIZONS = (1, 4, 12)
BEST = 10 * np.log10(255**2 / FLOOR)
CLIPS = choose_clips(squares([[5, 13, 16, 14, 13, 15, 13]]), 7, HORIZONS, seed=0, view=View(HEIGHT, WIDTH))


def measured(section: Section, model: Model) -> dict[str, Any]:
    for batch in batches(model, CLIPS, Imagining(seed=1), section.films):
        section.add(batch)
    return section.result()


def test_prediction_of_a_model_that_is_right() -> None:
    found = measured(OpenLoop(HORIZONS, 0), Tokenizing("right"))
    h12 = found["metrics"]["psnr_rgb_h12_openloop"]
    assert h12["model"]["value"] == pytest.approx(BEST) and found["verdicts"]["h12"]["n"] == 6
    assert found["metrics"]["psnr_rgb_h4_openloop"]["model"]["n"] == 7
    assert found["metrics"]["ssim_gray_h12_openloop"]["model"]["value"] == pytest.approx(1)
    assert h12["tokenizer_ceiling"]["value"] == pytest.approx(20 * np.log10(255 / 4))
    for rival in ("copy_last_frame", "shuffled_actions", "zero_actions"):
        assert h12["minus"][rival]["low"] > 0
        assert found["verdicts"]["h12"][rival].startswith("better than")
    assert found["metrics"]["psnr_gray_h12_reanchor8"]["model"]["value"] == pytest.approx(BEST)
    assert "psnr_gray_h4_reanchor8" not in found["metrics"]


def test_noise_of_a_known_size_has_its_psnr_in_closed_form() -> None:
    """Deviation 8, and rounding's 1/12; luma averages independent channels."""
    found = measured(OpenLoop(HORIZONS, 0), Model("noisy"))["metrics"]
    rgb = 10 * np.log10(255**2 / (64 + 1 / 12))
    gray = 10 * np.log10(255**2 / ((64 + 1 / 12) * (0.299**2 + 0.587**2 + 0.114**2)))
    for name, expected in (("psnr_rgb", rgb), ("psnr_gray", gray)):
        for which in ("h12", "at12"):
            assert found[f"{name}_{which}_openloop"]["model"]["value"] == pytest.approx(expected, abs=0.1)
    assert found["psnr_rgb_h12_reanchor8"]["model"]["value"] == pytest.approx(rgb, abs=0.1)


def test_a_model_that_copies_is_as_good_as_copying() -> None:
    found = measured(OpenLoop(HORIZONS, 0), Model("copies"))
    for horizon in HORIZONS:
        difference = found["metrics"][f"psnr_rgb_h{horizon}_openloop"]["minus"]["copy_last_frame"]
        assert difference["value"] == difference["low"] == difference["high"] == 0
        assert found["verdicts"][f"h{horizon}"]["copy_last_frame"].startswith("not told apart from")


def test_a_model_of_its_own_mind_is_worse_than_copying() -> None:
    found = measured(OpenLoop((12,), 0), Model("stubborn"))
    assert found["verdicts"]["h12"]["copy_last_frame"].startswith(("worse than", "not told apart"))
    assert found["verdicts"]["h12"]["shuffled_actions"].startswith("not told apart")


def test_the_mean_over_frames_is_that_of_single_frames() -> None:
    found = measured(OpenLoop(tuple(range(1, 5)), 0), Model("noisy"))["metrics"]
    single = [found[f"psnr_rgb_at{t}_openloop"]["model"]["value"] for t in range(1, 5)]
    assert found["psnr_rgb_h4_openloop"]["model"]["value"] == pytest.approx(np.mean(single))


def test_the_moving_region_by_hand() -> None:
    """Copying's error there: the truth's own change, averaged over the pixels that change."""
    found = measured(Moving((4,), 0), Model("right"))
    expected, shares = [], []
    for clip in CLIPS.clips:
        truth = CLIPS.pictures(clip)[:5].astype(float)
        moves = np.abs(truth[1:] - truth[0]).max(axis=-1) > THRESHOLD
        shares.append(moves.mean())
        if moves.sum() >= LEAST:
            error = ((truth[1:] - truth[0]) ** 2).mean(axis=-1)
            expected.append(10 * np.log10(255**2 / error[moves].mean()))
    metric = found["metrics"]["psnr_rgb_moving_h4_openloop"]
    assert metric["copy_last_frame"]["value"] == pytest.approx(np.mean(expected))
    assert metric["copy_last_frame"]["n"] == len(expected)
    assert metric["model"]["value"] == pytest.approx(BEST)
    assert found["share_of_pixels_that_move"]["h4"]["value"] == pytest.approx(np.mean(shares))


def test_what_nobody_measures_is_not_scored() -> None:
    """A model that is wrong where the truth rests is right in the moving region."""

    class Smudge(Model):
        def _film(self, first: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
            film = super()._film(first, actions, seed)
            film[(film == 90).all(axis=-1) & (first == 90).all(axis=-1)] = 30
            return film

    whole = measured(OpenLoop((4,), 0), Smudge())["metrics"]["psnr_rgb_h4_openloop"]["model"]["value"]
    moving = measured(Moving((4,), 0), Smudge())["metrics"]["psnr_rgb_moving_h4_openloop"]["model"]["value"]
    assert whole < 15 and moving == pytest.approx(BEST)


@pytest.mark.parametrize(
    ("kind", "says"),
    [("right", "actions act"), ("noisy", "actions act"), ("ignores", "ignored"), ("copies", "ignored")],
)
def test_whether_actions_act(kind: str, says: str) -> None:
    found = measured(Counterfactual(HORIZONS, 0), Model(kind))["h12"]
    for action in found["actions"].values():
        assert says in action["verdict"]
    zero = found["actions"]["zero_actions"]
    if kind == "ignores":  # other seeds make other films, and actions add nothing to that
        assert zero["ratio_to_seeds"]["value"] == pytest.approx(1) and zero["same_seed"]["value"] == 0
    if kind == "right":
        assert found["between_seeds"]["value"] == 0 and zero["ratio_to_seeds"]["value"] is None
    if kind == "noisy":  # independent noise of deviation 8 on both: 8 sqrt(2), and its rounding
        assert found["between_seeds"]["value"] == pytest.approx(np.sqrt(2 * (64 + 1 / 12)), abs=0.1)
        assert zero["ratio_to_seeds"]["low"] > 1


class Restless(Model):
    """Its seed moves the square far, its actions change one pixel."""

    def _film(self, first: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
        film = Model("ignores")._film(first, actions, seed).copy()
        film[:, 0, 0] = 90 + np.rint(actions[:, :1] * 100).astype(int)
        return film


class Scrambled(Model):
    """Actions change its noise, and nothing else."""

    def _film(self, first: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
        return Model("ignores")._film(first, actions, seed + int(abs(actions).sum() * 1e6))


def test_effects_that_are_worth_little() -> None:
    found = measured(Counterfactual((12,), 0), Restless())["h12"]["actions"]["shuffled_actions"]
    assert found["same_seed"]["value"] > 0 and found["verdict"].startswith("actions hardly act")
    found = measured(Counterfactual((12,), 0), Scrambled())["h12"]["actions"]["shuffled_actions"]
    assert found["same_seed"]["value"] > 5 and found["verdict"].startswith("no effect beyond another seed's")


def test_few_episodes_have_no_verdict() -> None:
    """Two episodes point the same way half the time."""
    held_out = choose_clips(squares([[9, 9]]), 2, (4,), seed=0, view=View(HEIGHT, WIDTH))
    prediction, acting = OpenLoop((4,), 0), Counterfactual((4,), 0)
    for section in (prediction, acting):
        for batch in batches(Model("noisy"), held_out, Imagining(), section.films):
            section.add(batch)
    assert "too few episodes (2) to tell" in prediction.result()["verdicts"]["h4"]["copy_last_frame"]
    assert "too few episodes (2) to tell" in acting.result()["h4"]["actions"]["zero_actions"]["verdict"]


def test_clips_that_are_too_short_do_not_count() -> None:
    found = measured(Counterfactual((4, 99), 0), Model("noisy"))
    assert found["h99"]["actions"]["zero_actions"]["verdict"].startswith("no clip is long enough")
    assert measured(OpenLoop((4, 99), 0), Model())["verdicts"]["h99"]["n"] == 0
