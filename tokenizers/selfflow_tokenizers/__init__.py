"""Tokenizers: images, videos, sounds and texts to streams of latent tokens, and back.

Names are imported when first used, so that ``import selfflow_tokenizers`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._audio_backend import ensure_torchaudio
    from .audio_autoencoder import AudioAutoencoder, AudioAutoencoderConfig
    from .audio_tokenizer import AudioTokenizer
    from .errors import UserError
    from .folder import load_tokenizer
    from .media import Audio, Image, Media, Video
    from .spec import TokenizerSpec
    from .stream import TokenStream
    from .text import ByteTextEncoder
    from .video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig
    from .video_tokenizer import VideoTokenizer

_HOME = {
    "ensure_torchaudio": "_audio_backend",
    "AudioAutoencoder": "audio_autoencoder",
    "AudioAutoencoderConfig": "audio_autoencoder",
    "AudioTokenizer": "audio_tokenizer",
    "UserError": "errors",
    "load_tokenizer": "folder",
    "Audio": "media",
    "Image": "media",
    "Media": "media",
    "Video": "media",
    "TokenizerSpec": "spec",
    "TokenStream": "stream",
    "ByteTextEncoder": "text",
    "VideoAutoencoder": "video_autoencoder",
    "VideoAutoencoderConfig": "video_autoencoder",
    "VideoTokenizer": "video_tokenizer",
}

__all__ = [
    "Audio",
    "AudioAutoencoder",
    "AudioAutoencoderConfig",
    "AudioTokenizer",
    "ByteTextEncoder",
    "Image",
    "Media",
    "TokenStream",
    "TokenizerSpec",
    "UserError",
    "Video",
    "VideoAutoencoder",
    "VideoAutoencoderConfig",
    "VideoTokenizer",
    "ensure_torchaudio",
    "load_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
