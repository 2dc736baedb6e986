"""A card to look at: ``report.html`` with verdicts, tables, curves over the horizon, and film strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .card import Example
from .comparison import BASELINES, REFERENCE
from .table import tables_of

__all__ = ["write_page"]

_TITLES = {
    "open_loop": "Prediction, open loop",
    "moving_region": "Where something moves",
    "counterfactual": "Do actions act?",
    "actions_recovered": "Actions recovered",
    "policies_ranked": "Policies ranked",
}
_EXPLAINED = {
    "open_loop": "From one true picture and the true actions; no other true picture is given, except where the "
    "name of a metric says `reanchor8`. `copy` repeats the first picture, `shuffled actions` gives the model "
    "another clip's actions, `zero actions` none, `tokenizer` is the truth through the model's tokenizer: no "
    "model of its latents can do better.",
    "moving_region": "The same in pixels that differ from the first picture in the true film. Elsewhere copying wins.",
    "counterfactual": "Films of the same start with other actions. A ratio above 1 says that they differ by more "
    "than films of the same actions with another seed; about 1, that actions are ignored. A distance of exactly 0 "
    "with the same seed says that they are not used at all.",
    "actions_recovered": "An inverse model that has seen true pictures only tells from two pictures what was done "
    "between them; `r` is its correlation with what was put in. True frames are its ceiling. A model that guesses "
    "what a robot would do next can pass with true actions; it cannot with another clip's.",
    "policies_ranked": "Policies act in the real environment and, from the same first pictures, in imagination, "
    "where a detector trained on true pictures tells success.",
}
_SHOWN = ("truth", REFERENCE, *BASELINES, "other_seed", "mirrored_actions", "tokenizer_ceiling")


def write_page(card: Mapping[str, Any], examples: Sequence[Example], path: Path) -> None:
    """Write ``report.html``: one file, nothing loaded from elsewhere.

    Args:
        card: what :func:`selfflow_robotics.report_card.make_card` gave.
        examples: films to show; their pictures are the model's.
        path: of the page.
    """
    from selfflow_mm.evaluation.page import Page

    model, data = card["model"], card["data"]
    page = Page(
        f"World model: {model['name']}",
        f"{len(card['clips'])} clips of `{data['name']}`, split {data['split']}, seed "
        f"{card['settings']['imagining']['seed']}",
    )
    for section, tables in tables_of(card).items():
        page.heading(_TITLES[section])
        page.text(_EXPLAINED[section])
        for name, series in _curves(section, card[section]).items():
            page.curve(name, series, x_label="frames ahead")
        for title, header, rows in tables:
            page.text(title)
            page.table(rows, header)
    for section, why in card["skipped"].items():
        page.heading(_TITLES[section])
        page.text(f"Left out: {why}.")
    if examples:
        page.heading("Films")
        _films(page, examples)
    page.heading("How it was measured")
    rows = [[name, str(value)] for name, value in {**card["settings"], **card["versions"]}.items()]
    page.table([*rows, ["seconds", card["seconds"]]], ("setting", "value"))
    page.save(path)


def _curves(section: str, found: Mapping[str, Any]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    horizons = found.get("horizons", [])
    if section in ("open_loop", "moving_region"):
        middle = "_moving" if section == "moving_region" else ""
        series: dict[str, tuple[list[float], list[float]]] = {}
        for film in (REFERENCE, *BASELINES, "tokenizer_ceiling"):
            values = [found["metrics"][f"psnr_rgb{middle}_h{h}_openloop"].get(film, {}).get("value") for h in horizons]
            _add(series, film, horizons, values)
        return {"PSNR in dB, rgb, mean over frames 1 to h": series}
    if section == "counterfactual":
        series = {}
        for name in found[f"h{horizons[0]}"]["actions"]:
            values = [found[f"h{h}"]["actions"][name]["different_seeds"]["value"] for h in horizons]
            _add(series, name, horizons, values)
        _add(series, "same actions", horizons, [found[f"h{h}"]["between_seeds"]["value"] for h in horizons])
        return {"Distance of films from the true actions' film, another seed (grey levels)": series}
    return {}


def _add(
    series: dict[str, tuple[list[float], list[float]]], name: str, xs: Sequence[float], ys: Sequence[float | None]
) -> None:
    known = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True) if y is not None]
    if known:
        series[name.replace("_", " ")] = ([x for x, _ in known], [y for _, y in known])


def _films(page: Any, examples: Sequence[Example]) -> None:
    import torch

    from selfflow_mm.evaluation.pictures import film_strip
    from selfflow_tokenizers.media import Video

    for example in examples:
        clip = example.clip
        page.text(
            f"{clip.instruction or 'no instruction'}: episode `{clip.episode}`, step {clip.start}, {len(clip)} actions"
        )
        for name in _SHOWN:
            if name in example.films:
                frames = torch.from_numpy(example.films[name].copy())
                page.picture(film_strip(Video(frames, 1.0)), name.replace("_", " "))
