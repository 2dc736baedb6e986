"""Configurations: round trips, overrides, and the sentence each mistake is answered with."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.config import (
    config_folder,
    dump_yaml,
    find_config,
    flatten,
    from_dict,
    load_config,
    register_presets,
    to_dict,
)
from selfflow_mm.config_yaml import parse_yaml
from selfflow_mm.errors import UserError


@dataclass(frozen=True)
class Model:
    width: int = 192
    rate: float = 1e-4
    kind: Literal["dual", "uniform"] = "dual"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"width is {self.width}, but must be at least 1")


@dataclass(frozen=True)
class Config:
    steps: int
    model: Model = field(default_factory=Model)
    teacher: Model | None = None
    name: str = "tiny"
    data: Path | None = None
    shifts: tuple[float, ...] = ()
    size: tuple[int, int] = (64, 64)
    ratios: dict[str, float] = field(default_factory=dict)
    compiled: bool = False


_text = st.text(st.characters(codec="utf-8"), max_size=12)
_number = st.floats(allow_nan=False)
_models = st.builds(Model, st.integers(1, 10**12), _number, st.sampled_from(["dual", "uniform"]))
_configs = st.builds(
    Config,
    steps=st.integers(-(10**12), 10**12),
    model=_models,
    teacher=st.none() | _models,
    name=_text,
    data=st.none() | st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1).map(Path),
    shifts=st.lists(_number, max_size=3).map(tuple),
    size=st.tuples(st.integers(), st.integers()),
    ratios=st.dictionaries(_text, _number, max_size=3),
    compiled=st.booleans(),
)


@given(_configs)
def test_to_dict_and_back_is_the_same_object(config: Config) -> None:
    plain = to_dict(config)
    assert from_dict(Config, plain) == config
    # Plain enough for JSON, too, which is what checkpoints are written in.
    assert from_dict(Config, json.loads(json.dumps(plain))) == config


@given(_configs)
def test_yaml_and_back_is_the_same_object(config: Config) -> None:
    assert from_dict(Config, parse_yaml(dump_yaml(config), "dump")) == config


def test_a_file_with_overrides(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("steps: 1_000\nmodel:\n  rate: 3e-4  # no dot: text in YAML 1.1\nratios: {video: 1}\n")
    config = load_config(
        Config, file, ["model.width=7", "name=420", "teacher.rate=1e-5", "shifts=[1, 2.5]", "data=x/y"]
    )
    assert config == Config(
        steps=1000,
        model=Model(width=7, rate=3e-4),
        teacher=Model(rate=1e-5),
        name="420",
        shifts=(1.0, 2.5),
        data=Path("x/y"),
        ratios={"video": 1.0},
    )
    assert isinstance(config.ratios["video"], float)


def test_the_last_override_wins_and_null_removes_a_section(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("steps: 1\nteacher: {width: 3}\n")
    assert load_config(Config, file, ["teacher=null"]).teacher is None
    assert load_config(Config, file, ["teacher.width=4", "teacher.width=5"]).teacher == Model(width=5)
    assert load_config(Config, None, ["steps=3"]).steps == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("steps: 1\nmodel: {widht: 3}", "unknown key 'model.widht'; the nearest is 'model.width'"),
        ("steps: 1\nmodle: {width: 3}", "unknown key 'modle'; the nearest is 'model'"),
        ("steps: 1\nwidth: 3", "unknown key 'width'; the nearest is 'model.width'"),
        ("steps: 1\nzzzzzz: 3", "unknown key 'zzzzzz'; known keys: steps, model, teacher, name"),
        (
            "steps: 1\nmodel: {kind: dul}",
            "'model.kind' is 'dul', but must be one of 'dual', 'uniform'; the nearest is 'dual'",
        ),
        ("steps: 1\nmodel: {width: 0}", "model: width is 0, but must be at least 1"),
        ("steps: 1\nmodel: 3", "'model' is 3, but is a section with the keys width, rate, kind"),
        ("steps: 1\nmodel: {width: 1.0}", "'model.width' is 1.0, but must be a whole number"),
        ("steps: true", "'steps' is true, but must be a whole number"),
        ("steps: null", "'steps' is null, but must be a whole number"),
        ("steps: 1\nmodel: {rate: fast}", "'model.rate' is 'fast', but must be a number"),
        ("steps: 1\nmodel: {rate: .nan}", "'model.rate' is nan, but must be a number"),
        ("steps: 1\ncompiled: 1", "'compiled' is 1, but must be true or false"),
        ("steps: 1\ncompiled: yes", "'compiled' is 'yes', but must be true or false"),
        ("steps: 1\nname: 420", "'name' is 420, but must be text; write \"420\" in quotes"),
        ("steps: 1\nsize: [1, 2, 3]", "'size' is [1, 2, 3], but must be a list of 2 values"),
        ("steps: 1\nshifts: 3", "'shifts' is 3, but must be a list, such as [1, 2]"),
        ("steps: 1\nshifts: [1, x]", "'shifts.1' is 'x', but must be a number"),
        ("steps: 1\nratios: {a: b}", "'ratios.a' is 'b', but must be a number"),
        ("name: a", "the key 'steps' is missing"),
        ("steps: 1\nsteps: 2", "the key 'steps' is there twice"),
        ("steps: [1", "not valid YAML"),
        ("- steps", "a configuration is a list of 'key: value' lines"),
    ],
)
def test_a_mistake_in_a_file_names_file_key_and_nearest(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(Config, file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.widht=3", "unknown key 'model.widht'; the nearest is 'model.width'"),
        ("modle.width=3", "unknown key 'modle'; the nearest is 'model'"),
        ("model.width=0", "model: width is 0"),
        ("model.width=abc", "'model.width' is 'abc', but must be a whole number"),
        ("model.width", "an override is written key=value"),
        ("model..width=3", "an override is written key=value"),
        ("shifts=[1", "not valid YAML"),
    ],
)
def test_a_mistake_in_an_override_is_blamed_on_the_command_line(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(Config, None, ["steps=1", override])
    assert str(caught.value).startswith("command line: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-4", 1e-4),
        ("-2.5E3", -2500.0),
        ("-.inf", -math.inf),
        ("010", 10),
        ("1_000", 1000),
        ("'1'", "1"),
        ("yes", "yes"),
        ("off", "off"),
        ("16:9", "16:9"),
        ("2026-11-23", "2026-11-23"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(f"key: {text}", "test")["key"]
    assert found == value and type(found) is type(value)


def test_a_configuration_is_found_by_path_or_by_the_name_it_ships_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no folder configs/ lies
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 1\n")
    assert find_config(file) == file
    folder = config_folder()
    assert folder is not None
    shipped = sorted(folder.rglob("*.yaml"))
    assert shipped
    name = shipped[0].relative_to(folder)
    assert find_config(name) == find_config(name.with_suffix("")) == find_config("configs" / name) == shipped[0]
    with pytest.raises(UserError, match=f"the nearest that ships is '{name.as_posix()}'"):
        find_config(name.with_name(name.stem + "x.yaml"))
    with pytest.raises(UserError, match="is a folder"):
        find_config(tmp_path)


def test_flatten_gives_dotted_keys() -> None:
    flat = flatten(to_dict(Config(steps=1)))
    assert flat["model.width"] == 192 and flat["teacher"] is None and flat["ratios"] == {}


def test_defaults_are_the_dataclass_own() -> None:
    assert load_config(Model) == Model()
    assert dataclasses.asdict(load_config(Model, None, ["rate=1"]))["rate"] == 1.0


@dataclass(frozen=True)
class Shape:
    preset: str = ""
    width: int = 1
    depth: int = 1
    name: str = "x"


@dataclass(frozen=True)
class Shaped:
    model: Shape = field(default_factory=Shape)


register_presets(Shape, {"small": {"width": 10, "depth": 2}, "large": {"width": 30, "depth": 6}})


@pytest.mark.parametrize(
    ("written", "overrides", "expected"),
    [
        ("", [], Shape()),
        ("{preset: small}", [], Shape("small", 10, 2)),
        ("{preset: small, depth: 9, name: y}", [], Shape("small", 10, 9, "y")),
        # The command line speaks last: its preset comes before the file's keys, its keys before its preset.
        ("{width: 5, depth: 9, name: y}", ["model.preset=large"], Shape("large", 30, 6, "y")),
        ("{preset: small, depth: 9}", ["model.preset=large"], Shape("large", 30, 6)),
        ("{preset: small}", ["model.depth=4"], Shape("small", 10, 4)),
        ("{depth: 9}", ["model.depth=4", "model.preset=large"], Shape("large", 30, 4)),
        ("{preset: small, depth: 9}", ["model.preset="], None),
        ('{preset: ""}', [], Shape()),
    ],
)
def test_a_preset_stands_for_its_values(tmp_path: Path, written: str, overrides: list[str], expected) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"model: {written}\n" if written else "")
    if expected is None:
        with pytest.raises(UserError, match="'model.preset' is null, but must be text"):
            load_config(Shaped, file, overrides)
        return
    config = load_config(Shaped, file, overrides)
    assert config.model == expected
    assert from_dict(Shaped, parse_yaml(dump_yaml(config), "dump")) == config


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{preset: smal}", "a.yaml: 'model.preset' is 'smal', but there is no such preset; the nearest is 'small'"),
        ("{preset: zzz}", "there is no such preset; there are small, large"),
        ("{preset: 3}", "'model.preset' is 3, but must be text"),
        ("{preset: small, widht: 3}", "unknown key 'model.widht'; the nearest is 'model.width'"),
    ],
)
def test_a_preset_that_is_not_there(tmp_path: Path, written: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"model: {written}\n")
    with pytest.raises(UserError) as caught:
        load_config(Shaped, file)
    assert message in str(caught.value)
