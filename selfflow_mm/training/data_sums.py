"""What a run's data sets hold and take, counted from its config: tokens, latents, text, passes over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .config import TrainConfig
from .workload import Draw, samples_of

#: Latents are stored as float16.
LATENT_BYTES = 2


@dataclass(frozen=True)
class DataSums:
    """Of one data set.

    Attributes:
        name: of the source.
        samples: in it.
        captions: wordings per sample.
        sizes: modality -> media tokens of a sample, of every modality that any of its tasks needs; in the mean over
            what is drawn, where samples differ.
        latent_bytes: of a sample, as stored.
        text_bytes: of one caption's stored embedding; 0 where none is stored.
        batch: samples of a batch; of a packed step in the mean.
        drawn: samples that the run takes from it.
        buckets: sizes that its samples have, in the task that has most of them.
    """

    name: str
    samples: int
    captions: int
    sizes: dict[str, int]
    latent_bytes: int
    text_bytes: int
    batch: float
    drawn: float
    buckets: int = 1

    @property
    def tokens(self) -> int:
        """Media tokens of a sample."""
        return sum(self.sizes.values())

    @property
    def all_tokens(self) -> int:
        return self.samples * self.tokens

    @property
    def all_latent_bytes(self) -> int:
        return self.samples * self.latent_bytes

    @property
    def all_text_bytes(self) -> int:
        """Every wording of every sample."""
        return self.samples * self.captions * self.text_bytes

    @property
    def passes(self) -> float:
        """How often the run sees each sample, in the mean."""
        return self.drawn / self.samples if self.samples else 0.0


def data_sums(
    config: TrainConfig, draws: Sequence[Draw], channels: Mapping[str, int], text_value_bytes: int
) -> list[DataSums]:
    """One for each source of the config.

    Args:
        config: of the run.
        draws: its batches.
        channels: modality -> channels of its tokens, ``text`` included where captions are stored as embeddings.
        text_value_bytes: of a stored value of text.
    """
    found = []
    for name, source in config.data.sources.items():
        own = [d for d in draws if d.source == name]
        if not own:
            continue
        sizes = {m: _mean_tokens(own, m) for m in dict.fromkeys(m for d in own for m in d.sizes)}
        latents = sum(n * channels[m] for m, n in sizes.items()) * LATENT_BYTES
        text = own[0].text * channels.get("text", 0) * text_value_bytes
        drawn = config.run.steps * sum(d.share * d.batch for d in own)
        batch = sum(d.batch for d in own) if own[0].packed else source.batch
        samples = samples_of(source)
        buckets = max(Counter(d.task for d in own).values())
        captions = source.expects.captions
        found.append(DataSums(name, samples, captions, sizes, latents, text, batch, drawn, buckets))
    return found


def _mean_tokens(draws: Sequence[Draw], modality: str) -> int:
    """Tokens of a modality in a sample, in the mean over the batches that have it."""
    having = [d for d in draws if modality in d.sizes]
    samples = sum(d.share * d.batch for d in having)
    return round(sum(d.share * d.batch * d.sizes[modality] for d in having) / samples)


def batch_bytes(draw: Draw, channels: Mapping[str, int], text_value_bytes: int) -> float:
    """What the loader must deliver for one batch, or this part of a packed step: latents and stored text."""
    media = sum(n * channels[m] for m, n in draw.sizes.items()) * LATENT_BYTES
    return draw.batch * (media + draw.text * channels.get("text", 0) * text_value_bytes)
