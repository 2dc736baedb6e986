"""From prompts to media: conditions, noise, solver, tokenizers.

    pipeline = Pipeline.from_pretrained("tiny")
    [clip] = pipeline(["a red metal ball falls and bounces"], seed=3)
    clip.save("ball.mp4")

A pipeline folder has ``config.json`` (format, version, the model's shape, clip geometry, sampling, which text encoder),
``model.safetensors`` (the EMA) and ``tokenizers/<name>/``. Only a text encoder of transformers is not in it: these are
larger than most models, so the folder keeps its name and settings, and a hash by which another one is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selfflow_tokenizers import ByteTextEncoder, load_tokenizer
from selfflow_tokenizers.media import Audio, Image, Media, Video
from selfflow_tokenizers.stream import Extent
from selfflow_tokenizers.tensor_file import save_tensors
from selfflow_tokenizers.text import TextEncoder, load_text_encoder

from ..conditions import Conditions, Part
from ..config import from_dict, to_dict
from ..data.writing import write_audio, write_image, write_video
from ..errors import UserError
from ..flow.path import interpolate
from ..flow.solvers import SOLVERS, schedule
from ..models.joint import JointConfig, JointTransformer
from ..randomness import Randomness
from ..tokens import TokenStream
from ..weights import find_weights
from ..weights.checkpoints import latest_checkpoint, load_group
from .field import Field
from .pieces import borders
from .sampling import SamplingConfig

FORMAT, VERSION = "selfflow-model", 1


@dataclass(frozen=True)
class Geometry:
    """The clips a model was trained on: frames of ``height`` x ``width`` at ``fps``, and samples of sound at the rate
    that the tokenizer reads.
    """

    frames: int = 33
    height: int = 64
    width: int = 64
    fps: float = 16.0
    samples: int = 33000


@dataclass(frozen=True)
class Generated:
    """One result: whatever the task generated or was given."""

    prompt: str
    seed: int
    video: Video | None = None
    audio: Audio | None = None
    image: Image | None = None

    def save(self, path: Path | str) -> Path:
        """Write MP4 (picture with sound, if any), WAV or PNG by the file's ending.

        Raises:
            UserError: the ending does not fit what there is.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending == ".mp4" and self.video is not None:
            write_video(path, self.video, self.audio)
        elif ending == ".wav" and self.audio is not None:
            write_audio(path, self.audio)
        elif ending == ".png" and self.image is not None:
            write_image(path, self.image)
        else:
            raise UserError(f"{path}: this result is written as {' or '.join(self.endings)}")
        return path

    @property
    def endings(self) -> tuple[str, ...]:
        have = {".mp4": self.video, ".wav": self.audio, ".png": self.image}
        return tuple(ending for ending, medium in have.items() if medium is not None)


