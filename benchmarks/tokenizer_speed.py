"""Our autoencoders against diffusers' classes of equal size: time and memory of encoding and decoding.

    python benchmarks/tokenizer_speed.py --threads 2 --out docs/results/tokenizer-speed.md

Each preset meets the class of its kind with the same compression and latent channels, made narrower or wider until its
encoder has the nearest number of parameters: video AutoencoderKLWan (8x as Wan 2.1's, 16x as Wan 2.2's), images
AutoencoderKL, sound AutoencoderOobleck. Random weights, float32, no autograd, the same media for both, in turns in one
process after a warm-up: ours, theirs, ours, theirs, ...
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from selfflow_mm.bench.memory import measure
from selfflow_mm.bench.report import machine
from selfflow_mm.bench.table import write_text
from selfflow_mm.bench.timing import SHORTEST_ROUND, Timing, in_turns
from selfflow_tokenizers import AudioAutoencoder, VideoAutoencoder, ensure_torchaudio
from selfflow_tokenizers.presets import AUDIO_PRESETS, VIDEO_PRESETS

ensure_torchaudio()
import diffusers  # noqa: E402

#: Names of the parts that encode: ours of video, ours of sound, diffusers'.
ENCODER = ("encoder.", "quant_conv.", "analysis.", "down.", "to_latents.")
#: Strides of an Oobleck of 5 stages, all even (its transposed convolutions lose samples at odd ones).
OOBLECK_STRIDES = {640: [2, 2, 4, 4, 10], 1920: [2, 4, 4, 6, 10]}
OOBLECK_MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Side:
    """One of two autoencoders: its name, and calls of a medium in its own layout."""

    name: str
    module: nn.Module
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    medium: Tensor


@dataclass(frozen=True)
class Result:
    preset: str
    medium: str
    ours: Side
    theirs: Side
    timings: dict[str, Timing]
    memory: dict[str, int]


def parameters(module: nn.Module, *, encoder: bool) -> int:
    """Parameters of the half that encodes, or of the other one."""
    return sum(p.numel() for name, p in module.named_parameters() if name.startswith(ENCODER) is encoder)


def nearest(build: Callable[[int], nn.Module], target: int, *, encoder: bool = True) -> int:
    """The width of which that half has the nearest number of parameters; it grows with the width."""

    def size(width: int) -> int:
        with torch.device("meta"):
            return parameters(build(width), encoder=encoder)

    low, high = 1, 2
    while size(high) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    return min((low, high), key=lambda width: abs(size(width) - target))


def wan(config: Any, ours: nn.Module) -> nn.Module:
    """AutoencoderKLWan: Wan 2.1's for 8x, Wan 2.2's (patches of 2, residual) for 16x; both halves of ours' sizes."""
    channels = config.latent_channels
    about: dict[str, Any] = {"z_dim": channels, "latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
    if config.space_compression == 16:
        about |= {"patch_size": 2, "is_residual": True, "in_channels": 12, "out_channels": 12}

    def build(width: int, decoder: int) -> nn.Module:
        return diffusers.AutoencoderKLWan(base_dim=width, decoder_base_dim=decoder, **about)

    width = nearest(lambda w: build(w, 1), parameters(ours, encoder=True))
    return build(width, nearest(lambda w: build(1, w), parameters(ours, encoder=False), encoder=False))


def image_autoencoder(config: Any, ours: nn.Module) -> nn.Module:
    """AutoencoderKL, widened from stage to stage as the SD-VAE is: 1, 2, 4, 4 (4)."""
    wide = [1, 2, 4, 4] + ([4] if config.space_compression == 16 else [])

    def build(fours: int) -> nn.Module:
        return diffusers.AutoencoderKL(
            block_out_channels=tuple(4 * fours * w for w in wide),
            down_block_types=("DownEncoderBlock2D",) * len(wide),
            up_block_types=("UpDecoderBlock2D",) * len(wide),
            layers_per_block=2,
            norm_num_groups=4,
            latent_channels=config.latent_channels,
        )

    return build(nearest(build, parameters(ours, encoder=True)))


def oobleck(config: Any, target: int) -> nn.Module:
    """AutoencoderOobleck; its latents are half its first width, so only the stages' multiples can vary."""
    first, strides = 2 * config.latent_channels, OOBLECK_STRIDES[config.samples_per_latent]
    choices = itertools.combinations_with_replacement(OOBLECK_MULTIPLES, len(strides))
    multiples = min(choices, key=lambda m: abs(oobleck_encoder(config.channels, first, strides, m) - target))
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=first,
        downsampling_ratios=strides,
        channel_multiples=list(multiples),
        decoder_channels=first,
        decoder_input_channels=config.latent_channels,
        audio_channels=config.channels,
        sampling_rate=config.sample_rate,
    )


