"""A card as rows: for the terminal and, the same rows, for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Table", "as_text", "tables_of"]

#: (title, header, rows)
Table = tuple[str, Sequence[str], list[list[Any]]]

_FILMS = {
    "model": "model",
    "copy_last_frame": "copy",
    "shuffled_actions": "shuffled actions",
    "zero_actions": "zero actions",
    "tokenizer_ceiling": "tokenizer",
}
_RECOVERED = {"true_frames": "true frames", "model": "model", "shuffled_actions": "shuffled actions",
              "copy_last_frame": "copy"}  # fmt: skip


def tables_of(card: Mapping[str, Any]) -> dict[str, list[Table]]:
    """Section -> its tables."""
    makers = {
        "open_loop": _open_loop,
        "moving_region": _moving,
        "counterfactual": _counterfactual,
        "actions_recovered": _recovered,
        "policies_ranked": _ranked,
    }
    return {name: maker(card[name]) for name, maker in makers.items() if name in card}


def as_text(card: Mapping[str, Any]) -> str:
    """All tables and verdicts for a terminal."""
    model, data = card["model"], card["data"]
    lines = [
        f"{model['name']}: {model['width']} x {model['height']} pictures, {model['control_rate']:g} a second",
        f"{data['name']}, split {data['split']}: {len(card['clips'])} clips of "
        f"{len({clip['episode'] for clip in card['clips']})} episodes, seed {card['settings']['imagining']['seed']}",
    ]
    for tables in tables_of(card).values():
        for title, header, rows in tables:
            lines += ["", title, *_aligned(header, rows)]
    lines += ["", *(f"{section} is left out: {why}" for section, why in card["skipped"].items())]
    return "\n".join(lines).rstrip()


def _open_loop(section: Mapping[str, Any]) -> list[Table]:
    tables = [
        _predictions(section, f"psnr_{colour}", "", f"PSNR, {colour}, mean over frames 1 to h, no re-anchoring (dB)")
        for colour in ("rgb", "gray")
    ]
    tables += [
        _predictions(section, f"ssim_{colour}", "", f"SSIM, {colour}, mean over frames 1 to h, no re-anchoring")
        for colour in ("rgb", "gray")
    ]
    again = [[name, *_figure(found["model"])] for name, found in section["metrics"].items() if "reanchor8" in name]
    if again:
        tables.append(("Re-anchored on the truth every 8 frames", ("metric", "model", "95 %", "clips"), again))
    return [*tables, _verdicts(section, "Against baselines, PSNR rgb")]


def _moving(section: Mapping[str, Any]) -> list[Table]:
    share = {h: f"{_number(found['value'])}" for h, found in section["share_of_pixels_that_move"].items()}
    title = f"PSNR, rgb, where the truth moves (more than {section['threshold']} levels), frames 1 to h (dB)"
    _, header, rows = _predictions(section, "psnr_rgb", "_moving", title)
    rows = [[*row, share[f"h{row[0]}"]] for row in rows]
    return [(title, (*header, "share moving"), rows), _verdicts(section, "Against baselines, moving region, PSNR rgb")]


def _predictions(section: Mapping[str, Any], quantity: str, where: str, title: str) -> Table:
    found = {h: section["metrics"][f"{quantity}{where}_h{h}_openloop"] for h in section["horizons"]}
    films = [film for film in _FILMS if any(film in metric for metric in found.values())]
    rows: list[list[Any]] = []
    for h, metric in found.items():
        value, interval, n = _figure(metric["model"])
        others = [_number(metric[film]["value"]) for film in films if film != "model"]
        rows.append([h, value, interval, *others, n])
    return title, ("h", "model", "95 %", *(_FILMS[film] for film in films if film != "model"), "clips"), rows


def _verdicts(section: Mapping[str, Any], title: str) -> Table:
    rows = [
        [h.removeprefix("h"), sentence]
        for h, verdicts in section["verdicts"].items()
        for film, sentence in verdicts.items()
        if film != "n"
    ]
    return title, ("h", "model"), rows


def _counterfactual(section: Mapping[str, Any]) -> list[Table]:
    rows = [
        [h, name.replace("_", " "), *_figure(found["ratio_to_seeds"])[:2], _number(found["same_seed"]["value"]),
         _number(section[f"h{h}"]["between_seeds"]["value"]), found["ratio_to_seeds"]["n"], found["verdict"]]
        for h in section["horizons"]
        for name, found in section[f"h{h}"]["actions"].items()
    ]  # fmt: skip
    header = ("h", "instead of true", "ratio to seeds", "95 %", "same seed", "between seeds", "clips", "verdict")
    return [("Other actions, same start: distance of the films (grey levels)", header, rows)]


def _recovered(section: Mapping[str, Any]) -> list[Table]:
    films = [film for film in _RECOVERED if film in section["films"]]
    rows: list[list[Any]] = []
    for column in section["films"]["true_frames"]:
        cells = []
        for film in films:
            found = section["films"][film][column]
            cells += [_with_interval(found["correlation"]), _number(found["r2"]["value"])]
        rows.append([column, *cells])
    mean = section["mean_correlation"]
    rows.append(
        [f"mean of {len(section['recoverable'])}", *(cell for film in films for cell in (_number(mean[film]), ""))]
    )
    header = ("action", *(text for film in films for text in (f"{_RECOVERED[film]}: r", "R2")))
    title = f"Actions recovered by an inverse model of {section['trained_on_pairs']:,} true pairs of pictures; "
    title += "the mean is over columns with r of 0.3 or more on true frames"
    return [(title, header, rows)]


def _ranked(section: Mapping[str, Any]) -> list[Table]:
    rows: list[list[Any]] = []
    for name, found in section["policies"].items():
        sides = [f"{found[side]:.2f} {_bounds(*found[f'{side}_interval'])}" for side in ("real", "imagined")]
        rows.append([name, *sides, _number(found["agreement"]["kappa"]), found["episodes"]])
    tables: list[Table] = [
        ("Policies: success in truth and in imagination", ("policy", "real", "imagined", "kappa", "episodes"), rows)
    ]
    for key in ("pearson", "spearman"):
        found = section[key]
        interval = _bounds(found["low"], found["high"]), _bounds(found["bootstrap_low"], found["bootstrap_high"])
        tables.append((key, ("value", "95 % (Fisher)", "95 % (bootstrap)", "policies"),
                       [[_number(found["value"]), *interval, found["n"]]]))  # fmt: skip
    counts = section["agreement"]
    tables.append((
        "Episode by episode",
        ("both succeed", "only in truth", "only imagined", "neither", "kappa", "MMRV"),
        [[counts["both"], counts["only_real"], counts["only_imagined"], counts["neither"], _number(counts["kappa"]),
          _number(section["mmrv"])]],
    ))  # fmt: skip
    detectors = [
        [task, f"{d['ends_recognised']:.2f} {_bounds(*d['ends_recognised_interval'])}",
         f"{d['episodes_taken_for_done_too_early']:.2f} {_bounds(*d['too_early_interval'])}", d["held_out_episodes"],
         "yes" if d["usable"] else "no"]
        for task, d in section["detectors"].items()
    ]  # fmt: skip
    header = ("detector of", "ends recognised", "taken for done too early", "true episodes", "used")
    return [*tables, ("What the detectors of success are worth, on held-out true episodes", header, detectors),
            ("Verdict", ("",), [[section["verdict"]]])]  # fmt: skip


def _figure(found: Mapping[str, Any]) -> tuple[str, str, int]:
    return _number(found["value"]), _bounds(found["low"], found["high"]), found["n"]


def _with_interval(found: Mapping[str, Any]) -> str:
    return " ".join(part for part in _figure(found)[:2] if part)


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _aligned(header: Sequence[str], rows: list[list[Any]]) -> list[str]:
    cells = [[str(text) for text in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
