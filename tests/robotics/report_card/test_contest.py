"""From names and files to a ranking; the tabletop's pictures are replaced by squares, everything else is as in use."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.report_card import contest as module
from selfflow_robotics.report_card.contest import Contest, enter, hold_contest, open_policy
from selfflow_robotics.report_card.films import Imagining
from selfflow_robotics.report_card.held_out import View
from selfflow_robotics.report_card.imagined_episodes import Start
from selfflow_robotics.report_card.networks import Fitting
from selfflow_robotics.report_card.success import train_detector
from selfflow_robotics.rollouts import EpisodeResult, ResultsFile
from tests.robotics.report_card.toys import HEIGHT, WIDTH, Model, Pusher, draw, squares

VIEW = View(HEIGHT, WIDTH)
HOW = Imagining(batch=8)


def write(path: Path, verdicts: list[bool], task: str = "open_drawer", until: str = "success") -> Path:
    tabletop = {"variant": ["light"], "until": until}
    with ResultsFile(path, {"acting": asdict(ActingOptions(executed=2)), "tabletop": tabletop}) as file:
        for n, done in enumerate(verdicts):
            file.add(EpisodeResult(task, n, 50 + n, 6, done, done, ("open it",), 1, 0.0))
    return path


def test_results_are_read_detectors_trained_and_policies_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = []

    def starts(results: list[EpisodeResult], variant: tuple[str, ...]) -> list[Start]:
        variants.append(variant)
        return [Start(r.task, r.episode, r.layout, draw(90, 5, 20, True), "open it") for r in results]

    monkeypatch.setattr(module, "tabletop_starts", starts)
    monkeypatch.setattr(module, "train_detector", partial(train_detector, how=Fitting(updates=60, batch=16)))
    monkeypatch.setattr(module, "load_policy", lambda name, **settings: Pusher(int(name)))
    real = {"0": [False, False], "1": [False, True], "3": [True, True]}
    files = tuple(write(tmp_path / f"{name}.jsonl", verdicts) for name, verdicts in real.items())
    wanted = Contest(policies=tuple(real), real=files, limit=7)
    train, val = squares([[10] * 24], 0, True, "train"), squares([[10] * 12], 1, True)
    found = hold_contest(wanted, Model(), VIEW, train, val, HOW)
    assert found["tasks"] == ["open_drawer"] and found["detectors"]["open_drawer"]["usable"]
    assert variants == [("light",)] * 3
    rates = {name: (policy["real"], policy["imagined"]) for name, policy in found["policies"].items()}
    assert rates["0"] == (0, 0) and rates["3"] == (1, 1) and found["mmrv"] <= 0.25  # 6 pixels to go, 7 steps

    # A task that its detector cannot tell is left out; here it is the only one.
    monkeypatch.setattr(module, "train_detector", partial(train_detector, how=Fitting(updates=1, batch=2)))
    with pytest.raises(UserError, match="no task can be judged from pictures.*open_drawer: "):
        hold_contest(wanted, Model(), VIEW, train, val, HOW)


def test_results_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    drawers, things = write(tmp_path / "a", [True]), write(tmp_path / "b", [True], "pick")
    late = write(tmp_path / "c", [True], until="limit")  # 6 steps

    def opened(*real: Path, **settings: int) -> int:
        return len(enter(Contest(policies=("zero", "noisy:zero:0.5"), real=real, **settings), Model()).real)

    with pytest.raises(UserError, match="b holds pick and .*a open_drawer; .* with --tasks"):
        opened(drawers, things)
    with pytest.raises(UserError, match="c was made with --until limit.* within 5 actions"):
        opened(drawers, late, limit=5)
    assert opened(drawers, late, limit=6) == opened(drawers, drawers, limit=5) == 2


def test_policies_by_name() -> None:
    assert open_policy("zero", Model()).about.name == "zero"
    noisy = open_policy("noisy:zero:0.5", Model())
    assert noisy.about.name == "zero"
    for wrong in ("noisy:zero", "noisy:zero:much", "noisy:0.5", "noisy:zero:nan"):
        with pytest.raises(UserError, match="noisy:POLICY:X"):
            open_policy(wrong, Model())
    with pytest.raises(UserError, match="robot-data stats"):
        open_policy("random", Model(), Path("nowhere"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"policies": ("zero",)}, "two policies at least"),
        ({"policies": ("zero", "zero")}, "named once"),
        ({"real": (Path("a"),)}, "2 policies need as many files"),
        ({"tasks": ("place_in_drawer",)}, "cannot be judged from pictures"),
        ({"limit": 0}, "limit is at least 1"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Contest(**{"policies": ("zero", "random"), **wrong})  # type: ignore[arg-type]


def test_a_policy_that_needs_a_state_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_policy", lambda name, **settings: Pusher(1, needs=True))
    with pytest.raises(UserError, match="needs the robot's state"):
        hold_contest(Contest(policies=("a", "b")), Model(), VIEW, squares([[5]]), squares([[5]]), HOW)
