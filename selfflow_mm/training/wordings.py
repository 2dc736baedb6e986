"""Which of a sample's captions a step sees: any, or by the shares of their kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..data.latents import LatentDataset
from ..errors import UserError
from ..randomness import pick


class Wordings:
    """The captions of a source.

    Args:
        name: of the source, for messages.
        data: its samples.
        shares: kind of caption -> share; empty: every caption of a sample alike.

    Raises:
        UserError: shares are set, and a kind among them is no caption's; or a sample with captions does not say of what
            kinds they are, or has none with a share.
    """

    def __init__(self, name: str, data: LatentDataset, shares: Mapping[str, float]) -> None:
        self._data = data
        #: Kinds of a sample's captions -> place in that list -> share.
        self._shares: dict[tuple[str, ...], dict[int, float]] = {}
        if shares:
            _refuse(f"data.sources.{name}.captions", data, shares)
            self._shares = {kinds: _by_place(kinds, shares) for kinds in set(data.caption_kinds)}

    def draw(self, id: int, u: float) -> str:
        """The caption of a sample that ``u``, uniform in (0, 1), stands for; "" of one that has none."""
        captions = self._data.captions[id]
        if not captions:
            return ""
        if not self._shares:
            return captions[int(u * len(captions))]
        return captions[pick(u, self._shares[self._data.caption_kinds[id]])]


def _by_place(kinds: tuple[str, ...], shares: Mapping[str, float]) -> dict[int, float]:
    """Captions of one kind have its share between them."""
    alike = Counter(kinds)
    return {i: shares.get(kind, 0.0) / alike[kind] for i, kind in enumerate(kinds)}


def _refuse(option: str, data: LatentDataset, shares: Mapping[str, float]) -> None:
    known = sorted({kind for kinds in data.caption_kinds for kind in kinds})
    if not known:
        raise UserError(
            f"{option} is set, and {data.folder} does not say of what kinds captions are; if the samples' json has "
            "caption_kinds, one for each caption, an earlier release encoded them: remove that folder and encode them "
            "again; else leave captions empty"
        )
    if unknown := [kind for kind in shares if kind not in known]:
        raise UserError(
            f"{option} names {' and '.join(map(repr, unknown))}, which no caption in {data.folder} is; "
            f"the kinds are {', '.join(known)}"
        )
    for i, (captions, kinds) in enumerate(zip(data.captions, data.caption_kinds, strict=True)):
        if captions and not kinds:
            raise UserError(
                f"{option} is set, and sample {i} of {data.folder} does not say of what kinds its captions are; give "
                "its json caption_kinds, one for each caption, and encode the data set again, or leave captions empty"
            )
        if captions and not any(shares.get(kind) for kind in kinds):
            raise UserError(
                f"{option} has no share for a caption of sample {i} of {data.folder}, whose kinds are "
                f"{', '.join(dict.fromkeys(kinds))}; give one of them a share"
            )
