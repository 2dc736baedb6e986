"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen model that learns through small matrices beside its large ones.

A layer's weight W ``(out, in)`` stays as it is, and ``h = x W^T + (alpha / rank) (x A^T) B^T`` (eq. 3) with A
``(rank, in)`` random and B ``(out, rank)`` zero: the model starts as it was, and the two learn.

The layer is a subclass of ``nn.Linear`` that keeps W and its bias under their names and adds ``lora_a``, ``lora_b``.
``torch.nn.utils.parametrize`` would make W + BA anew in every call, keep it for the backward pass, and pay there the
``(out, in)`` weight gradient that LoRA is to save; and it renames W. The library ``peft`` computes the same, but it
imports transformers and accelerate, which fails on some machines, and moves W to other names; for this much arithmetic
that costs more than it gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError

__all__ = [
    "KINDS",
    "LoRAConfig",
    "LoRALinear",
    "add_lora",
    "load_lora",
    "lora_state",
    "merge_lora",
    "merge_tensors",
    "trainable",
]

#: Kinds of layers of the joint transformer that ``targets`` may name. In single blocks one matrix makes queries, keys,
#: values and the feed-forward's hidden channels, and they share its A.
KINDS = {
    "attention": r"double_blocks\.\d+\.(text|media)\.(qkv|proj)",
    "mlp": r"double_blocks\.\d+\.(text|media)\.mlp\.(up|down)",
    "single": r"single_blocks\.\d+\.(up|down)",
    "modulation": r"(text|media|single|out)_modulation\.linear",
}
_RECORD = "lora"  # the attribute of the model that holds the config
_OWN = ("lora_a", "lora_b")


@dataclass(frozen=True)
class LoRAConfig:
    """What is trained of a model that is otherwise frozen: norms, embeddings and biases are frozen, too.

    Attributes:
        rank: of the matrices beside a weight; 0 is no LoRA, everything is trained.
        alpha: what they add is scaled by ``alpha / rank``.
        targets: linear layers that get them: names of ``KINDS``, or regular expressions for whole names of layers, such
            as ``level\\.(up|down)``.
        full: what is trained as it is, above all new layers: names, or regular expressions for them, of layers,
            parameters or groups of them, such as ``media_in\\.action``, ``projector``, ``single_blocks.*qkv_bias``. It
            goes before ``targets``.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = ("attention", "mlp", "single")
    full: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"LoRA's rank is at least 1, or 0 for none, got {self.rank}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise UserError(f"LoRA's alpha is above 0, got {self.alpha}")
        for pattern in (*self.targets, *self.full):
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"LoRA: '{pattern}' is no regular expression ({error})") from error


class LoRALinear(nn.Linear):
    """``x W^T + b + scale (x A^T) B^T``; takes over the parameters of ``linear``, which are not copied.

    Args:
        linear: W ``(out, in)`` and its bias.
        rank: of A and B.
        scale: alpha / rank.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = scale
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        # U(-1, 1) / sqrt(in) as in the authors' code; drawn on the CPU, so that the device does not matter.
        a = torch.empty(rank, self.in_features).uniform_(-1, 1) / math.sqrt(self.in_features)
        self.lora_a = nn.Parameter(a.to(self.weight))
        self.lora_b = nn.Parameter(self.weight.new_zeros(self.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        low = F.linear(input, self.lora_a) * self.scale
        return F.linear(input, self.weight, self.bias) + F.linear(low, self.lora_b)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={len(self.lora_a)}, scale={self.scale:g}"

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer of the same weight, into which A and B have gone; one rounding to the weight's dtype."""
        self.weight.copy_(_merged(self.weight, self.lora_a, self.lora_b, self.scale))
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = self.weight
        linear.register_parameter("bias", self.bias)
        return linear.train(self.training)


def add_lora(model: nn.Module, config: LoRAConfig) -> list[str]:
    """Freeze ``model`` in place but for ``config.full``, and lay A and B beside the targets' weights.

    Weights must have been loaded before (a plain state dict has no ``lora_a``); copying for the EMA, sharding and
    compiling come after. Torch's generator, as the caller has seeded it, draws A.

    Returns:
        names of the layers that have them; none, and nothing is done, if the rank is 0.

    Raises:
        UserError: an expression that fits nothing, a rank above a layer's channels, or a model that has LoRA already.
    """
    if config.rank == 0:
        return []
    if _config(model) is not None:
        raise UserError("the model has LoRA already; merge that one first")
    full = _full(model, config)
    layers = {name: layer for name, layer in _targets(model, config).items() if f"{name}.weight" not in full}
    if not layers:
        raise UserError(f"LoRA's targets ({', '.join(config.targets)}) leave no layer of the model to adapt")
    for name, layer in layers.items():
        smaller = min(layer.in_features, layer.out_features)
        if config.rank > smaller:
            raise UserError(f"LoRA's rank {config.rank} is more than the {smaller} channels of '{name}'")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in full)
    for name, layer in layers.items():
        _put(model, name, LoRALinear(layer, config.rank, config.alpha / config.rank).train(layer.training))
    model.__dict__[_RECORD] = config  # no module and no tensor; deep copies have it too
    return list(layers)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that take gradients: an optimizer's."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def merge_lora(model: nn.Module) -> None:
    """Make ``model`` a plain one again, in place, that computes the same: W becomes W + (alpha / rank) B A.

    Parameters stay frozen or not as they are. Without LoRA nothing is done.
    """
    for name, layer in list(_layers(model)):
        _put(model, name, layer.merged())
    model.__dict__.pop(_RECORD, None)


@torch.no_grad()
def merge_tensors(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """What :func:`merge_lora` does, for the tensors of a state dict; ``scale`` is alpha / rank."""
    merged = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in _OWN}
    for name in tensors:
        layer, _, own = name.rpartition(".")
        if own == "lora_a":
            weight = merged[f"{layer}.weight"]
            added = _merged(weight, tensors[name], tensors[f"{layer}.lora_b"], scale)
            merged[f"{layer}.weight"] = added.to(weight.dtype)
    return merged


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """A, B and what is trained in full, by their names in the state dict; little enough for a file of its own.

    Works on an EMA copy too, which takes no gradients. The tensors are the model's own.

    Raises:
        UserError: the model has no LoRA.
    """
    config = _require(model)
    full = _full(model, config)
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if name in full or name.rpartition(".")[2] in _OWN
    }


