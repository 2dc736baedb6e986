"""The ways to tell one and the same network its noise levels; all give the same numbers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..models.joint import Output
from ..tokens import NoiseLevels, TokenStream

#: Names of the forms, as tables show them.
GROUPED, EXPANDED, REFERENCE = "per level (ours)", "per token", "authors' code"


class Expanded:
    """A model that is told a level for every token, and so computes a modulation for every token."""

    def __init__(self, model: Any) -> None:
        self.model, self.config, self.projector = model, model.config, model.projector

    def __call__(self, streams: Any, levels: Mapping[str, NoiseLevels], text: Any, *args: Any, **kwargs: Any) -> Output:
        each = {name: NoiseLevels.each_token(lv.per_token()) for name, lv in levels.items()}
        return self.model(streams, each, text, *args, **kwargs)


class Reference:
    """The authors' network (black-forest-labs/Self-Flow, ``SelfFlowPerTokenDiT``) behind our call; velocities only."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(
        self, streams: Mapping[str, TokenStream], levels: Mapping[str, NoiseLevels], labels: torch.Tensor
    ) -> Output:
        velocity = {m: self.network(s.values, levels[m].per_token(), labels) for m, s in streams.items()}
        return Output(velocity, {})

    @classmethod
    def load(cls, checkout: Path, arguments: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Reference:
        """The class out of a checkout, with ``weights`` in it (the released key layout, which is ours too).

        Raises:
            UserError: the checkout has no such class, its imports (timm) are missing, or the weights do not fit.
        """
        source = checkout / "src" / "model.py"
        if not source.is_file():
            raise UserError(f"{checkout} is no checkout of black-forest-labs/Self-Flow: it has no src/model.py")
        spec = importlib.util.spec_from_file_location("selfflow_reference_model", source)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            network = module.SelfFlowPerTokenDiT(**arguments)
        except ImportError as error:
            raise UserError(f"the authors' code needs a package that is not here: {error}; pip install timm") from None
        except AttributeError as error:
            raise UserError(f"{source} is not the code this was written for: {error}") from None
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{source}: our weights do not fit it: {str(error).splitlines()[-1].strip()}") from None
        device = next(iter(weights.values())).device
        return cls(network.to(device).eval().requires_grad_(False))
