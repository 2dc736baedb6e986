"""Frozen encoders of transformers as targets of REPA: from a batch's clean latents to one feature per token.

The encoder sees what the tokenizer makes of the latents, its reconstruction, not the original media: training reads
latents only. Pictures are squeezed to the encoder's own input size, whatever their shape; its grid of patches is then
laid over the grid of tokens, so both mean the same places. Videos are encoded frame by frame, one frame for every
latent frame. Nothing is downloaded: an encoder is a folder, or lies in the Hugging Face cache already.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_tokenizers._audio_backend import ensure_torchaudio

from ..errors import UserError
from ..flow.objectives import Batch

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Pictures encoded at once.
_CHUNK = 64
#: Weights that a checkpoint may lack, because no feature depends on them.
_UNUSED = ("pooler", "mask_token", "masked_spec_embed", "head.", "lm_head", "classifier", "logit_")
_MODES = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, which processors use; others (nearest, Lanczos) take bicubic


class PictureEncoder:
    """A vision transformer (DINO, SigLIP, CLIP, ViT, I-JEPA, ...) or another network with a grid of features.

    Args:
        model: gives ``last_hidden_state``, ``(B, prefix + patches, E)`` or ``(B, E, rows, columns)``. The prefix, class
            and register tokens, stands before the patches in all models of transformers; it is dropped.
        processor: contents of its preprocessor_config.json; what is missing is ImageNet's or the model's.
    """

    def __init__(self, model: nn.Module, processor: Mapping[str, Any]) -> None:
        self.model = model.eval().requires_grad_(False)
        about: Any = model.config
        self.width = _width(about)
        self.patch: int = getattr(about, "patch_size", 1)
        native = _pair(getattr(about, "image_size", 224))
        rows, columns = _input_size(processor) or native
        # The nearest size that is whole patches, at least one.
        self.size = (max(1, rows // self.patch) * self.patch, max(1, columns // self.patch) * self.patch)
        plain = not processor.get("do_normalize", True)
        self.mean = (0.0,) * 3 if plain else tuple(processor.get("image_mean") or IMAGENET_MEAN)
        self.deviation = (1.0,) * 3 if plain else tuple(processor.get("image_std") or IMAGENET_DEVIATION)
        self.scale = float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 1.0
        self.mode = _MODES.get(int(processor.get("resample") or 3), "bicubic")
        takes = inspect.signature(model.forward).parameters
        other = self.size != native and "interpolate_pos_encoding" in takes
        self.options = {"interpolate_pos_encoding": True} if other else {}

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Pictures uint8 ``(B, H, W, 3)`` -> features ``(B, rows, columns, E)`` on the encoder's own grid."""
        return torch.cat([self._encode(part) for part in frames.split(_CHUNK)])

    def prepare(self, frames: Tensor) -> Tensor:
        """Pictures uint8 ``(B, H, W, 3)`` -> the model's ``pixel_values (B, 3, rows, columns)``."""
        x = frames.movedim(-1, 1).float()
        x = F.interpolate(x, self.size, mode=self.mode, antialias=True, align_corners=False).clamp(0, 255)
        mean, deviation = (x.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.deviation))
        return (x * self.scale - mean) / deviation

    def _encode(self, frames: Tensor) -> Tensor:
        hidden = self.model(pixel_values=self.prepare(frames), **self.options).last_hidden_state
        if hidden.ndim == 4:  # a convolutional network
            return hidden.movedim(1, -1)
        rows, columns = (side // self.patch for side in self.size)
        if hidden.shape[1] < rows * columns:
            raise UserError(
                f"{type(self.model).__name__} gives {hidden.shape[1]} features for {rows} x {columns} patches; "
                "an encoder for REPA gives one for each"
            )
        return hidden[:, hidden.shape[1] - rows * columns :].unflatten(1, (rows, columns))


class SoundEncoder:
    """An encoder of raw mono sound (wav2vec 2.0, HuBERT, WavLM, data2vec): features at an even rate.

    Args:
        model: takes ``input_values (B, samples)`` and gives ``last_hidden_state (B, frames, E)``.
        processor: contents of its preprocessor_config.json; without one 16 kHz, as all of them were trained at.
    """

    def __init__(self, model: nn.Module, processor: Mapping[str, Any]) -> None:
        self.model = model.eval().requires_grad_(False)
        about: Any = model.config
        self.width = _width(about)
        self.rate = int(processor.get("sampling_rate", 16000))
        self.normalise = bool(processor.get("do_normalize", True))
        # Frame j of the strided convolutions covers `field` samples from sample hop * j on.
        self.hop, self.field = 1, 1
        for kernel, stride in zip(about.conv_kernel, about.conv_stride, strict=True):
            self.field += (kernel - 1) * self.hop
            self.hop *= stride

    @torch.no_grad()
    def __call__(self, waveforms: Tensor, rate: int, seconds: Tensor) -> Tensor:
        """Features at given times.

        Args:
            waveforms: ``(B, channels, samples)`` in [-1, 1].
            rate: their samples per second.
            seconds: ``(N,)``, where features are wanted; between two frames of the encoder linearly mixed.

        Returns:
            ``(B, N, E)``.
        """
        hidden = self.model(self.prepare(waveforms, rate)).last_hidden_state
        place = (seconds.to(hidden.device).double() * self.rate - self.field / 2) / self.hop
        place = place.clamp(0, hidden.shape[1] - 1)
        before = place.floor().long()
        after = (before + 1).clamp(max=hidden.shape[1] - 1)
        share = (place - before).to(hidden.dtype)[:, None]
        return torch.lerp(hidden[:, before], hidden[:, after], share)

    def prepare(self, waveforms: Tensor, rate: int) -> Tensor:
        """``(B, channels, samples)`` -> the model's ``input_values (B, samples)``: mono, at its rate."""
        from torchaudio.functional import resample

        mono = resample(waveforms.mean(dim=1), rate, self.rate)
        if mono.shape[1] < self.field:
            raise UserError(f"the sound encoder needs {self.field / self.rate:.3f} s of sound; the clips are shorter")
        if not self.normalise:
            return mono
        centred = mono - mono.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()


class Features:
    """A feature function for REPA: batch -> modality -> ``(B, N, E)``, one feature for each token.

    Args:
        encoders: modality -> encoder; only generated streams of these are encoded.
        tokenizers: modality -> tokenizer, which turns latents back into media.

    Raises:
        UserError: an encoder for a modality without tokenizer, or encoders of different widths.
    """

    def __init__(self, encoders: Mapping[str, PictureEncoder | SoundEncoder], tokenizers: Mapping[str, Any]) -> None:
        self.encoders, self.tokenizers = dict(encoders), dict(tokenizers)
        _check_modalities(self.encoders, tokenizers)
        self.width = common_width({m: e.width for m, e in self.encoders.items()})

    def to(self, device: torch.device | str) -> Features:
        for encoder in self.encoders.values():
            encoder.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Features of the batch's clean data; the tokens of a row must be one whole sample."""
        found = {}
        for modality in batch.conditions.generate:
            encoder, stream = self.encoders.get(modality), batch.streams[modality]
            if encoder is None:
                continue
            if not stream.full:
                raise UserError(f"repa takes one whole sample per row, and rows of {modality} are packed or padded")
            if isinstance(encoder, PictureEncoder):
                found[modality] = self._pictures(encoder, modality, stream.values, stream.positions[0])
            else:
                spec = self.tokenizers[modality].spec
                sound = self.tokenizers[modality].decode_batch(stream.values)
                rate = spec.decoded_rate or spec.sample_rate
                found[modality] = encoder(sound, rate, stream.positions[0, :, 0])
        return found

    def _pictures(self, encoder: PictureEncoder, modality: str, values: Tensor, positions: Tensor) -> Tensor:
        tokenizer = self.tokenizers[modality]
        rows, columns = (int(positions[:, axis].max()) + 1 for axis in (1, 2))
        latent = len(positions) // (rows * columns)
        frames = tokenizer.decode_batch(values, rows, columns)  # (B, T, H, W, 3)
        chosen = frames[:, middle_frames(latent, tokenizer.spec.time_compression)]
        grid = encoder(chosen.flatten(0, 1)).movedim(-1, 1)  # (B L, E, rows, columns) of the encoder
        grid = F.interpolate(grid.float(), (rows, columns), mode="bilinear", antialias=True, align_corners=False)
        # Back to tokens in their order: time slowest, then row, then column.
        return grid.unflatten(0, (len(values), latent)).movedim(2, -1).flatten(1, 3)


def middle_frames(latent: int, compression: int) -> list[int]:
    """The frame at each latent frame's time: the first latent frame is frame 0, the j-th covers frames c (j - 1) + 1 to
    c j, of which this is frame c j - (c - 1) // 2.
    """
    return [max(0, compression * j - (compression - 1) // 2) for j in range(latent)]


def build_features(sources: Mapping[str, str], tokenizers: Mapping[str, Any]) -> Features:
    """The feature function of ``objective.encoders``: modality -> folder or cached id. One source is loaded once."""
    _check_modalities(sources, tokenizers)
    loaded = {source: load_encoder(source) for source in dict.fromkeys(sources.values())}
    for modality, source in sources.items():
        kind = SoundEncoder if modality == "audio" else PictureEncoder
        if not isinstance(loaded[source], kind):
            made_for = "sound" if kind is PictureEncoder else "pictures"
            raise UserError(f"objective.encoders.{modality}: {source} is an encoder of {made_for}")
    return Features({m: loaded[source] for m, source in sources.items()}, tokenizers)


def load_encoder(source: str) -> PictureEncoder | SoundEncoder:
    """Load a frozen encoder from a folder or the Hugging Face cache, in float32.

    Raises:
        UserError: it is not there, not a model that transformers knows, lacks weights, or takes other inputs than
            pictures or raw sound.
    """
    ensure_torchaudio()
    from transformers import AutoModel

    config = _config(source)
    if hasattr(config, "tubelet_size") or hasattr(config, "num_frames"):
        raise UserError(f"{source} encodes whole clips; here videos are encoded frame by frame, by an image encoder")
    try:
        model, info = AutoModel.from_pretrained(
            source, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{source} cannot be loaded as an encoder: {str(error).strip().splitlines()[0]}") from error
    model = getattr(model, "vision_model", model)  # of a model of pictures and text (SigLIP, CLIP)
    missing = [name for name in info["missing_keys"] if not any(part in name for part in _UNUSED)]
    if missing:
        raise UserError(f"{source} lacks {len(missing)} of the encoder's weights, such as {sorted(missing)[0]}")
    processor = _processor(source)
    takes = inspect.signature(model.forward).parameters
    if "pixel_values" in takes:
        return PictureEncoder(model, processor)
    if "input_values" in takes and hasattr(model.config, "conv_stride"):
        return SoundEncoder(model, processor)
    raise UserError(
        f"{source} ({type(model).__name__}) takes neither pictures nor raw sound; encoders such as DINOv2, SigLIP, "
        "CLIP, wav2vec 2.0 or HuBERT do"
    )


def encoder_width(sources: Mapping[str, str]) -> int:
    """E of the encoders, read from their configs alone.

    Raises:
        UserError: an encoder is not there, or they differ (the student has one projection head for all).
    """
    return common_width({m: _width(_config(source)) for m, source in sources.items()})


def common_width(widths: Mapping[str, int]) -> int:
    if len(set(widths.values())) != 1:
        listed = ", ".join(f"{m} {width}" for m, width in widths.items())
        raise UserError(f"objective.encoders need features of one width, got {listed or 'no encoder'}")
    return next(iter(widths.values()))


def _check_modalities(named: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> None:
    for modality in named:
        if modality not in tokenizers:
            raise UserError(f"objective.encoders names {modality}, which has no tokenizer; add tokenizers.{modality}")


def _config(source: str) -> Any:
    ensure_torchaudio()
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        if Path(source).is_dir():
            reason = f"is no folder of a model that transformers knows ({str(error).strip().splitlines()[0]})"
        else:
            reason = f"is neither a folder nor in the Hugging Face cache; fetch it first with `hf download {source}`"
        raise UserError(f"objective.encoders: {source} {reason}") from error


def _processor(source: str) -> dict[str, Any]:
    """Its preprocessor_config.json (or the part of processor_config.json that newer releases write), else nothing."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path: Any = Path(source) / name
        if not Path(source).is_dir():
            from huggingface_hub import try_to_load_from_cache

            path = try_to_load_from_cache(source, name)
        if isinstance(path, str | Path) and Path(path).is_file():
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            return found.get("image_processor") or found.get("feature_extractor") or found
    return {}


def _input_size(processor: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that go into the model: of the crop where there is one, else of the resized picture."""
    crops = processor.get("do_center_crop", "crop_size" in processor)
    size = processor.get("crop_size") if crops else processor.get("size")
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return int(size["height"]), int(size["width"])
        size = size.get("shortest_edge")
    return None if not size else _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else (int(size), int(size))


def _width(config: Any) -> int:
    config = getattr(config, "vision_config", config)
    width = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [0])[-1]
    if not width:
        raise UserError(f"{getattr(config, 'model_type', 'the encoder')} does not say how wide its features are")
    return int(width)
