"""Post-hoc EMA of whole models: averages of any length, chosen after training.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (arXiv 2312.02696), section 3
and appendix C. A profile is p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) on (0, t]: the weight that the average at
time t gives to the weights the model had at time tau. Its relative standard deviation ("std", sigma_rel in the paper)
says how long it is as a share of the training so far. While training, two averages are updated at every step and
stored now and then; afterwards any other profile is a combination of the stored ones. Time is counted in optimizer
steps, the first being 1.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from selfflow_tokenizers.tensor_file import save_tensors

from ..errors import UserError
from .sharding import local, whole

#: The std of an even mean over the whole run (gamma = 0); longer profiles would favour the start of training.
LONGEST = 1 / math.sqrt(12)
#: A profile is given out if the best fit misses at most this share of its norm.
TOLERANCE = 0.5
FOLDER = "posthoc_ema"
_SNAPSHOT = re.compile(r"^step-(\d{6,})-std-(\d\.\d+)\.safetensors$")
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class PostHocConfig:
    """Averages kept beside the teacher's, from which any profile is made after training.

    Attributes:
        stds: relative standard deviations of the averages kept (sec. 3.2: 0.05 and 0.10). Each costs a copy of the
            model in memory and in every checkpoint.
        every: steps between two snapshots of all averages; 0 keeps none at all. The last step has one, too.
        weights: how snapshots are stored. In float16 they take half the room and round at 5e-4 of each value.
    """

    stds: tuple[float, ...] = (0.05, 0.10)
    every: int = 0
    weights: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.every < 0:
            raise UserError(f"every is a number of steps (0: off), got {self.every}")
        if not self.stds or len({_name(std) for std in self.stds}) < len(self.stds):
            raise UserError(f"stds needs at least one value and no value twice, got {list(self.stds)}")
        for std in self.stds:
            gamma_of(std)


def std_of(gamma: float) -> float:
    """Relative standard deviation of a profile (sec. 3.1): ``(g + 1)^(1/2) (g + 2)^-1 (g + 3)^(-1/2)``."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(std: float) -> float:
    """The exponent of the profile with this relative standard deviation, 0 < std < 1 / sqrt(12).

    The largest root of ``g^3 + 7 g^2 + (16 - std^-2) g + 12 - std^-2``, which is :func:`std_of` solved for gamma.
    """
    if not 0.001 <= std < LONGEST:
        raise UserError(f"an average's std lies between 0.001 and {LONGEST:.3f} (an even mean of the run), got {std}")
    inverse = std**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def decay_at(step: int, gamma: float) -> float:
    """``(1 - 1 / t)^(gamma + 1)``: the decay of step t, counted from 1 (sec. 3.1). The first step forgets the start."""
    return (1 - 1 / step) ** (gamma + 1)


