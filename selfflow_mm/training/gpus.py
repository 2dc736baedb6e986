"""GPUs that a run can be planned for, by their vendors' data sheets."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Gpu:
    """One device, in decimal units as the data sheets have them.

    Attributes:
        name: in full.
        memory: bytes; what drivers and libraries keep for themselves is not taken off.
        flops: bfloat16 matrix products per second with float32 sums, **dense** (vendors often print twice that, "with
            sparsity"), at boost clock.
        bandwidth: bytes per second to and from its memory.
        links: bytes per second to the other GPUs of its machine, both directions added up.
        source: the vendor's document.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    links: float
    source: str


GPUS: dict[str, Gpu] = {
    "a100": Gpu("NVIDIA A100 80GB SXM", 80e9, 312e12, 2.039e12, 600e9, "NVIDIA A100 Tensor Core GPU data sheet (2021)"),
    "h100": Gpu("NVIDIA H100 SXM", 80e9, 989.4e12, 3.35e12, 900e9, "NVIDIA H100 Tensor Core GPU data sheet (2023)"),
    "h200": Gpu("NVIDIA H200 SXM", 141e9, 989.4e12, 4.8e12, 900e9, "NVIDIA H200 Tensor Core GPU data sheet (2024)"),
    "b200": Gpu(
        "NVIDIA B200 (HGX)", 180e9, 2250e12, 8e12, 1800e9, "NVIDIA DGX B200 data sheet (2024), an eighth of it"
    ),
    "mi300x": Gpu("AMD Instinct MI300X", 192e9, 1307.4e12, 5.3e12, 896e9, "AMD Instinct MI300X data sheet (2023)"),
    "l40s": Gpu("NVIDIA L40S", 48e9, 362.05e12, 864e9, 64e9, "NVIDIA L40S data sheet (2023); PCIe 4.0, no NVLink"),
    "rtx4090": Gpu(
        "NVIDIA GeForce RTX 4090", 24e9, 165.2e12, 1008e9, 64e9, "NVIDIA Ada GPU architecture whitepaper (2022)"
    ),
}


#: What drivers call the devices of the table. Others of the same name in part (PCIe and NVL cards, laptops, slices of a
#: GPU) have other rates and are not known.
_REPORTED = {
    "a100": r"NVIDIA A100-(SXM4|PCIE|SXM)-(40|80)GB|NVIDIA A100 80GB PCIe",  # the same rate in all of them
    "h100": r"NVIDIA H100 80GB HBM3",
    "h200": r"NVIDIA H200",
    "b200": r"NVIDIA B200",
    "mi300x": r"AMD Instinct MI300X( OAM)?",
    "l40s": r"NVIDIA L40S",
    "rtx4090": r"NVIDIA GeForce RTX 4090",
}


def reported_gpu(name: str) -> Gpu | None:
    """The GPU that ``torch.cuda.get_device_name`` gives this name, or None where its rate is not known."""
    return next((GPUS[key] for key, pattern in _REPORTED.items() if re.fullmatch(pattern, name)), None)


def gpu(name: str) -> Gpu:
    """The GPU of a name.

    Raises:
        UserError: it is not in the table; the nearest is named.
    """
    key = name.lower()
    if key not in GPUS:
        near = difflib.get_close_matches(key, GPUS, n=1, cutoff=0.5)
        hint = f"the nearest is '{near[0]}'" if near else f"there are {', '.join(GPUS)}"
        raise UserError(f"no GPU '{name}' is in the table; {hint}")
    return GPUS[key]
