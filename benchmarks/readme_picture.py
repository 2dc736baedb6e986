"""The picture at the top of the README: film strips and spectrograms of clips the bundled model makes, not chosen.

python benchmarks/readme_picture.py --out docs/pictures/tiny.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from selfflow_mm.evaluation.page import film_strip, spectrogram
from selfflow_mm.generation.pipeline import Pipeline

PROMPTS = (
    "a red metal ball falls and bounces",
    "a blue wooden cube falls beside a sign that says EXIT",
    "a yellow rubber ball rolls down a ramp and falls to the floor",
    "a green metal ball rolls across the floor and hits a white glass triangle",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seed", type=int, default=0, help="of the first clip; the others count up")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/tiny.png"))
    args = parser.parse_args()
    pipeline = Pipeline.from_pretrained(args.model)
    rows = []
    for i, prompt in enumerate(PROMPTS):
        [result] = pipeline([prompt], seed=args.seed + i)
        assert result.video is not None and result.audio is not None
        strip, sound = film_strip(result.video, n=11, height=96), spectrogram(result.audio, width=360, height=120)
        rows.append((f'"{prompt}", seed {args.seed + i}', strip, sound))
    gap, title = 12, 20
    width = max(strip.width + gap + sound.width for _, strip, sound in rows) + 2 * gap
    heights = [title + max(strip.height, sound.height) + gap for _, strip, sound in rows]
    sheet = Image.new("RGB", (width, sum(heights) + gap), "white")
    draw, y = ImageDraw.Draw(sheet), gap
    for (text, strip, sound), height in zip(rows, heights, strict=True):
        draw.text((gap, y), text, fill="black", font_size=14)
        sheet.paste(strip, (gap, y + title), strip)
        sheet.paste(sound, (gap + strip.width + gap, y + title), sound)
        y += height
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
