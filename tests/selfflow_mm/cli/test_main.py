"""The command line as a whole: quick help, nearest commands, exit codes, added commands."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from selfflow_mm.cli import main as cli
from selfflow_mm.errors import UserError

HEAVY = ("torch", "numpy", "av", "transformers", "webdataset", "PIL", "scipy", "pymunk", "yaml")


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"], ["genrate"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from selfflow_mm.cli.main import main; main(sys.argv[1:]);"
        f"sys.exit(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stderr.replace("selfflow-mm: unknown command 'genrate'; the nearest is 'generate'", "").strip() == ""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_has_its_module_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"selfflow_mm.cli.{name.replace('-', '_')}")
    assert module.HELP == cli.COMMANDS[name]
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"selfflow-mm {name}" in module.EXAMPLES and module.EXAMPLES.strip() in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    code = (
        f"import sys\nfrom selfflow_mm.cli.main import main\ntry: main([{name!r}, '--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and text in shown for name, text in cli.COMMANDS.items())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["genrate"], "unknown command 'genrate'; the nearest is 'generate'"),
        (["train_tokenizer"], "the nearest is 'train-tokenizer'"),
        (["zzz"], "unknown command 'zzz'; there are demo, generate"),
        (["--seed"], "the command comes before its options"),
    ],
)
def test_an_unknown_command_is_a_user_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err


def _module(action) -> types.ModuleType:
    module = types.ModuleType("added")
    module.HELP, module.EXAMPLES = "do something new", "examples:\n  selfflow-mm added 3\n"  # type: ignore[attr-defined]
    module.add_arguments = lambda parser: parser.add_argument("number", type=int)  # type: ignore[attr-defined]
    module.run = action  # type: ignore[attr-defined]
    return module


def _fail(error: BaseException):
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    "action, code",
    [
        (lambda args: args.number, 3),
        (_fail(UserError("the number is wrong")), 2),
        (_fail(KeyboardInterrupt()), 130),
        (_fail(ValueError("a bug")), None),
    ],
)
def test_an_entry_point_adds_a_command(
    action, code: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "added", _module(action))
    entry = importlib.metadata.EntryPoint("added", "added", cli.ENTRY_POINT_GROUP)
    broken = importlib.metadata.EntryPoint("broken", "no_such_module_at_all", cli.ENTRY_POINT_GROUP)
    monkeypatch.setattr(cli, "_added_commands", lambda: {"added": entry, "broken": broken})
    if code is None:  # our own bugs keep their traceback
        with pytest.raises(ValueError, match="a bug"):
            cli.main(["added", "3"])
        return
    assert cli.main(["added", "3"]) == code
    if code == 2:
        assert capsys.readouterr().err == "selfflow-mm: the number is wrong\n"
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "do something new" in shown and "(cannot be loaded: " in shown


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        command = [sys.executable, "-m", "selfflow_mm.cli.main", "--help"]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
