"""The command ``selfflow-mm``: finds the module of the command called and runs it.

Help must be quick, so the table below holds each command's one line and a module is imported only when it is called.
Other packages add commands through the entry point group ``selfflow_mm.commands``: each entry names a module with
``HELP`` (one line), ``EXAMPLES`` (the epilog), ``add_arguments(parser)`` and ``run(args) -> int``, like ours. A command
with commands of its own (``robot-data inspect``) has ``HELP``, ``EXAMPLES`` and ``SUBCOMMANDS`` instead: name ->
(module of that form, its one line).
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from types import ModuleType

PROGRAM = "selfflow-mm"
ENTRY_POINT_GROUP = "selfflow_mm.commands"
USER_ERROR, INTERRUPTED = 2, 130

#: Command name: the one line that help shows. The module is ``selfflow_mm.cli.<name with underscores>``.
COMMANDS = {
    "demo": "make a few clips with the bundled weights and a page to watch them on",
    "generate": "make a video, sound or image from text",
    "train": "train a transformer on prepared data",
    "train-tokenizer": "train a video or audio tokenizer",
    "evaluate-tokenizer": "compare tokenizers: reconstruction, latents, speed and memory, side by side",
    "evaluate-world": "measure a model on the bundled world: faithfulness, sync, consistency and plausibility",
    "encode": "encode a video, sound or image, a folder of them, or a data set, to latent tokens",
    "decode": "decode an encoded file back to a video, sound or image",
    "sample-imagenet": "sample an ImageNet transformer: 50,000 images for FID, or a few to look at",
    "export": "write a run's checkpoint as a model: a folder, one file, or on the hub",
    "posthoc-ema": "make a model with another EMA length, after training",
    "prepare": "turn videos, sounds, images and captions into a data set",
    "make-world": "make a data set of the bundled world: things that move and sound, with captions and exact events",
    "models": "list the named models: shape, parameters, FLOPs per token, memory to train and to sample",
    "inspect": "say in words what a checkpoint, run, shard, encoded file or configuration holds",
    "bench": "measure the model on this machine: speed, MFU and memory, beside a modulation per token",
    "doctor": "show what is installed, which devices there are, and what is missing",
}

_EPILOG = f"""\
first steps:
  {PROGRAM} demo --out demo
  {PROGRAM} generate "a red metal ball falls and bounces" --out ball.mp4
  {PROGRAM} COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 a user's mistake, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _quietly(lambda: print(_overview(), end=""))
    if arguments[0] in ("-V", "--version"):
        return _quietly(lambda: print(f"{PROGRAM} {_version()}"))
    name = arguments[0]
    added = _added_commands()
    if name not in COMMANDS and name not in added:
        return _fail(_unknown(name, [*COMMANDS, *added]))
    if name in COMMANDS:
        module = importlib.import_module(f"selfflow_mm.cli.{name.replace('-', '_')}")
    else:
        module = added[name].load()
    return _run(name, module, arguments[1:])


def _run(name: str, module: ModuleType, arguments: Sequence[str]) -> int:
    from ..errors import UserError

    subcommands: dict[str, tuple[str, str]] | None = getattr(module, "SUBCOMMANDS", None)
    if subcommands is not None:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            return _quietly(lambda: print(_overview_of(name, module), end=""))
        if arguments[0] not in subcommands:
            return _fail(_unknown(arguments[0], list(subcommands), f"{PROGRAM} {name}"))
        inner = importlib.import_module(subcommands[arguments[0]][0])
        return _run(f"{name} {arguments[0]}", inner, arguments[1:])
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=module.HELP[:1].upper() + module.HELP[1:] + ".",
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        args = parser.parse_intermixed_args(arguments)  # settings may stand before and after options
        return int(module.run(args) or 0)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return _silence()


def _quietly(action: Callable[[], None]) -> int:
    try:
        action()
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        return _silence()


def _silence() -> int:
    """The reader of our output has gone (``| head``): point stdout at nothing, or Python complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return USER_ERROR


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND [options]", "", "Self-Flow models of image, video and sound.", "", "commands:"]
    table = dict(COMMANDS)
    for name, entry in _added_commands().items():
        try:
            table.setdefault(name, entry.load().HELP)
        except ImportError as error:  # another package's fault must not cost the help of our own commands
            table.setdefault(name, f"(cannot be loaded: {error})")
    width = max(map(len, table))
    lines += [f"  {name:<{width}}  {text}" for name, text in table.items()]
    return "\n".join(lines) + f"\n\n{_EPILOG}"


def _overview_of(name: str, module: ModuleType) -> str:
    lines = [f"usage: {PROGRAM} {name} COMMAND [options]", "", module.HELP[:1].upper() + module.HELP[1:] + ".", ""]
    width = max(map(len, module.SUBCOMMANDS))
    lines += ["commands:", *(f"  {key:<{width}}  {text}" for key, (_, text) in module.SUBCOMMANDS.items())]
    return "\n".join(lines) + f"\n\n{module.EXAMPLES}"


def _added_commands() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _unknown(name: str, known: Sequence[str], program: str = PROGRAM) -> str:
    if name.startswith("-"):
        return f"the command comes before its options: {program} COMMAND {name} ...; see {program} --help"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"the nearest is '{near[0]}'" if near else f"there are {', '.join(known)}"
    return f"unknown command '{name}'; {hint}"


def _version() -> str:
    from importlib.metadata import version

    return version(PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
