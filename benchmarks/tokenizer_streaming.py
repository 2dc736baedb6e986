"""What long clips and large pictures cost: memory by length, equality with the whole, and the error at seams.

    python benchmarks/tokenizer_streaming.py --picture photo.png --out docs/results/tokenizer-streaming.md

Makes films of the bundled world of a minute, ten minutes and an hour, encodes and decodes each with the command line in
a process of its own, and notes time and peak memory. Then compares a clip and a sound in pieces with the same at once,
and tiles with the whole picture at several overlaps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import selfflow_tokenizers.audio_tokenizer as sounds
import selfflow_tokenizers.video_tokenizer as pictures
from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_mm.data.movie import MovieWriter
from selfflow_mm.data.reading import read_media
from selfflow_mm.data.world import make_clip
from selfflow_mm.weights.tokenizers import named_tokenizer
from selfflow_tokenizers import Audio, Tiled, Video, seam_error
from selfflow_tokenizers.streaming import decode_pieces, encode_pieces

_CLIPS = 30


def make_film(path: Path, seconds: float) -> None:
    """A film of so many seconds: clips of the world one after another, over and over."""
    clips = [make_clip(0, index) for index in range(_CLIPS)]
    first = clips[0].video
    with MovieWriter(path, *first.frames.shape[1:3], first.fps, (clips[0].audio.rate, 2), fast=True) as film:
        written, i = 0.0, 0
        while written < seconds:
            clip = clips[i % _CLIPS]
            film.add_frames(clip.video.frames)
            film.add_sound(clip.audio.waveform)
            written, i = written + clip.video.seconds, i + 1


def run(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a command of ours, in a process of its own."""
    code = "import sys; from selfflow_mm.cli.main import main; sys.exit(main())"
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {said.decode(errors='replace')[-500:]}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def lengths(minutes: list[float], folder: Path) -> Iterator[str]:
    yield "| film | file | encode | of it real time | peak memory | latents | decode | peak memory |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for length in minutes:
        film, latents, back = folder / "film.mp4", folder / "film.safetensors", folder / "back.mp4"
        make_film(film, 60 * length)
        taken, peak = run(
            ["encode", str(film), "--video", "tiny/video", "--audio", "tiny/audio", "--out", str(latents)]
        )
        again, peak_back = run(["decode", str(latents), "--out", str(back)])
        megabytes = [
            f"{size / 2**20:,.0f} MB" for size in (film.stat().st_size, peak, latents.stat().st_size, peak_back)
        ]
        speed = f"{60 * length / taken:.0f} times"
        yield (
            f"| {length:g} min | {megabytes[0]} | {taken:.1f} s | {speed} | {megabytes[1]} | {megabytes[2]} "
            f"| {again:.1f} s | {megabytes[3]} |"
        )
        print(f"{length:g} minutes done", flush=True)
        for path in (film, latents, back):
            path.unlink()


def equality() -> Iterator[str]:
    """Largest differences between pieces and the whole, with the bundled weights."""
    video, audio = named_tokenizer("tiny/video"), named_tokenizer("tiny/audio")
    assert isinstance(video, pictures.VideoTokenizer) and isinstance(audio, sounds.AudioTokenizer)
    clips = [make_clip(0, index) for index in range(64)]
    film = Video(torch.cat([c.video.frames for c in clips]), clips[0].video.fps)
    sound = Audio(torch.cat([c.audio.waveform for c in clips], dim=1), clips[0].audio.rate)
    pictures_usual, sounds_usual = pictures._PIXELS, sounds._SECONDS
    pictures._PIXELS, sounds._SECONDS = 2**40, 1e9  # the whole at once, for once
    whole, heard = video.encode([film]), audio.encode([sound])
    (frames,), (wave,) = video.decode(whole), audio.decode(heard)
    pictures._PIXELS, sounds._SECONDS = pictures_usual, sounds_usual
    parts = [Video(piece, film.fps) for piece in film.frames.split(50)]
    pieces = list(encode_pieces(video, parts))
    back = torch.cat([piece.frames for piece in decode_pieces(video, pieces)])  # type: ignore[union-attr]
    heard_parts = [Audio(piece, sound.rate) for piece in sound.waveform.split(16000, dim=1)]
    heard_pieces = list(encode_pieces(audio, heard_parts))
    again = torch.cat([piece.waveform for piece in decode_pieces(audio, heard_pieces)], dim=1)  # type: ignore[union-attr]
    differing = (back != frames.frames).float().mean()
    values = [
        float((torch.cat([p.values for p in parts], 1) - at_once.values).abs().max())
        for parts, at_once in ((pieces, whole), (heard_pieces, heard))
    ]
    off = float((again - wave.waveform).abs().max())
    yield "| | pieces | token values, largest difference | decoded |"
    yield "|---|---:|---:|---:|"
    yield f"| video, {film.seconds:.0f} s | {len(pieces)} | {values[0]:.1e} | {differing:.1e} of values off by 1 |"
    yield f"| sound, {sound.seconds:.0f} s | {len(heard_pieces)} | {values[1]:.1e} | {off:.1e} |"


def seams(path: Path, name: str, tile: int) -> Iterator[str]:
    clip = read_media(path)
    if clip.image is not None:
        frames = clip.image.pixels[None]
    elif clip.video is not None:
        frames = clip.video.frames[:5]
    else:
        raise SystemExit(f"{path} has no picture")
    video = named_tokenizer(name)
    assert isinstance(video, pictures.VideoTokenizer)
    codec = video.model
    cell = codec.space_compression
    frames = frames[
        : 1 + (len(frames) - 1) // 4 * 4, : frames.shape[1] // cell * cell, : frames.shape[2] // cell * cell
    ]
    pixels = frames[None].float() / 127.5 - 1
    yield f"{frames.shape[2]} x {frames.shape[1]} pixels, {len(frames)} frames; reach {codec.reach} pixels."
    yield ""
    yield "| tile | overlap | margin | latents rms | latents max | pixels rms | pixels max |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for overlap in (0, 16, 32, 64, 96, 2 * codec.reach):
        size = max(tile, 2 * overlap)
        found = seam_error(codec, pixels, tile=size, overlap=overlap)
        margin = Tiled(codec, tile=size, overlap=overlap).margin
        yield (
            f"| {size} | {overlap} | {margin} | {found['latents_rms']:.1e} | {found['latents_max']:.1e} "
            f"| {found['pixels_rms']:.2e} | {found['pixels_max']:.2e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60])
    parser.add_argument("--picture", type=Path, help="a picture or clip to be tiled; without one tiles are left out")
    parser.add_argument("--tokenizer", default="tiny/video", help="of the pictures that are tiled")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = machine(torch.device("cpu"))
    lines = [
        f"    python {about['command']}",
        "",
        f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, ",
    ]
    lines[-1] += f"{about['date']}; tokenizers tiny/video and tiny/audio."
    lines += [
        "",
        "**Memory by length.** `selfflow-mm encode` and `decode`, 64 x 64 pixels at 16 frames/s and stereo",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines += lengths(args.minutes, Path(folder))
    lines += ["", "**In pieces and at once.**", "", *equality()]
    if args.picture:
        lines += [
            "",
            f"**Seams**, {args.tokenizer}. Errors of latents are in their deviations, of pixels in 1/255.",
            "",
        ]
        lines += seams(args.picture, args.tokenizer, args.tile)
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
