"""What the bundled model makes, measured: colour, material and sync, beside real clips and shuffled sound.

    python benchmarks/bundled_model.py --model tiny --clips 54 --out docs/results/tiny.json

Only the media are looked at. Colour: hue of the pixels that differ from the clip's median frame. Material: spectral
centroid of the sound. Sync: onset of the sound against the first contact seen (the object's lowest point before it
first rises again), within one frame. Real clips of another seed give the ceiling, as they are and through the
tokenizers; sound paired with another clip's picture gives the floor.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from selfflow_mm.data.world import make_clip
from selfflow_mm.data.world.picture import PAINT as COLOURS
from selfflow_mm.data.world.prompts import MATERIALS, example_prompts
from selfflow_mm.generation.pipeline import Pipeline
from selfflow_tokenizers.media import Audio, Video

REAL_SEED = 10_001  # never a training seed
FRAME = 1 / 16  # seconds; "in sync" is within one frame


def object_mask(frames: np.ndarray) -> np.ndarray:
    """``(T, H, W)`` bool: strongly coloured or bright pixels that differ from the median frame."""
    background = np.median(frames, axis=0)
    return np.abs(frames - background).max(axis=-1) > 40


def colour_of(video: Video) -> str | None:
    """The colour word nearest to the median colour of the object's pixels."""
    frames = video.frames.numpy().astype(np.float32)
    mask = object_mask(frames)
    if mask.sum() < 100:
        return None
    mean = np.median(frames[mask], axis=0)
    direction = mean - mean.mean()
    best, nearest = -2.0, None
    if np.linalg.norm(direction) < 25:
        return "white"
    for word, rgb in COLOURS.items():
        reference = np.array(rgb, dtype=np.float32)
        reference = reference - reference.mean()
        if np.linalg.norm(reference) > 25:
            cosine = float(direction @ reference / np.linalg.norm(direction) / np.linalg.norm(reference))
            if cosine > best:
                best, nearest = cosine, word
    return nearest


def contact_of(video: Video) -> float | None:
    """Seconds of the first contact seen: where the object's height turns from falling to not falling."""
    mask = object_mask(video.frames.numpy().astype(np.float32))
    rows = np.arange(mask.shape[1])[None, :, None]
    count = mask.sum(axis=(1, 2))
    if (count >= 20).sum() < 8:
        return None
    y = np.where(count >= 20, (mask * rows).sum(axis=(1, 2)) / np.maximum(count, 1), np.nan)
    for t in range(1, len(y) - 1):
        window = y[max(0, t - 2) : t + 1]
        falling = np.nanmax(window) - np.nanmin(window) > 1.0 and y[t] >= np.nanmax(window) - 1e-6
        if falling and y[t] > 30 and not y[t + 1] > y[t] + 0.3:
            return t / video.fps
    return None


def onset_of(audio: Audio) -> float | None:
    """Seconds at which the sound first exceeds a tenth of its peak."""
    level = np.abs(audio.waveform.numpy()).max(axis=0)
    if level.max() < 0.01:
        return None
    return float(np.argmax(level > 0.1 * level.max())) / audio.rate


def centroid_of(audio: Audio) -> float:
    spectrum = np.abs(np.fft.rfft(audio.waveform.numpy().mean(axis=0))) ** 2
    hertz = np.fft.rfftfreq(audio.waveform.shape[1], 1 / audio.rate)
    return float((spectrum * hertz).sum() / max(spectrum.sum(), 1e-12))


def measure(clips: list[tuple[Video, Audio, str, str]], centroids: dict[str, float]) -> dict[str, object]:
    """Counts over clips of (video, audio, colour asked for, material asked for)."""
    contacts, onsets = [contact_of(v) for v, *_ in clips], [onset_of(a) for _, a, *_ in clips]

    def within(pairs: list[tuple[float | None, float | None]]) -> int:
        return sum(c is not None and o is not None and abs(c - o) <= FRAME for c, o in pairs)

    n = len(clips)
    shuffled = [within(list(zip(contacts, np.roll(onsets, k), strict=True))) for k in range(1, n)]
    heard = [min(centroids, key=lambda m, a=a: abs(np.log(centroid_of(a) / centroids[m]))) for _, a, *_ in clips]
    return {
        "clips": n,
        "colour right": sum(colour_of(v) == colour for v, _, colour, _ in clips),
        "material right by ear": sum(h == m for h, (*_, m) in zip(heard, clips, strict=True)),
        "contact seen": sum(c is not None for c in contacts),
        "sound heard": sum(o is not None for o in onsets),
        "in sync": within(list(zip(contacts, onsets, strict=True))),
        "in sync, sound of another clip": round(float(np.mean(shuffled)), 1),
    }


def words(prompt: str, vocabulary: tuple[str, ...]) -> str:
    return next(w for w in vocabulary if w in prompt.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=54)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--spans", type=json.loads, help='for example {"video": [0, 0.6], "audio": [0.4, 1]}')
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipeline = Pipeline.from_pretrained(args.model)
    sampling = pipeline.sampling
    if args.steps:
        sampling = replace(sampling, steps=args.steps)
    if args.guidance:
        sampling = replace(sampling, default_guidance=args.guidance, guidance={})
    if args.spans is not None:
        sampling = replace(sampling, spans={m: tuple(span) for m, span in args.spans.items()})

    real = []
    for i in range(args.clips):
        clip = make_clip(REAL_SEED, i)
        real.append((clip.video, clip.audio, clip.meta["objects"][0]["colour"], clip.meta["material"]))
    centroids = {m: float(np.median([centroid_of(a) for _, a, _, w in real if w == m])) for m in MATERIALS}

    coded = []
    for i in range(0, len(real), 8):
        group = real[i : i + 8]
        videos = pipeline.tokenizers["video"].decode(pipeline.tokenizers["video"].encode([g[0] for g in group]))
        tokenizer = pipeline.tokenizers["audio"]
        sounds = tokenizer.decode(tokenizer.encode([g[1] for g in group]), samples=group[0][1].waveform.shape[1])
        coded += [(v, a, *g[2:]) for v, a, g in zip(videos, sounds, group, strict=True)]

    made, started = [], time.perf_counter()
    prompts = example_prompts(args.clips, args.seed)
    for i in tqdm(range(0, args.clips, 6), desc="generating"):
        for result in pipeline(prompts[i : i + 6], seed=args.seed + i, sampling=sampling):
            p = result.prompt
            made.append((result.video, result.audio, words(p, tuple(COLOURS)), words(p, tuple(MATERIALS))))
    seconds = (time.perf_counter() - started) / args.clips
    table = {
        "generated": measure(made, centroids),
        "real": measure(real, centroids),
        "real, through the tokenizers": measure(coded, centroids),
    }
    result = {"table": table, "sampling": asdict(sampling), "seconds per clip": round(seconds, 2), "seed": args.seed}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
