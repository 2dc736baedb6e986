"""The card as a whole: from a model and data to a file, a page and a table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.report_card.card import SECTIONS, CardSettings, make_card, save_card, view_of
from selfflow_robotics.report_card.films import Imagining
from selfflow_robotics.report_card.networks import Fitting
from selfflow_robotics.report_card.page import write_page
from selfflow_robotics.report_card.table import as_text
from tests.robotics.report_card.toys import Model, Tokenizing, squares

VAL, TRAIN = squares([[4, 11, 12, 6]]), squares([[6] * 3], shift=1, split="train")
SETTINGS = CardSettings(clips=4, horizons=(1, 3, 10), fitting=Fitting(updates=2, batch=4))


def test_a_card_holds_all_numbers_and_is_shown(tmp_path: Path) -> None:
    card, examples = make_card(Tokenizing("noisy"), VAL, TRAIN, SETTINGS)
    save_card(card, tmp_path / "card.json")
    again = json.loads((tmp_path / "card.json").read_text())
    assert set(SECTIONS) <= set(again) and again["skipped"] == {}
    assert [clip["length"] for clip in again["clips"]] == [len(e.clip) for e in sorted(examples, key=_number)]
    assert again["settings"]["imagining"]["seed"] == 0 and again["versions"]["numpy"] == np.__version__
    assert again["model"]["name"] == "noisy" and again["data"]["true_split"] == "train"
    write_page(again, examples, tmp_path / "report.html")
    page, text = (tmp_path / "report.html").read_text(), as_text(again)
    value = again["open_loop"]["metrics"]["psnr_rgb_h10_openloop"]["model"]["value"]
    for shown in (page, text):
        assert (
            f"{value:.2f}" in shown
            and "copying the first picture; too few episodes (2)" in shown
            and "reanchor8" in shown
        )
    assert page.count("<img") == sum(len(example.films) - ("reanchor8" in example.films) for example in examples)
    assert sum("reanchor8" in example.films for example in examples) == 2
    assert len(examples) == 4


def _number(example) -> int:  # type: ignore[no-untyped-def]
    return example.clip.number


def test_the_card_is_a_function_of_its_settings_and_not_of_the_batch() -> None:
    def numbers(batch: int, seed: int) -> str:
        settings = dataclasses.replace(SETTINGS, clips=3, horizons=(1, 3), imagining=Imagining(seed=seed, batch=batch))
        card, _ = make_card(Model("ignores"), VAL, TRAIN, settings)
        return json.dumps({name: card[name] for name in ("clips", *SECTIONS)})

    assert numbers(1, 0) == numbers(4, 0)
    assert numbers(4, 0) != numbers(4, 1)


def test_sections_are_left_out_in_words_or_on_request() -> None:
    card, _ = make_card(Model(), VAL, VAL, SETTINGS)  # every episode has a clip
    assert "actions_recovered" not in card and "--true-split" in card["skipped"]["actions_recovered"]
    assert "actions_recovered is left out" in as_text(card)
    model = Model()
    card, examples = make_card(model, VAL, VAL, dataclasses.replace(SETTINGS, sections=("moving_region",)))
    assert set(SECTIONS) & set(card) == {"moving_region"} and card["skipped"] == {}
    card, examples = make_card(model, VAL, VAL, dataclasses.replace(SETTINGS, sections=()))
    assert not set(SECTIONS) & set(card) and examples == []


def test_a_model_that_does_not_fit_the_data() -> None:
    class Wheels(Model):
        @property
        def about(self):  # type: ignore[no-untyped-def]
            return dataclasses.replace(super().about, action_names=("left", "right"))

    class Fast(Model):
        @property
        def about(self):  # type: ignore[no-untyped-def]
            return dataclasses.replace(super().about, control_rate=3.0)

    with pytest.raises(UserError, match=r"actions of 2 numbers \(left, right\), the data in memory have 7"):
        make_card(Wheels(), VAL, TRAIN, SETTINGS)
    with pytest.raises(UserError, match="takes 3 actions a second, the data in memory have 5"):
        make_card(Fast(), VAL, TRAIN, SETTINGS)


def test_the_view_is_what_the_model_says_unless_named() -> None:
    class Says(Model):
        @property
        def about(self):  # type: ignore[no-untyped-def]
            return dataclasses.replace(super().about, fit="stretch", camera="wrist")

    assert (view_of(Model()).fit, view_of(Model()).camera) == ("pad", None)
    assert (view_of(Says()).fit, view_of(Says()).camera) == ("stretch", "wrist")
    assert view_of(Says(), "front").camera == "front"


@pytest.mark.parametrize("wrong", [{"horizons": (4, 2)}, {"horizons": ()}, {"sections": ("taste",)}])
def test_settings_out_of_range(wrong: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(UserError, match="ascending|no section"):
        CardSettings(**wrong)  # type: ignore[arg-type]
