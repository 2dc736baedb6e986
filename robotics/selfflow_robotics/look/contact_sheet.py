"""A contact sheet: frames of one episode at equal distances, each with its time and the action that was taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image as Pillow
from PIL import ImageDraw

from selfflow_mm.errors import UserError

from ..robot_episode import ACTION_NAMES, RobotEpisode
from .cameras import as_rgb, choose_cameras, resized
from .instruments import ROTATION, TRANSLATION, ActionScale, draw_instruments
from .lettering import INK, PAPER, RED, SOFT, font, line_height, wrap
from .units import duration_text, shown

__all__ = ["contact_sheet", "picked_steps"]

_SHEET_WIDTH = 1320  # aimed at where the number of columns is free
_MARGIN, _GAP = 20, 14


def contact_sheet(
    episode: RobotEpisode,
    camera: str | Sequence[str] | None = None,
    frames: int = 12,
    columns: int | None = None,
    height: int = 192,
    scale: ActionScale | None = None,
) -> Pillow.Image:
    """Frames from the first to the last step at equal distances, with the actions drawn under them.

    Args:
        episode: with at least one step.
        camera: its name; several are shown under each other; None for the first one. Without any camera there are
            the actions alone.
        frames: how many steps to show, fewer where the episode has fewer.
        columns: frames in a row; None for as many as give a sheet about 1300 pixels wide (wider, where pictures are
            higher than 192).
        height: of a picture on the sheet, at least 96 pixels; smaller ones are enlarged, and the caption says so.
        scale: what a full arrow means; None for the episode's own 99th percentile.

    Returns:
        An RGB picture.

    Raises:
        UserError: an unknown camera, an episode without steps, sizes out of range, a picture that does not decode.
    """
    if not len(episode):
        raise UserError(f"episode {episode.id} has no steps; there is nothing to show")
    if frames < 1 or height < 96 or (columns is not None and columns < 1):
        raise UserError(
            f"a contact sheet takes at least 1 frame, 1 column and a height of 96 pixels, "
            f"got {frames} frames, {columns or 'free'} columns, height {height}"
        )
    if camera is None:
        cameras = choose_cameras(episode, None)[:1]
    else:
        cameras = choose_cameras(episode, (camera,) if isinstance(camera, str) else camera)
    scale = ActionScale.fitting(episode, scale)
    steps = picked_steps(len(episode), frames)
    size = min(2.5, max(1.0, height / 192))
    rows, notes = _pictures(episode, cameras, steps, height)
    tiles = [_tile(episode, step, [row[i] for row in rows], scale, size) for i, step in enumerate(steps)]
    return _assembled(episode, tiles, notes, scale, size, columns)


def picked_steps(length: int, frames: int) -> list[int]:
    """``frames`` steps (fewer of a shorter episode) at equal distances, the first and the last among them."""
    count = min(frames, length)
    return [round(i * (length - 1) / max(count - 1, 1)) for i in range(count)]


def _pictures(
    episode: RobotEpisode, cameras: Sequence[str], steps: list[int], height: int
) -> tuple[list[list[Pillow.Image]], list[str]]:
    """Per camera the pictures of ``steps`` on the sheet's scale, and what was done to them in words."""
    rows, notes = [], []
    for name in cameras:
        frames = as_rgb(episode.images[name].read(steps))
        _, high, wide, _ = frames.shape
        width = max(1, round(wide * height / high))
        rows.append([resized(frame, width, height) for frame in frames])
        change = f" enlarged {height / high:.3g} times (bicubic)" if height > high else ""
        change = f" shrunk to {width} x {height}" if height < high else change
        notes.append(f"{name}: {wide} x {high}{change}")
    return rows, notes


