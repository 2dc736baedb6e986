"""Model, teacher and optimizer shared among processes by FSDP2, laid around finished models as ``recompute.py`` is.

Every block is a unit of its own: its weights are gathered before it runs and given up after it. Small layers around the
blocks stay together in the root unit. Gradients are averaged as they are scattered, in float32; the optimizer and every
average work on a process's own part. Weights travel in the type of the matrix products, to which autocast would round
them anyway, so the numbers are those of one process up to the order of summation.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .ranks import Ranks
from .recompute import BLOCK_LISTS

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def mesh_of(processes: int, ranks: Ranks, device: torch.device) -> DeviceMesh | None:
    """The processes by (copy, part of it), or by part alone where there is one copy; None where nothing is shared.

    Args:
        processes: that keep one copy among them; 0: all.

    Raises:
        UserError: the processes cannot be grouped so.
    """
    size = group_size(processes, ranks.world)
    if size == 1:
        return None
    from torch.distributed.device_mesh import init_device_mesh  # takes long to import

    if size == ranks.world:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (ranks.world // size, size), mesh_dim_names=("copy", "shard"))


def group_size(processes: int, world: int) -> int:
    """How many of ``world`` processes keep one copy among them; ``processes`` as ``parallel.shard`` says it.

    Raises:
        UserError: the processes cannot be grouped so.
    """
    size = processes or world
    if world % size:
        raise UserError(f"parallel.shard is {size}, which does not divide the {world} processes of this run")
    return size


def shard(model: nn.Module, mesh: DeviceMesh, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Share the weights of ``model`` among the processes of ``mesh``, in place.

    Args:
        dtype: of matrix products. Weights are gathered in it and kept in float32; under autocast, layers that want
            float32 get it, as their inputs are not cast here.

    Names stay, and so do outputs. A model may still lie on the CPU: each unit goes to the mesh's device when it is
    shared, so the whole never has to fit there.
    """
    from torch.distributed.fsdp import (  # takes long to import
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    # Nothing of ours changes an output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for name in BLOCK_LISTS:
        for block in getattr(model, name, ()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    # It is called on its own, after the model (Objective), so it cannot rely on the root's weights.
    if isinstance(projector := getattr(model, "projector", None), nn.Module):
        fully_shard(projector, mesh=mesh, mp_policy=policy)
    # The root keeps its weights gathered until a backward pass gives them up; a teacher has none.
    trained = any(p.requires_grad for p in model.parameters())
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=None if trained else True)
    for name in ("condition", "conditioned"):  # ways into the joint transformer beside its forward pass
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)
    return model


def put_on(
    model: nn.Module, device: torch.device, mesh: DeviceMesh | None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Bring a model to its device: whole, or shared among the processes of ``mesh`` (see :func:`shard`)."""
    return model.to(device) if mesh is None else shard(model, mesh, dtype)


def whole_on_cpu(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights in full, on the CPU; where it is shared, all processes must ask."""
    return {name: whole(tensor.detach()).cpu() for name, tensor in model.state_dict().items()}


def sharded(model: nn.Module) -> bool:
    """Is it shared among processes?"""
    return any(hasattr(p, "to_local") for p in model.parameters())


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's parts of tensors that may be shared; element-wise work on them needs no communication."""
    return [_if_shared(t, "to_local") for t in tensors]


def whole(tensor: Tensor) -> Tensor:
    """A tensor in full, gathered where it is shared: all processes must ask."""
    return _if_shared(tensor, "full_tensor")


def _if_shared(tensor: Any, method: str) -> Tensor:
    # A DTensor, told by its methods: importing the class takes a second, which one process alone need not wait.
    return getattr(tensor, method)() if hasattr(tensor, method) else tensor