class Pipeline:
    """A model with its tokenizers, ready to sample.

    Args:
        model: the transformer (its EMA weights).
        tokenizers: modality -> tokenizer.
        geometry: clip size when the caller names none.
        sampling: settings when the caller gives none.
        text_level: what training told text tokens (``ObjectiveConfig.text_level``).
        text_encoder: of the prompts; the bundled one unless given.

    Raises:
        UserError: the text encoder's tokens have other channels than the model takes.
    """

    def __init__(
        self,
        model: JointTransformer,
        tokenizers: Mapping[str, Any],
        geometry: Geometry,
        sampling: SamplingConfig,
        text_level: str = "zero",
        text_encoder: TextEncoder | None = None,
    ) -> None:
        self.model, self.tokenizers = model.eval(), dict(tokenizers)
        self.geometry, self.sampling, self.text_level = geometry, sampling, text_level
        self.text_encoder: TextEncoder = ByteTextEncoder() if text_encoder is None else text_encoder
        takes, gives = model.config.text_channels, self.text_encoder.spec
        if takes != gives.channels:
            raise UserError(f"the model takes text of {takes} channels, '{gives.name}' gives {gives.channels}")

    @property
    def device(self) -> torch.device:
        """Where the transformer is; noise is drawn there, and tokenizers may be elsewhere."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        conditions: Conditions | str = "t2va",
        *,
        seed: int = 0,
        given: Mapping[str, Media] | None = None,
        sampling: SamplingConfig | None = None,
        frames: int | None = None,
    ) -> list[Generated]:
        """Sample one result per prompt.

        Args:
            prompts: captions; "" is unconditional.
            conditions: a task's name or :class:`Conditions`.
            seed: result i uses (seed, i), so it does not depend on how many are made at once.
            given: modality -> medium that the conditions give (the same for all prompts). A first frame may be an
                Image.
            frames: of video, a count that fills the tokenizer's latent frames (1 + 4k for most); sound gets the same
                duration. The model's own unless named.

        Raises:
            UserError: a modality the model does not have, or a given medium is missing.
        """
        if not prompts:
            raise UserError("there is no prompt to generate from")
        conditions = Conditions.named(conditions) if isinstance(conditions, str) else conditions
        sampling = sampling or self.sampling
        for modality in conditions.modalities:
            if modality not in self.model.config.modalities or modality not in self.tokenizers:
                raise UserError(f"this model has no {modality}; it has {', '.join(self.model.config.modalities)}")
        geometry = self.geometry if frames is None else self._resized(frames)
        ids = torch.arange(len(prompts), device=self.device)
        random = Randomness(seed)
        streams = {m: self._noise(m, geometry, ids, random) for m in conditions.modalities}
        clean = self._given(conditions, dict(given or {}), streams, geometry)
        solve = self._in_pieces if sampling.piece and "video" in conditions.generate else self._solve
        values = solve(list(prompts), conditions, streams, clean, sampling)
        return self._decode(list(prompts), seed, conditions, streams, values, geometry, given or {})

    def _solve(
        self,
        prompts: list[str],
        conditions: Conditions,
        streams: dict[str, TokenStream],
        clean: dict[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Tensor]:
        """Integrate the velocity from noise to data; given tokens are pinned to their level."""
        masks = conditions.masks(streams)
        shifts = {m: sampling.shift.get(m) or self.tokenizers[m].spec.sample_shift for m in streams}
        times = {m: schedule(sampling.steps, shifts[m], sampling.spans.get(m, (0.0, 1.0))) for m in streams}
        scales = {m: sampling.guidance_of(m) for m in conditions.generate}
        guided = any(scale != 1 for scale in scales.values())
        text = self.text_encoder.encode(prompts + [""] * len(prompts) if guided else prompts).to(self.device)
        pinned = {}
        for m, mask in masks.items():
            level = conditions.given[m].level
            at_level = interpolate(clean[m], streams[m].values, torch.full(mask.shape, level, device=self.device))
            pinned[m] = (mask, at_level, level)
        velocity = Field(self.model, streams, text, scales, pinned, self.text_level)
        x = SOLVERS[sampling.solver](velocity, {m: s.values for m, s in streams.items()}, times)
        return {m: torch.where(masks[m].unsqueeze(-1), clean[m], v) if m in masks else v for m, v in x.items()}

    def _in_pieces(
        self,
        prompts: list[str],
        conditions: Conditions,
        streams: dict[str, TokenStream],
        clean: dict[str, Tensor],
        sampling: SamplingConfig,
    ) -> dict[str, Tensor]:
        """The video piece by piece, each with those before it given, then whatever else is made, with the video given.

        Every piece is what comes first of a run to the end of the clip: the model was trained so, and what will happen
        is part of what happens now.
        """
        video, whole = streams["video"], {m: p for m, p in conditions.given.items() if m not in conditions.generate}
        kept = conditions.masks(streams).get("video", torch.zeros_like(video.valid))
        level = conditions.given["video"].level if "video" in conditions.given else 0.0
        made = dict(clean)
        for until in borders(video.positions[..., 0], video.valid & ~kept, sampling.piece):
            given = whole | ({"video": Part("mask", tokens=kept, level=level)} if bool(kept.any()) else {})
            run = Conditions(("video",), given)
            made["video"] = self._solve(prompts, run, {m: streams[m] for m in run.modalities}, made, sampling)["video"]
            kept = kept | (video.positions[..., 0] < until)
        rest = tuple(m for m in conditions.generate if m != "video")
        if not rest:
            return {m: made[m] for m in conditions.modalities}
        run = Conditions(rest, {**conditions.given, "video": Part("all")})
        return {**self._solve(prompts, run, streams, made, sampling), "video": made["video"]}

    def _noise(self, modality: str, geometry: Geometry, ids: Tensor, random: Randomness) -> TokenStream:
        tokenizer, g = self.tokenizers[modality], geometry
        if modality == "audio":
            positions, extent = tokenizer.positions(g.samples), Extent(samples=g.samples)
        elif modality == "video":
            positions = tokenizer.positions(g.frames, g.height, g.width, g.fps)
            extent = Extent(g.frames, g.height, g.width, g.fps)
        else:
            positions, extent = tokenizer.positions(1, g.height, g.width, g.fps), Extent(1, g.height, g.width)
        shape = (len(ids), len(positions), tokenizer.spec.channels)
        noise = random.normal(f"sample/{modality}", 0, ids, shape[1] * shape[2]).view(shape)
        return TokenStream.dense(noise, positions, (extent,) * len(ids))  # decoding crops to it

    def _given(
        self, conditions: Conditions, given: dict[str, Media], streams: dict[str, TokenStream], geometry: Geometry
    ) -> dict[str, Tensor]:
        """Clean tokens of given media, laid over the generated grid."""
        clean = {}
        for modality, part in conditions.given.items():
            if modality not in given:
                raise UserError(f"the task needs {modality} to be given ({part.kind}); name a file for it")
            medium = given[modality]
            if modality == "video" and isinstance(medium, Video) and part.kind == "first_frame":
                medium = Image(medium.frames[0])
            _check_medium(modality, medium, geometry)
            tokens = self.tokenizers[modality].encode([medium]).to(self.device)
            room = streams[modality]
            n = min(tokens.values.shape[1], room.values.shape[1])
            if part.kind == "all" and tokens.values.shape[1] != room.values.shape[1]:
                raise UserError(
                    f"the given {modality} has {tokens.values.shape[1]} tokens, the model makes clips of "
                    f"{room.values.shape[1]}: "
                    f"{geometry.frames} frames at {geometry.fps:g} per second, {geometry.samples} samples of sound"
                )
            laid = torch.zeros_like(room.values)
            laid[:, :n] = tokens.values[:, :n]
            covered = torch.zeros_like(room.valid)
            covered[:, :n] = True
            if bool((part.select(room) & ~covered).any()):
                raise UserError(f"the given {modality} is shorter than the part of it that is named")
            clean[modality] = laid
        return clean

    def _decode(
        self,
        prompts: list[str],
        seed: int,
        conditions: Conditions,
        streams: dict[str, TokenStream],
        values: dict[str, Tensor],
        geometry: Geometry,
        given: Mapping[str, Media],
    ) -> list[Generated]:
        media: dict[str, list[Any]] = {}
        for modality, stream in streams.items():
            tokenizer, tokens = self.tokenizers[modality], stream.with_values(values[modality])
            if modality not in conditions.generate:  # given whole: what came in goes out
                media[modality] = [given[modality]] * len(prompts)
            elif modality == "audio":
                media[modality] = tokenizer.decode(tokens, samples=geometry.samples)
            elif modality == "image":
                media[modality] = tokenizer.decode_images(tokens)
            else:
                media[modality] = tokenizer.decode(tokens, fps=geometry.fps)
        return [
            Generated(prompt, seed, **{m: results[i] for m, results in media.items()})
            for i, prompt in enumerate(prompts)
        ]

    def _resized(self, frames: int) -> Geometry:
        step = self.tokenizers["video"].spec.time_compression if "video" in self.tokenizers else 1
        if frames < 1 or (frames - 1) % step:
            near = max(1, step * round((frames - 1) / step) + 1)
            raise UserError(
                f"a video has 1 + {step}k frames (1, {1 + step}, {1 + 2 * step}, ...), got {frames}; "
                f"the nearest is {near}"
            )
        rate = self.tokenizers["audio"].spec.sample_rate if "audio" in self.tokenizers else 0
        return replace(self.geometry, frames=frames, samples=round(frames / self.geometry.fps * rate))

    def save_pretrained(
        self, folder: Path | str, *, half: bool = False, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write the folder that :meth:`from_pretrained` reads; ``half`` stores float16 weights at half the size."""
        folder = Path(folder)
        dtype = torch.float16 if half else None
        layout = (self.model.config, self.tokenizers, self.geometry, self.sampling, self.text_level)
        write_layout(folder, *layout, dtype, self.text_encoder)
        tensors = {k: v.detach().contiguous() for k, v in self.model.state_dict().items()}
        if half:
            tensors = {k: v.half() for k, v in tensors.items()}
        beside = folder / "model.safetensors.tmp"
        save_tensors(tensors, beside, metadata={"format": "pt", **(metadata or {})})
        os.replace(beside, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, name: Path | str, *, text_encoder: str | TextEncoder | None = None) -> Pipeline:
        """Load a pipeline folder, a training run's folder (its newest weights) or a bundled model by name
        (``tiny``).

        Args:
            name: of the model.
            text_encoder: folder or hub id of the text encoder that the model was trained with, or the encoder itself,
                where it lies elsewhere than it did in training.

        Raises:
            UserError: there is no such model, or its text encoder is not here, or is another.
        """
        if Path(name).is_file():
            raise UserError(
                f"{name} is a file, which has no tokenizers beside its weights; give a model's folder, as "
                "`selfflow-mm export RUN --out FOLDER` writes it (a file can be a run's init)"
            )
        folder = find_weights(name)
        checkpoint = None
        if (folder / "run.json").exists():
            folder, checkpoint = _run_weights(folder)
        weights = checkpoint or folder / "model.safetensors"
        if not (folder / "config.json").exists() or not weights.exists():
            raise UserError(f"{name} holds no model: config.json and model.safetensors are expected there")
        about = json.loads((folder / "config.json").read_text())
        if about.get("format") != FORMAT or about.get("version") != VERSION:
            raise UserError(
                f"{folder}/config.json is {about.get('format')} version {about.get('version')}; this "
                f"release reads {FORMAT} {VERSION}"
            )
        where = str(folder / "config.json")
        model = JointTransformer(from_dict(JointConfig, about["model"], where))
        try:
            tensors = load_group(checkpoint, "ema") if checkpoint else load_file(weights)
            missing = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
        except (RuntimeError, SafetensorError) as error:
            raise UserError(f"{weights} does not fit its config: {str(error).splitlines()[-1].strip()}") from None
        if missing.missing_keys or missing.unexpected_keys:
            raise UserError(
                f"{weights} does not fit its config: missing {missing.missing_keys[:3]}, unexpected "
                f"{missing.unexpected_keys[:3]}"
            )
        folders = {m: folder / path for m, path in about["tokenizers"].items()}
        loaded = {path: load_tokenizer(path) for path in set(folders.values())}
        return cls(
            model,
            {m: loaded[path] for m, path in folders.items()},
            from_dict(Geometry, about["geometry"], where),
            from_dict(SamplingConfig, about["sampling"], where),
            about["text_level"],
            find_text_encoder(about["text_encoder"], text_encoder),
        )


