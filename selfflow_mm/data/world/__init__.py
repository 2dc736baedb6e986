"""The bundled world: a playroom in which objects of four materials fall, roll, collide, hide and carry words.

It makes endless exactly labelled video with sound, offline; see docs/world.md.
"""

from __future__ import annotations

from .clip import WorldClip, make_clip

__all__ = ["WorldClip", "make_clip"]