def oobleck_encoder(channels: int, first: int, strides: list[int], multiples: tuple[int, ...]) -> int:
    """Parameters of an Oobleck encoder, counted (building one takes seconds)."""

    def convolution(a: int, b: int, taps: int) -> int:
        return a * b * taps + 2 * b  # bias, and the lengths of weight normalisation

    widths = [first, *(first * m for m in multiples)]
    total = convolution(channels, first, 7) + 2 * widths[-1] + convolution(widths[-1], first, 3)
    for a, b, stride in zip(widths, widths[1:], strides, strict=False):
        units = 3 * (4 * a + convolution(a, a, 7) + convolution(a, a, 1))  # a snake has two numbers per channel
        total += units + 2 * a + convolution(a, b, 2 * stride)
    return total


def picture_sides(preset: str, frames: int, size: int) -> tuple[Side, Side]:
    config = VIDEO_PRESETS[preset]
    ours = VideoAutoencoder(config)
    still = config.time_compression == 1
    theirs: Any = image_autoencoder(config, ours) if still else wan(config, ours)
    medium = torch.rand(1, 1 if still else frames, size, size, 3) * 2 - 1
    other = medium.permute(0, 4, 1, 2, 3).contiguous()
    return (
        Side("VideoAutoencoder", ours.eval(), ours.encode, ours.decode, medium),
        Side(
            type(theirs).__name__,
            theirs.eval(),
            lambda x: theirs.encode(x).latent_dist.mode(),
            lambda z: theirs.decode(z).sample,
            other[:, :, 0] if still else other,
        ),
    )


def sound_sides(preset: str, seconds: float) -> tuple[Side, Side]:
    config = AUDIO_PRESETS[preset]
    ours = AudioAutoencoder(config)
    theirs: Any = oobleck(config, parameters(ours, encoder=True))
    latents = max(1, round(seconds * config.sample_rate / config.samples_per_latent))
    medium = torch.rand(1, config.channels, latents * config.samples_per_latent) * 2 - 1
    return (
        Side("AudioAutoencoder", ours.eval(), ours.encode, ours.decode, medium),
        Side(
            type(theirs).__name__,
            theirs.eval(),
            lambda x: theirs.encode(x).latent_dist.mode(),
            lambda z: theirs.decode(z).sample,
            medium,
        ),
    )