def find_text_encoder(
    recorded: str | Mapping[str, Any], given: str | TextEncoder | None = None, download: bool = False
) -> TextEncoder:
    """The text encoder that a model's ``config.json`` names.

    Args:
        recorded: ``bytes``, or its settings and the name of its spec.
        given: where it is to be found instead, or the encoder itself.
        download: fetch it from the hub where it is not cached.

    Raises:
        UserError: it is not here, or ``given`` is another.
    """
    settings = {"encoder": recorded} if isinstance(recorded, str) else dict(recorded)
    name = settings.pop("name", None)
    if given is not None and not isinstance(given, str):
        found = given
    elif settings["encoder"] == "bytes" and given not in (None, "bytes"):
        raise UserError(f"this model was trained with the bundled text encoder 'bytes', so it cannot take {given}")
    else:
        try:
            found = load_text_encoder(**settings | ({"encoder": given} if given else {}), download=download)
        except UserError as error:
            hint = "" if given else "; where it lies elsewhere, name it: --text-encoder (text_encoder= in Python)"
            raise UserError(f"the model's text encoder cannot be had: {error}{hint}") from error
    expected = name or ByteTextEncoder().spec.name
    if found.spec.name != expected:
        raise UserError(
            f"this model was trained with the text encoder {settings['encoder']} ({expected}); "
            f"{given if isinstance(given, str) else 'the one given'} has other weights, tokenizer or settings "
            f"({found.spec.name})"
        )
    return found


