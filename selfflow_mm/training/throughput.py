"""How fast a run is: samples, tokens and the model's arithmetic per second, also as a share of the device's peak."""

from __future__ import annotations

import time
from collections import Counter

import torch
from torch import Tensor

from ..flow.objectives import Batch, Objective
from ..flow.schedules import diffusion_forcing, dual_timesteps, full_masking
from ..models.flops import joint_forward_flops, training_step_flops
from ..models.joint import JointConfig
from ..tokens import TokenStream
from .gpus import reported_gpu

#: Tokens of one sample: of each modality of its batch, in the batch's order, and of its text.
Lengths = tuple[tuple[int, ...], int]


class Throughput:
    """Counts work and the time it took, from one log line to the next.

    FLOPs are the model's by formula (``models.flops``), every sample's own tokens without padding: a training step of
    the student, the teacher's pass, no recomputation, no tokenizer, no encoder, no optimizer. Divided by the device's
    matrix rate they are its MFU.

    Args:
        config: of the model.
        objective: what a step does with it.
        lora: its blocks are frozen (:mod:`..models.lora`).
        recompute: count the blocks' second forward pass too: what the device does, for plans; a log leaves it out.
        peak: FLOP/s that the device could do; 0 where that is not known, and there is no MFU then.
    """

    def __init__(
        self,
        config: JointConfig,
        objective: Objective,
        *,
        lora: bool = False,
        recompute: bool = False,
        peak: float = 0.0,
    ) -> None:
        self.config, self.objective, self.lora, self.recompute, self.peak = config, objective, lora, recompute, peak
        self._flops: dict[tuple, int] = {}
        self._forget()
        self._started = time.perf_counter()

    def start(self) -> None:
        """A step begins; what came before it (samples drawn, checkpoints written) does not count."""
        self._started = time.perf_counter()

    def stop(self, batch: Batch, step: int) -> None:
        """The step is done, on the device too. ``batch`` is its copy on the CPU, where counting stalls nothing."""
        self._seconds += time.perf_counter() - self._started
        for lengths, count in sample_lengths(batch).items():
            self._samples += count
            self._tokens += count * (sum(lengths[0]) + lengths[1])
            self._work += count * self._sample_flops(batch, lengths, step)

    def rates(self) -> dict[str, float]:
        """``samples_per_second``, ``tokens_per_second`` (media and text), ``tflops`` and, where the peak is known,
        ``mfu``, as they stand.
        """
        seconds = max(self._seconds, 1e-9)
        rates = {
            "samples_per_second": self._samples / seconds,
            "tokens_per_second": self._tokens / seconds,
            "tflops": self._work / seconds / 1e12,
        }
        if self.peak:
            rates["mfu"] = self._work / seconds / self.peak
        return rates

    def take(self) -> dict[str, float]:
        """The rates since the last call, and a new start."""
        rates = self.rates()
        self._forget()
        return rates

    def flops(self, batch: Batch, step: int) -> int:
        """Of one sample as long as a row of this batch, padding included, in training step ``step``."""
        text = batch.text.values.shape[1] if isinstance(batch.text, TokenStream) else 0
        return self._sample_flops(batch, (tuple(s.values.shape[1] for s in batch.streams.values()), text), step)

    def _forget(self) -> None:
        self._samples, self._tokens, self._work, self._seconds = 0, 0, 0, 0.0

    def _sample_flops(self, batch: Batch, lengths: Lengths, step: int) -> int:
        given, aligns = len(batch.conditions.given) > 0, self.objective.aligns(step)
        key = (*batch.streams, *lengths, given, aligns)
        if key not in self._flops:
            media = dict(zip(batch.streams, lengths[0], strict=True))
            # A packed sample need not have every modality of its batch; what is absent has no levels either.
            self._flops[key] = self._count({m: n for m, n in media.items() if n}, lengths[1], given, aligns)
        return self._flops[key]

    def _count(self, tokens: dict[str, int], text: int, given: bool, aligns: bool) -> int:
        method, config = self.objective.method, self.config
        levels = 2 if method.schedule in (dual_timesteps, full_masking) else 1
        student = joint_forward_flops(
            config,
            tokens,
            text,
            levels + given,
            per_token=method.schedule is diffusion_forcing,
            projector=aligns and method.projects,
        )
        teacher = None
        if aligns and method.target == "teacher":
            k = self.objective.config.layers(config.depth)[1]
            teacher = joint_forward_flops(config, tokens, text, 1 + given, blocks=k)
        return training_step_flops(student, teacher, lora=self.lora, recompute=self.recompute).total


def sample_lengths(batch: Batch) -> Counter[Lengths]:
    """How many samples of a batch, packed or not, have which numbers of real tokens."""
    ids = batch.ids if batch.ids.ndim == 2 else batch.ids.unsqueeze(1)
    columns = [_lengths(stream, ids) for stream in batch.streams.values()]
    text = _lengths(batch.text, ids) if isinstance(batch.text, TokenStream) else 0
    same = [column for column in (*columns, text) if isinstance(column, int)]
    if len(same) == len(columns) + 1 and ids.shape[1] == 1:
        return Counter({(tuple(same[:-1]), same[-1]): len(ids)})
    table = torch.stack([c if isinstance(c, Tensor) else torch.full_like(ids, c) for c in (*columns, text)], dim=-1)
    return Counter((tuple(row[:-1]), row[-1]) for row in table[ids >= 0].tolist())


def _lengths(stream: TokenStream, ids: Tensor) -> Tensor | int:
    """Tokens of every sample of ``ids`` ``(B, S)``; one number where all have it by construction."""
    if stream.full:
        return stream.values.shape[1]
    if ids.shape[1] == 1:
        return stream.valid.sum(dim=1, keepdim=True)
    rows = torch.arange(len(ids)).unsqueeze(1) * ids.shape[1]
    places = (rows + stream.sample)[stream.valid]
    return torch.bincount(places, minlength=ids.numel()).view(ids.shape)


def peak_of(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that ``device`` could do by its data sheet; 0 where it is not known, or the run is not in bfloat16."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return 0.0
    known = reported_gpu(torch.cuda.get_device_name(device))
    return known.flops if known else 0.0