@torch.no_grad()
def load_lora(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what :func:`lora_state` gave, into a model with the same base weights and the same config.

    Raises:
        UserError: the model has no LoRA, or names or shapes differ; then nothing was changed.
    """
    own = lora_state(model)
    for name in [*own, *state]:
        if name not in own or name not in state:
            what = "is missing" if name in own else "belongs to no layer here"
            raise UserError(f"the LoRA weights do not fit the model: '{name}' {what}; use the config of their training")
        if own[name].shape != state[name].shape:
            sizes = f"{tuple(state[name].shape)}, the model's {tuple(own[name].shape)}"
            raise UserError(
                f"the LoRA weights do not fit the model: '{name}' is {sizes}; use the rank of their training"
            )
    for name, tensor in own.items():
        tensor.copy_(state[name])


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    # In float64 on the CPU: TF32 matrices would lose digits, and some devices have no float64.
    return weight.cpu().double() + b.cpu().double() @ a.cpu().double() * scale


def _config(model: nn.Module) -> LoRAConfig | None:
    return getattr(model, _RECORD, None)


def _require(model: nn.Module) -> LoRAConfig:
    config = _config(model)
    if config is None:
        raise UserError("the model has no LoRA; add it first, with the config that it was trained with")
    return config


def _layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))


def _targets(model: nn.Module, config: LoRAConfig) -> dict[str, nn.Linear]:
    """The layers in the model's order. A kind that this model has none of is left out in silence."""
    # Subclasses may use their weight without being called (attention's output layer in PyTorch does).
    linear = {name: module for name, module in model.named_modules() if name and type(module) is nn.Linear}
    found: set[str] = set()
    for target in config.targets:
        fits = {name for name in linear if re.fullmatch(KINDS.get(target, target), name)}
        if not fits and target not in KINDS:
            raise UserError(
                f"LoRA's target '{target}' fits no linear layer; give one of {', '.join(KINDS)}, or a regular "
                f"expression for names such as '{next(iter(linear), 'media_in.video')}'"
            )
        found |= fits
    return {name: layer for name, layer in linear.items() if name in found}


def _full(model: nn.Module, config: LoRAConfig) -> set[str]:
    """Names of the parameters that are trained as they are."""
    found: set[str] = set()
    names = [name for name, _ in model.named_parameters() if name.rpartition(".")[2] not in _OWN]
    for pattern in config.full:
        fits = {name for name in names if any(re.fullmatch(pattern, prefix) for prefix in _prefixes(name))}
        if not fits:
            raise UserError(f"LoRA's full '{pattern}' fits no layer and no parameter of the model")
        found |= fits
    return found


def _prefixes(name: str) -> Iterator[str]:
    """``a.b.c`` -> ``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)
