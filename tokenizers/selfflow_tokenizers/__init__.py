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
    from .codecs import PictureCodec, SoundCodec
    from .errors import UserError
    from .folder import load_tokenizer, tokenizer_from_codec
    from .media import Audio, Image, Media, Video
    from .presets import AUDIO_PRESETS, VIDEO_PRESETS
    from .protocol import Tokenizer
    from .spec import TokenizerSpec
    from .stream import Extent, TokenStream
    from .streaming import decode_pieces, encode_pieces
    from .text import ByteTextEncoder, TextEncoder, load_text_encoder
    from .text_cache import CachedTextEncoder
    from .text_pretrained import PretrainedTextEncoder
    from .tiling import Tiled, seam_error
    from .video_autoencoder import VideoAutoencoder, VideoAutoencoderConfig
    from .video_tokenizer import VideoTokenizer

_HOME = {
    "ensure_torchaudio": "_audio_backend",
    "AudioAutoencoder": "audio_autoencoder",
    "AudioAutoencoderConfig": "audio_autoencoder",
    "AudioTokenizer": "audio_tokenizer",
    "PictureCodec": "codecs",
    "SoundCodec": "codecs",
    "UserError": "errors",
    "load_tokenizer": "folder",
    "tokenizer_from_codec": "folder",
    "Audio": "media",
    "Image": "media",
    "Media": "media",
    "Video": "media",
    "AUDIO_PRESETS": "presets",
    "VIDEO_PRESETS": "presets",
    "Tokenizer": "protocol",
    "TokenizerSpec": "spec",
    "Extent": "stream",
    "TokenStream": "stream",
    "decode_pieces": "streaming",
    "encode_pieces": "streaming",
    "ByteTextEncoder": "text",
    "TextEncoder": "text",
    "load_text_encoder": "text",
    "CachedTextEncoder": "text_cache",
    "PretrainedTextEncoder": "text_pretrained",
    "Tiled": "tiling",
    "seam_error": "tiling",
    "VideoAutoencoder": "video_autoencoder",
    "VideoAutoencoderConfig": "video_autoencoder",
    "VideoTokenizer": "video_tokenizer",
}

__all__ = [
    "AUDIO_PRESETS",
    "Audio",
    "AudioAutoencoder",
    "AudioAutoencoderConfig",
    "AudioTokenizer",
    "ByteTextEncoder",
    "CachedTextEncoder",
    "Extent",
    "Image",
    "Media",
    "PictureCodec",
    "PretrainedTextEncoder",
    "SoundCodec",
    "TextEncoder",
    "Tiled",
    "TokenStream",
    "Tokenizer",
    "TokenizerSpec",
    "UserError",
    "VIDEO_PRESETS",
    "Video",
    "VideoAutoencoder",
    "VideoAutoencoderConfig",
    "VideoTokenizer",
    "decode_pieces",
    "encode_pieces",
    "ensure_torchaudio",
    "load_text_encoder",
    "load_tokenizer",
    "seam_error",
    "tokenizer_from_codec",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