def inner_product(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The integral of the product of two profiles, each given as (gamma, t) (app. C.2).

    ``(ga + 1)(gb + 1) m^(ga + gb + 1) / ((ga + gb + 1) ta^(ga + 1) tb^(gb + 1))`` with m = min(ta, tb), written with
    ratios of at most 1 so that nothing overflows.
    """
    (gamma_a, t_a), (gamma_b, t_b) = a, b
    first = min(t_a, t_b)
    ratios = (first / t_a) ** (gamma_a + 1) * (first / t_b) ** (gamma_b + 1)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * ratios / first


def fit(target: tuple[float, float], have: Sequence[tuple[float, float]]) -> tuple[np.ndarray, float]:
    """The combination of profiles nearest to ``target`` (least squares, sec. 3.2), all given as (std, t).

    Ours beside the paper: the coefficients sum to 1, as every profile integrates to 1. With many snapshots they do
    anyway; with few, the nearest combination alone would make all weights a percent too large or too small.

    Returns:
        the coefficients, in the order of ``have``, and the share of the target's norm that the combination misses.
    """
    profiles = [(gamma_of(std), t) for std, t in have]
    goal = (gamma_of(target[0]), target[1])
    # Profiles of unit norm: the Gram matrix is then of cosines, and its rank does not hang on the profiles' lengths.
    norms = np.array([math.sqrt(inner_product(p, p)) for p in profiles])
    gram = np.array([[inner_product(p, q) for q in profiles] for p in profiles]) / np.outer(norms, norms)
    right = np.array([inner_product(p, goal) for p in profiles]) / norms
    mass = norms.min() / norms  # the sum's row, scaled like the others
    system = np.block([[gram, mass[:, None]], [mass[None, :], np.zeros((1, 1))]])
    # Snapshots close in time are almost alike; below this share of the largest, a direction is rounding noise.
    solution = np.linalg.lstsq(system, np.append(right, norms.min()), rcond=1e-13)[0][:-1]
    whole = inner_product(goal, goal)
    missed = whole - 2 * solution @ right + solution @ gram @ solution
    return solution / norms, math.sqrt(max(0.0, missed) / whole)


class PowerAverages:
    """Running power-function averages of a model, one per std, updated at every step.

    Attributes:
        averages: std -> name of the weight -> its average, like the model's ``state_dict``.
    """

    def __init__(self, model: nn.Module, stds: Sequence[float]) -> None:
        self.gammas = {std: gamma_of(std) for std in stds}
        self.averages = {std: {k: v.detach().clone() for k, v in model.state_dict().items()} for std in stds}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step ``step``, counted from 1."""
        weights = local(v.detach() for v in model.state_dict().values())
        for std, gamma in self.gammas.items():
            torch._foreach_lerp_(local(self.averages[std].values()), weights, 1 - decay_at(step, gamma))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps: one group of tensors per std."""
        return {_group(std): tensors for std, tensors in self.averages.items()}

    def refuse_missing(self, groups: Collection[str], where: Path) -> None:
        """UserError where the checkpoint ``where`` lacks one of :meth:`state`, which begins with a run's first step."""
        for std in self.averages:
            if _group(std) not in groups:
                raise UserError(
                    f"{where} holds no average of std {std:g}, which has to be kept from a run's first step; go on "
                    "with run.posthoc_ema as the run was started, or with run.posthoc_ema.every=0"
                )

    def save_snapshots(self, folder: Path | None, step: int, weights: str) -> None:
        """Write ``folder/step-000123-std-0.100.safetensors`` for every average, each renamed into place when whole.

        Where a model is shared among processes all of them must call this; those without a folder only give their part.
        """
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        for std, tensors in self.averages.items():
            stored = {}
            for name, tensor in tensors.items():
                full = whole(tensor.detach())
                if folder:
                    stored[name] = full.to("cpu", _DTYPES[weights]).contiguous()
            if not folder:
                continue
            path = folder / f"step-{step:06d}-std-{_name(std)}.safetensors"
            beside = folder / f".{path.name}.tmp"
            save_tensors(stored, beside, metadata={"format": "pt"})  # one entry: their order would vary
            os.replace(beside, path)


def drop_snapshots_after(folder: Path, step: int) -> None:
    """A run that goes on from ``step`` makes later snapshots again; with other settings they would be others."""
    for path in folder.glob("*.safetensors"):
        match = _SNAPSHOT.match(path.name)
        if match and int(match[1]) > step:
            path.unlink()


@dataclass(frozen=True)
class Snapshot:
    """A stored average: its std, the step it was taken at and its file."""

    std: float
    step: int
    path: Path


def snapshots(run: Path) -> list[Snapshot]:
    """A run's snapshots by step and std.

    Raises:
        UserError: there are none.
    """
    found = []
    for path in sorted((run / FOLDER).glob("*.safetensors")):
        match = _SNAPSHOT.match(path.name)
        if match:
            found.append(Snapshot(float(match[2]), int(match[1]), path))
    if not found:
        raise UserError(
            f"{run} holds no snapshots of running averages; train with run.posthoc_ema.every=N (they cannot be made "
            "afterwards)"
        )
    return found


@dataclass(frozen=True)
class Recipe:
    """How a profile is made: snapshots with their coefficients, and the share of its norm that they miss."""

    std: float
    step: int
    parts: tuple[tuple[Snapshot, float], ...]
    missed: float

    @property
    def name(self) -> str:
        """Of a folder for it."""
        return f"model-std-{_name(self.std)}-step-{self.step:06d}"


def recipe(have: Sequence[Snapshot], std: float, step: int = 0) -> Recipe:
    """The combination of snapshots that comes nearest to the average of ``std`` at ``step`` (0: the last snapshot).

    Raises:
        UserError: a step without snapshots around it, or a profile that these snapshots cannot make.
    """
    last = max(s.step for s in have)
    step = step or last
    if not 1 <= step <= last:
        raise UserError(f"step {step} is outside of what the snapshots cover, 1 to {last}")
    profiles = [(s.std, float(s.step)) for s in have]
    coefficients, missed = fit((std, step), profiles)
    if missed > TOLERANCE:
        raise UserError(
            f"an average of std {std:g} at step {step} cannot be made from these {len(have)} snapshots (the nearest "
            f"misses {missed:.0%} of its norm); {_reach(profiles, step)}"
        )
    # What rounding leaves of a zero would only cost reading the file.
    least = 1e-9 * float(np.abs(coefficients).max())
    parts = tuple((s, float(c)) for s, c in zip(have, coefficients, strict=True) if abs(c) > least)
    return Recipe(std, step, parts, missed)


def _reach(profiles: Sequence[tuple[float, float]], step: int) -> str:
    grid = [i / 1000 for i in range(5, int(1000 * LONGEST) + 1)]
    possible = [std for std in grid if fit((std, step), profiles)[1] <= TOLERANCE]
    if not possible:
        return "no std can be made at this step; take one nearer to a snapshot"
    return f"at this step stds from {possible[0]:g} to {possible[-1]:g} can be made"


def combine(how: Recipe) -> Iterator[tuple[str, Tensor]]:
    """The weights of a profile, float32, one tensor after another; the sum is made in float64.

    Memory: two tensors at a time, whatever the number of snapshots.
    """
    with ExitStack() as stack:
        files = []
        for snapshot, coefficient in how.parts:
            try:
                files.append((stack.enter_context(safe_open(snapshot.path, framework="pt")), coefficient))
            except (SafetensorError, OSError) as error:
                raise UserError(f"{snapshot.path} is not a readable snapshot: {error}") from error
        names = files[0][0].keys()
        for file, _ in files[1:]:
            if file.keys() != names:
                raise UserError(f"the snapshots in {how.parts[0][0].path.parent} are of different models")
        for name in names:
            total = None
            for file, coefficient in files:
                part = file.get_tensor(name).double().mul_(coefficient)
                total = part if total is None else total.add_(part)
            assert total is not None
            yield name, total.float()


def write_weights(how: Recipe, path: Path, half: bool = False) -> None:
    """Write a profile's weights as safetensors without holding the model in memory; renamed into place when whole.

    The file is written by hand, because safetensors' own writer wants all tensors at once: eight bytes with the
    header's length, the header in JSON (type, shape and place of every tensor), then the numbers in that order.
    """
    width, kind = (2, "F16") if half else (4, "F32")
    about = {"format": "pt", "posthoc_ema_std": f"{how.std:g}", "steps": str(how.step)}
    header: dict[str, Any] = {"__metadata__": about}
    with safe_open(how.parts[0][0].path, framework="pt") as file:
        place = 0
        for name in file.keys():
            shape = list(file.get_slice(name).get_shape())
            size = width * math.prod(shape)
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + size]}
            place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in tqdm(combine(how), total=len(header) - 1, desc=f"std {how.std:g}", unit="tensor"):
            out.write(tensor.numpy().astype("<f2" if half else "<f4").tobytes())
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, path)


def export(run: Path, how: Recipe, folder: Path, half: bool = False) -> None:
    """Write the pipeline folder of a profile: the run's own, with these weights.

    Raises:
        UserError: the run has no model folder yet, or ``folder`` holds something else.
    """
    source = run / "model"
    if not (source / "config.json").is_file():
        raise UserError(f"{run} has no model/config.json, which a run writes when it starts; is it a transformer's?")
    if (folder / "run.json").exists() or folder.resolve() == source.resolve():
        raise UserError(f"{folder} belongs to a run and its weights would be lost; give another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "tokenizers", folder / "tokenizers", dirs_exist_ok=True)
    write_weights(how, folder / "model.safetensors", half)
    beside = folder / ".config.json.tmp"
    shutil.copy(source / "config.json", beside)
    os.replace(beside, folder / "config.json")  # last: a folder without it is no model


def _name(std: float) -> str:
    """At least three decimals, and all that the number has."""
    text = f"{std:.3f}"
    return text if float(text) == std else repr(std)


def _group(std: float) -> str:
    return f"posthoc-{_name(std)}"
