"""What encoding takes: FLOPs of the encoders that docs/scale.md plans with, counted on the libraries' classes.

    pip install 'selfflow-mm[pretrained]'
    python benchmarks/encoder_flops.py

Nothing is computed and no weights are needed: the networks lie on the meta device, torch.utils.flop_counter counts.
Sizes are those of the published config.json: FLUX.2's autoencoder and the T5 v1.1 XXL encoder by their classes' and
card's values, Wan 2.2's as below.
"""

from __future__ import annotations

import warnings

import torch
from torch.utils.flop_counter import FlopCounterMode

from selfflow_tokenizers._audio_backend import ensure_torchaudio

WAN = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128}


def main() -> None:
    warnings.simplefilter("ignore")
    ensure_torchaudio()
    from diffusers import AutoencoderKLFlux2, AutoencoderKLWan
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        flux2, wan = AutoencoderKLFlux2(), AutoencoderKLWan(**WAN)
        t5 = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **T5))
        picture, clip = torch.empty(1, 3, 512, 512), torch.empty(1, 3, 45, 384, 672)
    for name, encode, media in (
        ("flux2, 512 x 512", flux2.encode, picture),
        ("wan2.2, 45 x 384 x 672", wan.encode, clip),
    ):
        with FlopCounterMode(display=False) as counted:
            encode(media)
        print(f"{name}: {counted.get_total_flops():.4g} FLOPs")
    weights = sum(p.numel() for p in t5.parameters()) - t5.shared.weight.numel()
    print(f"t5-v1_1-xxl: {weights:,} parameters beside the embedding, {2 * weights:.4g} FLOPs per token")


if __name__ == "__main__":
    main()
