"""The bundled world: a small room in which a coloured object falls, bounces and sounds by the floor's material.

It makes endless exactly labelled video with sound, offline; see docs/world.md.
"""

from __future__ import annotations

from .clip import WorldClip, clip_generator, make_clip

__all__ = ["WorldClip", "clip_generator", "make_clip"]
