"""The figures of the bundled world that docs/world.md gives.

    python benchmarks/world_figures.py --clips 2000

Times are processor time of one thread. The sound of a first contact is looked at where nothing else is heard for
0.15 s.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict

import numpy as np

from selfflow_mm.data.reading import read_media
from selfflow_mm.data.world import make_clip
from selfflow_mm.data.world.constants import FIRST_SOUND, RATE
from selfflow_mm.data.writing import encode_mp4

WINDOW = 0.15  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000, help="of seed 1")
    parser.add_argument("--sounds", type=int, default=150, help="clips of seed 3")
    parser.add_argument("--coded", type=int, default=40, help="clips of seed 2")
    args = parser.parse_args()

    stories, objects, contacts, words, firsts = Counter(), Counter(), Counter(), 0, []
    begun = time.process_time()
    for index in range(args.clips):
        clip = make_clip(1, index)
        meta, events = clip.meta, clip.events
        stories[meta["story"]] += 1
        objects[len(meta["objects"])] += 1
        contacts[min(4, sum(e["kind"] == "contact" for e in events))] += 1
        words += bool(meta["room"]["sign"]) or any(o["word"] for o in meta["objects"])
        firsts.append((meta["story"], min(e["time"] for e in events if e["kind"] != "hidden")))
    each = (time.process_time() - begun) / args.clips
    bins = np.histogram([t for _, t in firsts], bins=10, range=FIRST_SOUND)[0]
    for story, n in stories.most_common():
        low, high = np.percentile([t for s, t in firsts if s == story], (5, 95))
        print(f"{story}: {n / args.clips:.1%}, first sound {low:.2f} to {high:.2f} s (5 to 95 %)")
    print("objects", {k: f"{n / args.clips:.0%}" for k, n in sorted(objects.items())})
    print("contacts, 4 is more", {k: f"{n / args.clips:.0%}" for k, n in sorted(contacts.items())})
    print(f"a word in {words / args.clips:.0%}; first sounds in ten bins of {FIRST_SOUND}: {bins.tolist()}")
    print(f"make_clip {1 / each:.0f} clips/s")

    centroids, late = defaultdict(list), []
    for index in range(args.sounds):
        clip = make_clip(3, index)
        heard = [e for e in clip.events if e["kind"] != "hidden"]
        first = heard[0]
        alone = all(e["time"] > first["time"] + WINDOW for e in heard[1:])
        if first["kind"] != "contact" or len(first["materials"]) > 1 or not alone:
            continue
        sound = clip.audio.waveform.numpy()
        start = round(first["time"] * RATE)
        part = sound[:, start : start + round(WINDOW * RATE)].mean(0)
        power = np.abs(np.fft.rfft(part)) ** 2
        centroids[first["materials"][0]].append((power * np.fft.rfftfreq(len(part), 1 / RATE)).sum() / power.sum())
        loud = np.flatnonzero(np.abs(sound).max(0) > 0.02)
        if len(loud):
            late.append(loud[0] / RATE - first["time"])
    for material, found in sorted(centroids.items()):
        low, high = np.percentile(found, (5, 95))
        print(f"{material}: {len(found)} first contacts, spectral centroid {low:.0f} to {high:.0f} Hz (5 to 95 %)")
    print(f"first loud sample {1e3 * min(late):.2f} to {1e3 * max(late):.2f} ms after its contact")

    sizes, quality = [], []
    clips = [make_clip(2, index) for index in range(args.coded)]
    begun = time.process_time()
    coded = [encode_mp4(clip.video, clip.audio, crf=12, fast=True) for clip in clips]
    encoding = (time.process_time() - begun) / args.coded
    for clip, data in zip(clips, coded, strict=True):
        sizes.append(len(data))
        again = read_media(data).video
        assert again is not None
        error = (again.frames.numpy().astype(float) - clip.video.frames.numpy()) ** 2
        quality.append(10 * np.log10(255**2 / error.mean()))
    print(f"with encoding {1 / (each + encoding):.0f} clips/s; {np.mean(sizes) / 1e3:.0f} kB an MP4, picture PSNR "
          f"{np.median(quality):.1f} dB (median of {args.coded})")  # fmt: skip


if __name__ == "__main__":
    main()