def refuse_other_text(folder: Path, encoder: TextEncoder) -> None:
    """Refuse to go on with a model folder whose model has seen the text of another encoder."""
    find_text_encoder(json.loads((folder / "config.json").read_text())["text_encoder"], encoder)


def _text_record(encoder: TextEncoder) -> str | dict[str, Any]:
    plain = encoder.settings == ByteTextEncoder().settings and encoder.spec == ByteTextEncoder().spec
    return "bytes" if plain else {**encoder.settings, "name": encoder.spec.name}


def write_layout(
    folder: Path,
    model: JointConfig,
    tokenizers: Mapping[str, Any],
    geometry: Geometry,
    sampling: SamplingConfig,
    text_level: str,
    dtype: torch.dtype | None = None,
    text_encoder: TextEncoder | None = None,
) -> None:
    """Everything of a pipeline folder but the transformer's weights; tokenizers keep their type, or get ``dtype``."""
    folder.mkdir(parents=True, exist_ok=True)
    made_for = [t.spec.modality for t in {id(t): t for t in tokenizers.values()}.values()]
    names: dict[int, str] = {}
    for modality, tokenizer in tokenizers.items():
        # One of video may serve video and image; where two do, each has a folder of its own.
        own = tokenizer.spec.modality
        name = names.setdefault(id(tokenizer), own if made_for.count(own) == 1 else modality)
        target = folder / "tokenizers" / name
        if not (target / "config.json").exists():
            tokenizer.save_pretrained(target, dtype=dtype)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "model": to_dict(model),
        "tokenizers": {m: f"tokenizers/{names[id(t)]}" for m, t in tokenizers.items()},
        "text_encoder": _text_record(text_encoder or ByteTextEncoder()),
        "text_level": text_level,
        "geometry": to_dict(geometry),
        "sampling": to_dict(sampling),
    }
    beside = folder / "config.json.tmp"
    beside.write_text(json.dumps(about, indent=1))
    os.replace(beside, folder / "config.json")


def _run_weights(run: Path) -> tuple[Path, Path | None]:
    """A run's ``model`` folder, and its newest checkpoint where there are no final weights yet."""
    if (run / "model" / "model.safetensors").exists():
        return run / "model", None
    return run / "model", latest_checkpoint(run / "checkpoints")


def _check_medium(modality: str, medium: Media, geometry: Geometry) -> None:
    """A picture of another size or rate would be laid over the wrong places and times."""
    if isinstance(medium, Audio):
        return  # its tokenizer refuses another rate, and its length shows in its tokens
    height, width = (medium.pixels.shape[:2]) if isinstance(medium, Image) else medium.frames.shape[1:3]
    if (height, width) != (geometry.height, geometry.width):
        raise UserError(
            f"the given {modality} is {width} x {height} pixels, the model's clips are "
            f"{geometry.width} x {geometry.height}; "
            "resize it (`selfflow-mm prepare` does)"
        )
    if isinstance(medium, Video) and abs(medium.fps - geometry.fps) > 1e-3:
        raise UserError(
            f"the given {modality} has {medium.fps:g} frames per second, the model's clips {geometry.fps:g}; "
            "`selfflow-mm prepare` brings it to another rate"
        )
