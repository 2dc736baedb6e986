"""Are the simulator's stages, models and real pictures SIMPLER's own? Told by their hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .arrangements import Arrangement, Trial

__all__ = ["assets_of", "official_assets", "with_differences"]

_LIST = Path(__file__).with_name("assets.txt")
_STAGES, _MODELS, _PICTURES = "hab2_bench_assets/stages", "custom/models", "real_inpainting"
#: Task -> beginnings of the names of models that it may draw; move_near and distractors may draw any.
_DRAWN: dict[str, tuple[str, ...]] = {
    "pick_coke_can": ("opened_coke_can",),
    "open_drawer": (),
    "close_drawer": (),
    "place_apple_in_closed_top_drawer": ("apple", "baked_apple"),
    "spoon_on_towel": ("bridge_spoon", "table_cloth"),
    "carrot_on_plate": ("bridge_carrot", "bridge_plate"),
    "stack_cube": ("green_cube", "yellow_cube", "baked_green_cube", "baked_yellow_cube"),
    "put_eggplant_in_basket": ("eggplant", "sink", "dummy_sink"),
}


@cache
def official_assets() -> dict[str, str]:
    """Path below ManiSkill2_real2sim's folder ``data`` -> git's hash of the file, at commit ef7a4d4."""
    lines = [line for line in _LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {path: digest for digest, path in (line.split(" ", 1) for line in lines)}


def with_differences(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A worker's facts with ``assets`` (path -> hash) replaced by ``missing_assets`` and ``other_assets``."""
    kept = {name: value for name, value in facts.items() if name != "assets"}
    if "assets" in facts:
        there, due = facts["assets"], official_assets()
        kept["missing_assets"] = sorted(path for path in due if path not in there)
        kept["other_assets"] = sorted(path for path, digest in due.items() if there.get(path, digest) != digest)
    return kept


def assets_of(trials: Sequence[Trial]) -> set[str]:
    """Official files that these trials draw, or may draw."""
    return {path for arrangement in _arrangements(trials) for path in _of(arrangement)}


def _arrangements(trials: Sequence[Trial]) -> list[Arrangement]:
    return list({id(trial.arrangement): trial.arrangement for trial in trials}.values())


def _of(arrangement: Arrangement) -> list[str]:
    models = _DRAWN.get(arrangement.task)
    if "distractors" in arrangement.variant:
        models = None
    return [
        path
        for path in official_assets()
        if path in (f"{_STAGES}/{arrangement.scene}.glb", f"{_PICTURES}/{arrangement.overlay}")
        or (path.startswith(f"{_MODELS}/") and (models is None or path.split("/")[2].startswith(models)))
    ]
