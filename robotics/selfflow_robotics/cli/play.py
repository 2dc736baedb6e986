"""``selfflow-mm robot-data play``: a video, or a contact sheet, of robot episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..look.film import FilmOptions
    from ..look.instruments import ActionScale
    from ..robot_episode import RobotEpisode
    from ..sources import RobotFiles

HELP = "make a video or a contact sheet of robot episodes, with their actions drawn in"
EXAMPLES = """examples:
  selfflow-mm robot-data play ~/data/bridge_dataset --out bridge.mp4                        the first episode
  selfflow-mm robot-data play ~/data/fractal20220817_data --episodes 0 17 40:45 --out few.mp4
  selfflow-mm robot-data play tabletop --episodes all --speed 2 --out all.mp4
  selfflow-mm robot-data play ~/data/bridge_dataset --episode 3 --sheet episode.png         a contact sheet
  selfflow-mm robot-data play ~/data/aloha --camera top left_wrist --out cameras.mp4

Episodes are counted from 0; 40:45 are 40 to 44. Among several, one that cannot be read is left out, and the exit code
is 1. A sheet of several episodes is a file each: episode-000003.png.
"""

_SCALE_EPISODES = 50  # the actions of so many decide what a full arrow means


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="folder of an RLDS or LeRobot data set")
    parser.add_argument("--out", type=Path, metavar="FILE.mp4", help="the video")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="a contact sheet, instead or besides")
    parser.add_argument(
        "--episodes",
        "--episode",
        nargs="+",
        default=["0"],
        metavar="I",
        help="numbers, ranges A:B, or all (default: 0)",
    )
    parser.add_argument(
        "--camera", nargs="+", metavar="NAME", help="cameras to show (default: all in a video, the first on a sheet)"
    )
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="2 plays twice as fast (default: 1)")
    parser.add_argument("--frames", type=int, default=12, metavar="N", help="frames on a sheet (default: 12)")
    parser.add_argument(
        "--height", type=int, metavar="PIXELS", help="of the pictures (default: 192 on a sheet, 256 to 480 in a video)"
    )
    parser.add_argument("--layout", metavar="FILE|NAME", help="what the columns mean (default: found by the data)")
    parser.add_argument("--split", metavar="NAME", help="such as train or val (default: train, or the only one)")


def run(args: argparse.Namespace) -> int:
    from selfflow_mm.errors import UserError

    from ..look.film import FilmOptions
    from ..sources import open_episodes

    if args.out is None and args.sheet is None:
        raise UserError("say what to write: --out FILE.mp4 for a video, --sheet FILE.png for a contact sheet")
    for path, ending, option in ((args.out, ".mp4", "--out"), (args.sheet, ".png", "--sheet")):
        if path is not None and path.suffix.lower() != ending:
            raise UserError(f"{option} writes {ending}, but the name is '{path.name}'; end it in {ending}")
    options = FilmOptions(tuple(args.camera or ()), args.speed, args.height or 0)
    robot = open_episodes(args.path, args.layout, args.split)
    numbers = episode_numbers(args.episodes, len(robot), f"the split '{robot.files.split}' of {robot.files.folder}")
    reader = _Reader(robot, numbers)
    scale = _scale(robot)
    if args.sheet is not None:
        _sheets(args, reader, scale)
    if args.out is not None:
        _film(args.out, reader, options, scale)
    return 1 if reader.left_out else 0


def episode_numbers(words: Sequence[str], count: int, where: str) -> list[int]:
    """``["0", "3", "5:8", "all"]`` as numbers below ``count``, in the order given.

    Raises:
        UserError: no number, or one that is not there.
    """
    from selfflow_mm.errors import UserError

    if count == 0:
        raise UserError(f"{where} has no episodes; there is nothing to play")
    numbers: list[int] = []
    for word in words:
        first, colon, last = word.partition(":")
        if word == "all":
            numbers += range(count)
            continue
        if not all(part.isdecimal() or (colon and not part) for part in (first, *([last] if colon else []))):
            raise UserError(f"--episodes takes numbers from 0, ranges such as 0:5, or all; got '{word}'")
        start = int(first or 0)
        stop = (int(last) if last else count) if colon else start + 1
        if not start < stop <= count:
            raise UserError(f"there is no episode {word}: {where} has {count:,}, numbers 0 to {count - 1}")
        numbers += range(start, stop)
    return numbers


class _Reader:
    """Reads the episodes wanted; of several, bad ones are reported and left out."""

    def __init__(self, robot: RobotFiles, numbers: list[int]) -> None:
        self._robot, self.numbers = robot, numbers
        self.left_out: set[int] = set()

    def __iter__(self) -> Iterator[tuple[int, RobotEpisode]]:
        from selfflow_mm.errors import UserError

        for number in self.numbers:
            if number in self.left_out:
                continue
            try:
                episode = self._robot.read(*self._robot.locate(number))
            except UserError as error:
                self.leave_out(number, error)
            else:
                yield number, episode

    def leave_out(self, number: int, error: Exception) -> None:
        """Note a bad episode.

        Raises:
            UserError: it is the only one that was wanted.
        """
        if len(self.numbers) == 1:
            raise error
        if number not in self.left_out:
            print(f"left out: episode {number}: {error}", file=sys.stderr)
        self.left_out.add(number)


def _scale(robot: RobotFiles) -> ActionScale | None:
    """One scale for all arrows, so that episodes compare."""
    from ..look.report import scale_of
    from ..look.survey import survey

    return scale_of(robot, survey(robot, limit=_SCALE_EPISODES))


def _sheets(args: argparse.Namespace, reader: _Reader, scale: ActionScale | None) -> None:
    from selfflow_mm.errors import UserError

    from ..look.cameras import choose_cameras
    from ..look.contact_sheet import contact_sheet
    from ..look.report import write_sheet

    written = []
    for number, episode in reader:
        choose_cameras(episode, args.camera)  # a name that is not there is no damage: it stops everything
        try:
            sheet = contact_sheet(episode, args.camera, frames=args.frames, height=args.height or 192, scale=scale)
        except UserError as error:
            reader.leave_out(number, error)
            continue
        several = len(reader.numbers) > 1
        path = args.sheet.with_stem(f"{args.sheet.stem}-{number:06d}") if several else args.sheet
        write_sheet(path, sheet)
        written.append(path)
    if not written:
        raise UserError("none of the episodes could be read; no sheet was written")
    print(
        f"{written[0]}" if len(written) == 1 else f"{written[0]} to {written[-1].name}: {len(written)} contact sheets"
    )


def _film(path: Path, reader: _Reader, options: FilmOptions, scale: ActionScale | None) -> None:
    from ..look.film import play
    from ..look.progress import Bar
    from ..look.units import bytes_text, duration_text

    lengths: list[int] = []
    drawn = 0

    def episodes() -> Iterator[RobotEpisode]:
        for episode in _whole(reader, options.cameras):
            lengths.append(len(episode))
            yield episode

    def count(steps: int) -> None:
        nonlocal drawn
        drawn += steps
        # How long the others are is not known before they are read: as long as these, on average.
        bar(drawn, round(sum(lengths) / len(lengths) * (len(reader.numbers) - len(reader.left_out))))

    with Bar("drawing", "frames") as bar:
        film = play(path, episodes(), options, scale, count)
    size = f"{film.size[0]} x {film.size[1]}"
    print(
        f"{path}: {film.episodes} episode{'s' if film.episodes > 1 else ''}, {film.frames:,} frames of {size} at "
        f"{film.fps:g} per second, {duration_text(film.frames / film.fps)}{', with sound' if film.sound else ''}, "
        f"{bytes_text(path.stat().st_size)}"
    )


def _whole(reader: _Reader, wanted: Sequence[str]) -> Iterator[RobotEpisode]:
    """The episodes whose pictures decode, all of them: a film that is begun cannot take frames back."""
    from selfflow_mm.errors import UserError

    from ..look.cameras import choose_cameras, decode_all

    for number, episode in reader:
        cameras = choose_cameras(episode, wanted)
        if len(reader.numbers) > 1:
            try:
                decode_all({name: episode.images[name] for name in cameras})
            except UserError as error:
                reader.leave_out(number, error)
                continue
        yield episode
