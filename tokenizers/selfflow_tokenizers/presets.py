"""Named sizes of our autoencoders: three for each kind.

``small`` trains on a laptop, ``base`` on one accelerator in a day or so, ``large`` is for a cluster. Parameters are
counted in docs/tokenizers.md; ``selfflow-mm train-tokenizer --dry-run`` shows them too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from .audio_autoencoder import AudioAutoencoderConfig
from .video_autoencoder import VideoAutoencoderConfig

_PICTURES: dict[str, dict[str, Any]] = {
    "small": {
        "fine_width": 128, "width": 384, "frame_width": 48, "deep_width": 512,
        "fine_blocks": 1, "blocks": 4, "frame_blocks": 1, "deep_blocks": 2,
    },
    "base": {
        "fine_width": 256, "width": 768, "frame_width": 96, "deep_width": 1024,
        "fine_blocks": 3, "blocks": 6, "frame_blocks": 2, "deep_blocks": 4,
    },
    "large": {
        "fine_width": 384, "width": 1152, "frame_width": 128, "deep_width": 1536,
        "fine_blocks": 4, "blocks": 10, "frame_blocks": 3, "deep_blocks": 6,
    },
}  # fmt: skip
#: Channels of the usual latents of each compression: 8x as SD3's and FLUX.1's, 16x as Wan 2.2's.
_CHANNELS = {8: 16, 16: 48}

_SOUNDS: dict[str, dict[str, Any]] = {
    "small": dict(widths=(48, 128, 256, 384), blocks=(1, 1, 2, 3)),
    "base": dict(widths=(96, 256, 512, 1024), blocks=(2, 2, 3, 4)),
    "large": dict(widths=(128, 384, 768, 1536), blocks=(3, 3, 6, 8)),
}
#: 25 latents a second: 640 samples at 16 kHz, 1920 at 48 kHz.
_RATES: dict[str, dict[str, Any]] = {
    "16k": dict(sample_rate=16000, frame=16, strides=(5, 4, 2)),
    "48k": dict(sample_rate=48000, frame=48, strides=(5, 4, 2)),
}


def _pictures(kind: str, space: Literal[8, 16]) -> dict[str, VideoAutoencoderConfig]:
    plain = VideoAutoencoderConfig(
        latent_channels=_CHANNELS[space], time_compression=4 if kind == "video" else 1, space_compression=space
    )
    return {f"{kind}-{space}x-{size}": replace(plain, **sizes) for size, sizes in _PICTURES.items()}


def _sounds(rate: str) -> dict[str, AudioAutoencoderConfig]:
    made = {}
    for size, sizes in _SOUNDS.items():
        config = AudioAutoencoderConfig(latent_channels=64, channels=2, level=0.1, **_RATES[rate], **sizes)
        if rate == "48k":  # three times as many samples in a frame
            config = replace(config, widths=(2 * config.widths[0], *config.widths[1:]))
        made[f"audio-{rate}-{size}"] = config
    return made


VIDEO_PRESETS: dict[str, VideoAutoencoderConfig] = {
    **_pictures("video", 8),
    **_pictures("video", 16),
    **_pictures("image", 8),
    **_pictures("image", 16),
}
AUDIO_PRESETS: dict[str, AudioAutoencoderConfig] = {
    name: config for rate in ("16k", "48k") for name, config in _sounds(rate).items()
}