@torch.inference_mode()
def compare(preset: str, args: argparse.Namespace) -> Result:
    """Time both sides of one preset.

    Raises:
        RuntimeError: their latents differ in number or size, so the comparison means nothing.
    """
    torch.manual_seed(0)
    if preset in AUDIO_PRESETS:
        ours, theirs = sound_sides(preset, args.seconds)
        medium = f"{args.seconds:g} s"
    else:
        ours, theirs = picture_sides(preset, args.frames, args.size)
        medium = f"{ours.medium.shape[1]} x {args.size} x {args.size}"
    latents = {side.name: side.encode(side.medium) for side in (ours, theirs)}
    if len({z.numel() for z in latents.values()}) > 1:
        raise RuntimeError(
            f"{preset}: latents of {[tuple(z.shape) for z in latents.values()]} are no equal compression"
        )
    actions: dict[str, Callable[[], object]] = {}
    for side in (ours, theirs):
        actions[f"encode {side.name}"] = lambda s=side: s.encode(s.medium)  # type: ignore[misc]
        actions[f"decode {side.name}"] = lambda s=side: s.decode(latents[s.name])  # type: ignore[misc]
    actions = dict(sorted(actions.items(), key=lambda pair: pair[0].split()[0], reverse=True))  # encode E E, decode D D
    device = torch.device("cpu")
    timings = in_turns(actions, device, args.rounds, shortest=0.0 if args.quick else SHORTEST_ROUND)
    memory = {name: peak.above for name, action in actions.items() if (peak := measure(action, device))}
    return Result(preset, medium, ours, theirs, timings, memory)


def row(result: Result, what: str) -> str:
    ours, theirs = result.ours, result.theirs
    mine, other = result.timings[f"{what} {ours.name}"], result.timings[f"{what} {theirs.name}"]
    encoder = what == "encode"
    sizes = [f"{parameters(side.module, encoder=encoder) / 1e6:.2f}" for side in (ours, theirs)]
    memory = [
        "-" if m is None else f"{m / 1e6:.0f}"
        for m in (result.memory.get(f"{what} {side.name}") for side in (ours, theirs))
    ]
    times = [f"{1e3 * t.median:.4g} ± {t.spread:.0%}" for t in (mine, other)]
    cells = [result.preset, theirs.name, result.medium, *sizes, *times, f"{mine.times_faster_than(other):.2f}", *memory]
    return f"| {' | '.join(cells)} |"


def table(results: list[Result], args: argparse.Namespace) -> str:
    about = machine(torch.device("cpu"))
    lines = [
        f"    {about['command']}",
        "",
        f"{about['cpu']}, {about['threads']} threads, torch {about['torch']}, diffusers {diffusers.__version__}, "
        f"Python {about['python']}, {about['date']}; float32, batch 1, {args.rounds} rounds in turns after a warm-up.",
    ]
    for what, half in (("encode", "encoder"), ("decode", "decoder")):
        lines += [
            "",
            f"**{what}**",
            "",
            f"| preset | against | medium | {half}, M | theirs, M | ours, ms | theirs, ms | theirs / ours | ours, MB | "
            "theirs, MB |",
            "|---|---|---|" + "---:|" * 7,
            *(row(result, what) for result in results),
        ]
    lines += [
        "",
        "ms: median of the rounds ± half of slowest minus fastest over it; theirs / ours: median of the rounds'",
        "ratios, above 1 where ours is faster. M: millions of parameters; widths are chosen by the encoder's, and the",
        "decoder's follow where the class leaves no choice (all but Wan's). MB: peak resident memory of one call above",
        "what was in use before it.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everything = [*VIDEO_PRESETS, *AUDIO_PRESETS]
    parser.add_argument("--presets", nargs="+", choices=everything, metavar="PRESET",
                        default=[name for name in everything if name.endswith(("-small", "-base"))],
                        help="all small and base ones by default")  # fmt: skip
    parser.add_argument("--size", type=int, default=256, help="pixels along rows and columns (default 256)")
    parser.add_argument("--frames", type=int, default=17, help="of a clip, 1 + 4k (default 17)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of sound (default 4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--quick", action="store_true", help="small presets, small media, 2 rounds: does it run?")
    parser.add_argument("--out", type=Path, help="a Markdown file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.quick:
        args.presets = [name for name in args.presets if name.endswith("-small")]
        args.size, args.frames, args.seconds, args.rounds = 64, 5, 0.4, 2
    results = [compare(preset, args) for preset in tqdm(args.presets, unit="preset")]
    text = table(results, args)
    print(text)
    if args.out:
        write_text(args.out, text)


if __name__ == "__main__":
    main()
