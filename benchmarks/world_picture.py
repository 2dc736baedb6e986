"""The picture of docs/world.md: one clip of each story, as a film strip with its sound and its caption.

python benchmarks/world_picture.py --out docs/pictures/world.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from selfflow_mm.data.world import WorldClip, make_clip
from selfflow_mm.data.world.stories import STORIES
from selfflow_mm.evaluation.pictures import film_strip, spectrogram

FRAMES, HEIGHT, GAP, TEXT = 9, 64, 6, 15
PAPER, INK = (24, 24, 27), (236, 236, 238)


def first_of_each(seed: int) -> dict[str, WorldClip]:
    found: dict[str, WorldClip] = {}
    index = 0
    while len(found) < len(STORIES):
        clip = make_clip(seed, index)
        found.setdefault(clip.meta["story"], clip)
        index += 1
    return {story: found[story] for story in STORIES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    clips = first_of_each(args.seed)
    strips = [film_strip(clip.video, FRAMES, HEIGHT) for clip in clips.values()]
    width, row = strips[0].width + GAP + 3 * HEIGHT, HEIGHT + TEXT + 2 * GAP
    sheet = Image.new("RGB", (width + 2 * GAP, row * len(clips) + GAP), PAPER)
    write = ImageDraw.Draw(sheet)
    for place, (clip, strip) in enumerate(zip(clips.values(), strips, strict=True)):
        y = GAP + place * row
        sheet.paste(strip, (GAP, y), strip)
        sound = spectrogram(clip.audio, width=3 * HEIGHT, height=HEIGHT + TEXT)
        sheet.paste(sound, (GAP + strip.width + GAP, y), sound)
        write.text((GAP, y + HEIGHT + 2), clip.captions[0].text, INK, ImageFont.load_default(12))
    sheet.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
