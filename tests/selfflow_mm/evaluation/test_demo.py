"""The demo: one file to send, every command on it makes the very file again, and what a model cannot do is left out."""

from __future__ import annotations

import re
import shlex
import shutil
from html import unescape
from pathlib import Path

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.data.world.grammar import parse
from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.demo import make_demo
from selfflow_mm.generation.pipeline import Geometry, Pipeline
from selfflow_mm.generation.sampling import SamplingConfig
from selfflow_mm.models import JointConfig, JointTransformer
from selfflow_tokenizers import load_tokenizer

MADE = {"t2va": 5, "v2a": 2, "i2va": 2, "t2a": 4, "t2v": 4, "t2i": 4}  # with --clips 1


def _save(folder: Path, tokenizers: dict[str, str], modalities: tuple[str, ...], geometry: Geometry) -> str:
    """A model that makes noise of the right form."""
    loaded = {name: load_tokenizer(tokenizers[name]) for name in modalities}
    config = JointConfig(
        width=32, heads=2, double_blocks=1, single_blocks=1, mlp_ratio=2, rope_axes=(8, 4, 2, 2),
        modalities={name: tokenizer.spec.channels for name, tokenizer in loaded.items()}, text_channels=192,
    )  # fmt: skip
    torch.manual_seed(0)
    model = JointTransformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    Pipeline(model, loaded, geometry, SamplingConfig(steps=1)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def demo(small_tokenizers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    model = _save(folder / "model", small_tokenizers, ("image", "video", "audio"), Geometry())
    assert make_demo(folder / "demo", clips=1, seed=3, model=model) == folder / "demo" / "index.html"
    return folder / "demo"


def _commands(demo: Path) -> list[list[str]]:
    found = re.findall("<pre><code>(.*?)</code></pre>", (demo / "index.html").read_text())
    return [shlex.split(unescape(command)) for command in found]


def test_the_page_is_whole_without_its_folder(demo: Path) -> None:
    page = (demo / "index.html").read_text()
    sources = re.findall(r'(?:src|href|poster)=["\']?([^"\'>]*)', page)
    assert sources and all(source.startswith("data:") for source in sources)
    # Each film that was made, two real ones, and one of them again at the top.
    films = sum(MADE[task] for task in ("t2va", "v2a", "i2va", "t2v"))
    assert page.count("<video ") == films + 2 + 1 and page.count("<audio ") == MADE["t2a"]
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles[:3] == ["Video with sound", "One prompt, four seeds", "Sound for a given picture"]
    assert titles[3:] == ["A film from a first frame", "Sound alone", "Silent video", "Images"]


def test_the_prompts_are_the_world_s_and_four_clips_share_one(demo: Path) -> None:
    said = {command[command.index("--task") + 1]: parse(command[2]) for command in _commands(demo)}
    assert set(said) == set(MADE) and said["t2a"].sounds and not said["t2a"].objects
    assert all(thing.material is None for thing in said["v2a"].objects)
    films = [command[2] for command in _commands(demo) if "t2va" in command]
    assert len(films) == 5 and len(set(films[1:])) == 1 and parse(films[1]).sign
    seeds = [command[command.index("--seed") + 1] for command in _commands(demo)]
    assert seeds == [str(3 + i) for i in range(sum(MADE.values()))]


@pytest.mark.parametrize("task", MADE)
def test_each_command_makes_the_very_file_again(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    command = [command for command in _commands(demo) if task in command][-1]
    assert command[:2] == ["selfflow-mm", "generate"]
    for given in (*demo.glob("real-*.mp4"), *demo.glob("frame-*.png")):
        shutil.copy(given, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    assert Path(command[-1]).read_bytes() == (demo / command[-1]).read_bytes()


def test_what_a_model_cannot_do_is_left_out(small_tokenizers: dict[str, str], tmp_path: Path) -> None:
    sounds = _save(tmp_path / "sounds", small_tokenizers, ("audio",), Geometry(samples=9000))
    page = make_demo(tmp_path / "a", clips=1, model=sounds).read_text()
    assert "<audio " in page and "<video " not in page and "class='hero'" not in page
    # A film of another size than the world's cannot start from its clips.
    small = _save(tmp_path / "small", small_tokenizers, ("video", "audio"), Geometry(9, 32, 32, 16.0, 9000))
    page = make_demo(tmp_path / "b", clips=2, model=small).read_text()
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == ["Video with sound", "One prompt, four seeds", "Sound alone", "Silent video"]


def test_another_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else than a demo"):
        make_demo(tmp_path)
    with pytest.raises(UserError, match="at least one clip, got 0"):
        make_demo(tmp_path / "demo", clips=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