def _tile(
    episode: RobotEpisode, step: int, pictures: list[Pillow.Image], scale: ActionScale, size: float
) -> Pillow.Image:
    gauges = Pillow.fromarray(draw_instruments(episode.actions[step], episode.action_names, scale, size))
    width = max([gauges.width, round(170 * size), *(p.width for p in pictures)])
    letters = round(13 * size)
    head, gap = line_height(letters) + round(4 * size), round(4 * size)
    height = head + sum(p.height + gap for p in pictures) + gauges.height
    tile = Pillow.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(tile)
    middle = (head - gap) / 2 + 1
    left = (width - pictures[0].width) // 2 if pictures else 0
    draw.text((left, middle), f"step {step}", fill=INK, font=font(letters), anchor="lm")
    seconds = f"{step / episode.control_rate:.2f} s"
    draw.text(
        (left + font(letters).getlength(f"step {step}") + 9 * size, middle),
        seconds,
        fill=SOFT,
        font=font(letters),
        anchor="lm",
    )
    if episode.terminate[step]:
        wide = font(letters).getlength("done") + 12 * size
        draw.rounded_rectangle((width - wide, 1, width - 1, head - gap), radius=4 * size, fill=RED)
        draw.text((width - wide / 2, middle), "done", fill=(255, 255, 255), font=font(letters), anchor="mm")
    top = head
    for picture in pictures:
        tile.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height + gap
    tile.paste(gauges, ((width - gauges.width) // 2, top))
    return tile


def _assembled(
    episode: RobotEpisode,
    tiles: list[Pillow.Image],
    notes: list[str],
    scale: ActionScale,
    size: float,
    columns: int | None,
) -> Pillow.Image:
    margin, gap = round(_MARGIN * size), round(_GAP * size)
    wide, high = tiles[0].size
    if columns is None:
        most = max(1, int((_SHEET_WIDTH * size - 2 * margin + gap) // (wide + gap)))
        columns = math.ceil(len(tiles) / math.ceil(len(tiles) / most))  # rows of equal length where possible
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    width = max(columns * (wide + gap) - gap, round(360 * size)) + 2 * margin
    blocks = []
    for size_of_text, colour, text in (
        (round(21 * size), INK, episode.instruction or "(no instruction)"),
        (round(14 * size), SOFT, _facts(episode)),
    ):
        blocks += [(size_of_text, colour, line) for line in wrap(text, size_of_text, width - 2 * margin)]
    small = round(13 * size)
    legend = wrap(_legend(episode, scale, notes), small, width - 2 * margin)
    head = margin + sum(line_height(letters) for letters, _, _ in blocks) + gap
    body = rows * (high + gap)
    sheet = Pillow.new("RGB", (width, head + body + len(legend) * line_height(small) + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = margin
    for letters, colour, line in blocks:
        draw.text((margin, top), line, fill=colour, font=font(letters))
        top += line_height(letters)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        sheet.paste(tile, (margin + column * (wide + gap), head + row * (high + gap)))
    for i, line in enumerate(legend):
        draw.text((margin, head + body + i * line_height(small)), line, fill=SOFT, font=font(small))
    return sheet


def _facts(episode: RobotEpisode) -> str:
    seconds = duration_text(len(episode) / episode.control_rate)
    steps = f"{len(episode)} step{'s' if len(episode) > 1 else ''}"
    return f"{episode.id}  ·  {episode.robot}  ·  {episode.control_rate:g} Hz  ·  {steps}, {seconds}"


def _legend(episode: RobotEpisode, scale: ActionScale, notes: list[str]) -> str:
    """What the instruments mean, in one paragraph."""
    names = episode.action_names
    parts = []
    if {"x", "y"} <= set(names):
        rim = shown(scale.limits[names.index("x")], "x", names)
        parts.append(f"Arrow: translation seen from above, x ahead is up, y left is left; the rim is {rim}")
    if names == ACTION_NAMES:
        turn = shown(scale.limits[names.index("roll")], "roll", names)
        parts.append(f"bars up for plus: z on the arrow's scale, r p y (roll, pitch, yaw) full at {turn}")
    else:
        rest = [(i, n) for i, n in enumerate(names) if n not in ("x", "y", "gripper")]
        known = TRANSLATION + ROTATION
        full = [f"{n[0] if n in known else f'{i}: {n}'} {scale.limits[i]:.3g}" for i, n in rest]
        if full:
            parts.append("bars up for plus, full at " + ", ".join(full))
    parts.append(f"full is the 99th percentile of {scale.source}, longer is cut and red")
    if "gripper" in names:
        parts.append("gripper: 1 open, 0 closed")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}.  {'; '.join(notes)}{'.' if notes else ''}"
