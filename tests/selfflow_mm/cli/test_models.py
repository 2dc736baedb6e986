"""``selfflow-mm models``: the table's numbers against hand arithmetic, the details, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest

from selfflow_mm.cli import main as cli
from selfflow_mm.models import PRESETS


def _shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["models", *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_has_every_preset_and_the_imagenet_model(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {line.split()[0]: line for line in _shown(capsys).splitlines()[1 : len(PRESETS) + 2]}
    assert set(rows) == {*PRESETS, "xl/2"}
    assert re.search(r"625m +7 \+ 14 +1152 +16 +628,226,496 +628\.2 ", rows["625m"])
    assert re.search(r"4b +5 \+ 20 +3072 +24 +3,876,232,704 +3876\.2 ", rows["4b"])
    assert re.search(r"xl/2 +28 +1152 +16 +675,129,632 +675\.1 ", rows["xl/2"])


def test_the_numbers_are_those_of_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    [*_, big, xl] = json.loads(_shown(capsys, "--json", "--tokens", "1024", "--text-tokens", "128", "--batch", "2"))
    assert big["name"] == "4b" and big["tokens"] == 1152 and xl["tokens"] == 1024
    d, n = 3072, 1152
    # 26 D x D in a double block's two halves, of which a token sees one, and 13 D x D in a single block.
    assert big["forward_flops_by_part"]["blocks"] == 2 * n * (5 * 13 + 20 * 13) * d * d
    assert big["forward_flops_by_part"]["attention"] == 25 * 4 * n * n * d
    assert big["forward_flops_per_token"] == big["forward_flops"] / n
    assert big["sources"]["width"].startswith("FLUX.2")
    everything = sum(big["parameters_by_part"].values())
    assert big["parameters"] == everything - big["parameters_by_part"]["projector"]
    memory = big["training_bytes"]
    assert memory["weights"] == memory["gradients"] == memory["ema"] == memory["optimizer"] / 2 == 4 * everything
    # At the fullest moment, the teacher's pass over what the student kept, there are no gradients yet.
    there = ("weights", "optimizer", "ema", "casts", "activations", "forward")
    assert memory["total"] == sum(memory[part] for part in there)
    assert xl["forward_flops_by_part"]["blocks"] == 28 * 2 * 1024 * 12 * 1152**2


def test_options_change_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    def of(*options: str) -> dict:
        return json.loads(_shown(capsys, "290m", "--json", *options))

    plain, double, again, high = of(), of("--batch", "32"), of("--recompute"), of("--float32")
    assert double["training_bytes"]["activations"] == 2 * plain["training_bytes"]["activations"]
    assert again["training_bytes"]["activations"] < 0.5 * plain["training_bytes"]["activations"]
    assert high["training_bytes"]["casts"] == 0 < plain["training_bytes"]["casts"]
    assert plain["training_step_flops"] == double["training_step_flops"]  # of one sample


@pytest.mark.parametrize("name", [*PRESETS, "xl/2"])
def test_one_in_detail(capsys: pytest.CaptureFixture[str], name: str) -> None:
    shown = _shown(capsys, name)
    fields = json.loads(_shown(capsys, name, "--json"))["config"]
    for field in fields:
        assert re.search(rf"^  {field} +\S.*  \S", shown, re.MULTILINE), field
    total = int(re.search(r"with the projector ([\d,]+)", shown)[1].replace(",", ""))
    parts = re.findall(r"^  \w+ +([\d,]+) +[\d.]+%$", shown, re.MULTILINE)
    assert sum(int(part.replace(",", "")) for part in parts) == total
    assert "the paper" in shown or name in ("tiny", "4b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["290"], "there is no model '290'; the nearest is '290m'"),
        (["zzz"], "there are tiny, 290m"),
        (["--tokens", "0"], "tokens, text-tokens and batch are at least 1"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", *arguments]) == 2
    assert message in capsys.readouterr().err
