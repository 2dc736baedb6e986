"""``selfflow-mm sample-imagenet``: many images of an ImageNet transformer, as the file that FID is computed from."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..generation.decoders import Decoder
    from ..generation.imagenet import ImageNetSampler, ImageNetSampling
    from ..generation.imagenet_folder import SampleFolder

HELP = "sample an ImageNet transformer: 50,000 images for FID, or a few to look at"
EXAMPLES = """examples:
  selfflow-mm sample-imagenet selfflow_imagenet256.pt --out fid --decoder sd-vae:sd-vae-ft-ema
  selfflow-mm sample-imagenet weights.safetensors --out look --num-images 16 --classes 207,360,387 --png \\
    --method ode --steps 50 --guidance 2.5 --guidance-interval 0 0.7
  selfflow-mm sample-imagenet weights.safetensors --out few --num-images 8 --batch 8 --steps 50 --decoder latents
  torchrun --nproc_per_node 8 -m selfflow_mm.cli.main sample-imagenet selfflow_imagenet256.pt --out fid

The same command goes on where it was stopped. Images depend on their number and the seed, not on --batch or the number
of processes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="weights: .pt, .pth or .safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the samples")
    parser.add_argument("--num-images", type=int, default=50_000, metavar="N", help="default: 50000")
    parser.add_argument("--batch", type=int, default=64, help="images at once in each process (default: 64)")
    parser.add_argument("--method", choices=["sde", "ode"], default="sde", help="default: sde, the paper's")
    parser.add_argument("--steps", type=int, default=250, help="default: 250")
    parser.add_argument("--solver", choices=["euler", "heun"], default="euler", help="of the ODE (default: euler)")
    parser.add_argument("--shift", type=float, default=1.0, help="timestep shift of the ODE (default: 1, none)")
    parser.add_argument("--guidance", type=float, default=1.0, help="classifier-free guidance (default: 1, none)")
    parser.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        default=[0.0, 1.0],
        metavar=("LOW", "HIGH"),
        help="levels t (1 is noise) at which guidance acts (default: 0 1)",
    )
    parser.add_argument(
        "--classes",
        default="random",
        help="random (default, the paper's), balanced, or a list such as 207,360-365, repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--png", action="store_true", help="also write every image as a PNG")
    parser.add_argument(
        "--decoder", default="sd-vae", help="sd-vae (default), sd-vae:FOLDER_OR_ID, module:function, or latents"
    )
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], help="of the matrices (default: bfloat16 on cuda, else float32)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network; pays from a few batches on")
    parser.add_argument("--num-heads", type=int, help="of weights whose width does not tell (1152 has 16)")


def run(args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..generation.imagenet_folder import SampleFolder, SampleSettings

    if args.batch < 1:
        raise UserError(f"--batch is at least 1, got {args.batch}")
    if args.num_images < 1:
        raise UserError(f"--num-images is at least 1, got {args.num_images}")
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _LAUNCHER)
    device = _device(args.device, local, world)
    # Everything is checked before the folder is made, which later runs have to agree with.
    sampler, decoder = _prepare(args, _sampling(args, device), device)
    settings = SampleSettings(
        checkpoint=_sha256(args.checkpoint),
        num_images=args.num_images,
        classes=args.classes,
        seed=args.seed,
        sampling=sampler.sampling,
        decoder=args.decoder,
        png=args.png,
    )
    block = min(args.batch, -(-args.num_images // world))
    folder = SampleFolder(args.out, settings, block, rank, world)
    missing = folder.missing()
    if folder.complete:  # looked at after the parts, which go when the result is there
        folder.clean()
        if rank == 0:
            print(f"{folder.result} is complete")
        return 0
    _work(args, folder, sampler, decoder, len(missing))
    return 0


_LAUNCHER = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _work(
    args: argparse.Namespace, folder: SampleFolder, sampler: ImageNetSampler, decoder: Decoder | None, missing: int
) -> None:
    import time

    from tqdm import tqdm

    from ..generation.imagenet_run import fill

    started, at_start = time.monotonic(), folder.done()
    if folder.rank == 0 and at_start:
        print(f"{args.out}: going on after {at_start} of {args.num_images} images")
    with tqdm(
        total=args.num_images,
        initial=at_start,
        unit="image",
        disable=folder.rank != 0,
        bar_format="{percentage:3.0f}% |{bar}| {n:.1f} of {total} images [{elapsed}<{remaining}, {rate_fmt}]",
    ) as bar:
        fill(folder, sampler, decoder, args.batch, lambda made: bar.update(max(0.0, made - bar.n)))
        if folder.rank != 0:
            return
        folder.wait(lambda made: bar.update(max(0.0, made - bar.n)))
    seconds, made = time.monotonic() - started, args.num_images - at_start
    print(folder.merge(_about(args, folder, sampler, made, seconds)))
    if made:
        print(
            f"{made} images in {seconds:.0f} s, {made / seconds:.3g} images/s on {folder.world} x {sampler.device.type}"
        )


def _prepare(
    args: argparse.Namespace, sampling: ImageNetSampling, device: torch.device
) -> tuple[ImageNetSampler, Decoder | None]:
    import torch

    from ..errors import UserError
    from ..generation.decoders import check_decoder, load_decoder
    from ..generation.imagenet import ImageNetSampler, parse_classes
    from ..models.imagenet_weights import load_imagenet

    net = load_imagenet(args.checkpoint, num_heads=args.num_heads).to(device)
    parse_classes(args.classes, net.config.num_classes)
    decoder = load_decoder(args.decoder, device)
    if decoder is None and args.png:
        raise UserError("--png needs pixels; leave it out or take another --decoder than latents")
    if decoder is not None:
        size = net.config.input_size
        check_decoder(decoder, args.decoder, torch.zeros(1, net.config.in_channels, size, size, device=device))
    return ImageNetSampler(net, sampling, args.seed, compile=args.compile), decoder


def _sampling(args: argparse.Namespace, device: torch.device) -> ImageNetSampling:
    from ..generation.imagenet import ImageNetSampling

    return ImageNetSampling(
        method=args.method,
        steps=args.steps,
        solver=args.solver,
        shift=args.shift,
        guidance=args.guidance,
        interval=tuple(args.guidance_interval),
        precision=args.precision or ("bfloat16" if device.type == "cuda" else "float32"),
    )


def _device(name: str | None, local: int, world: int) -> torch.device:
    import torch

    from ..errors import UserError

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and world > 1:
        name = f"cuda:{local}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} is not usable: {str(error).splitlines()[0]}") from error


def _sha256(path: Path) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _about(
    args: argparse.Namespace, folder: SampleFolder, sampler: ImageNetSampler, made: int, seconds: float
) -> dict[str, Any]:
    """What run.json says besides the settings."""
    import shlex
    import sys
    from importlib.metadata import PackageNotFoundError, version

    from ..training.run_folder import software_versions

    versions = software_versions()
    try:
        versions["diffusers"] = version("diffusers")
    except PackageNotFoundError:
        pass
    speed = made / seconds if made else None
    return {
        "checkpoint": args.checkpoint.name,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions,
        "device": sampler.device.type,
        "processes": folder.world,
        "batch": args.batch,
        "compiled": args.compile,
        "last_run": {"images": made, "seconds": round(seconds, 2), "images_per_second": speed},
    }
