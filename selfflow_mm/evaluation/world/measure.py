"""All measures of one clip, of its media alone."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from selfflow_mm.data.world.grammar import parse
from selfflow_tokenizers.media import Audio, Video

from . import consistency, faithfulness, sync
from .contacts import find_events
from .onsets import find_onsets
from .plausibility import ACCELERATION, REBOUND, accelerations, rebounds
from .reader import Reader
from .tracks import Track, follow
from .words import find_words

#: A row as JSON: numbers, strings, lists; None where a clip has nothing to measure.
Row = dict[str, Any]


def measure_clip(reader: Reader, caption: str, video: Video, audio: Audio) -> Row:
    """What a clip shows, sounds like and lacks, beside what its caption asks for.

    Raises:
        UserError: the caption is none of the world's.
    """
    claims = parse(caption)
    seen = reader.look(video)
    tracks = follow(video, seen, reader)
    words = find_words(video, seen, tracks, reader)
    events = find_events(tracks, video.fps)
    onsets = [time * video.fps for time in find_onsets(audio)]
    row: Row = {
        "caption": caption,
        "objects": [_named(track) for track in tracks],
        "words": words,
        "contacts": [round(contact.time, 3) for contact in events.contacts],
        "entrances": [round(time, 3) for time in events.entrances],
        "onsets": [round(time, 3) for time in onsets],
        **asdict(faithfulness.compare(claims, tracks, words)),
    }
    row |= hear(row, audio, video.fps)
    found = consistency.check(tracks)
    row |= {**asdict(found), "consistent": found.whole}
    falls = accelerations(tracks, events.contacts, video.fps)
    bounces = rebounds(events.contacts)
    row |= {
        "falls": [round(a, 3) for a in falls],
        "falls accelerate": all(ACCELERATION[0] <= a <= ACCELERATION[1] for a in falls) if falls else None,
        "rebounds": [round(r, 3) for r in bounces],
        "bounces lose energy": all(r <= REBOUND for r in bounces) if bounces else None,
    }
    return row


def hear(row: Row, audio: Audio | None, fps: float) -> Row:
    """What is said of a row's onsets against its contacts; without ``audio`` silence is left out."""
    found = sync.compare(row["contacts"], row["entrances"], row["onsets"])
    out: Row = {
        "matched": found.matched,
        "explained": found.explained,
        "offset": None if math.isnan(found.offset) else round(found.offset, 2),
    }
    if audio is not None:
        level = sync.level_before(audio, min([*row["contacts"], *row["entrances"]], default=math.nan), fps)
        out["level before"] = None if math.isnan(level) else round(level, 1)
        out["silent before"] = None if math.isnan(level) else level <= sync.SILENT
    return out


def _named(track: Track) -> str:
    return f"{track.colour} {track.material} {track.shape}"
