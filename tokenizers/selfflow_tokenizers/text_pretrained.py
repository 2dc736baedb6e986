"""Frozen text encoders of transformers: T5 and its kin, language models such as Qwen3, CLIP, SigLIP.

A text's tokens are hidden states of the encoder, one for each token of its own tokenizer. Texts of equal length are
computed together and no text is ever filled up, so no padding can leak into a result and position ids need no care.
(SigLIP is the exception: it was trained on texts filled up to 64 tokens and without a mask, so that is what it gets.)
Batches always have the same number of rows: then a text's values do not depend on what is encoded beside it, and
embeddings read from a cache are those that a fresh encoding would give.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from . import text_files
from ._audio_backend import ensure_torchaudio
from .errors import UserError
from .folder import weights_hash
from .grids import same_shape
from .spec import TokenizerSpec
from .stream import TokenStream
from .text import as_stream, check_texts

Precision = Literal["float32", "bfloat16", "float16"]
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Texts encoded at once where nobody says: a matrix of one text keeps a CPU busy, and not an accelerator.
_BATCH = {"cpu": 1, "other": 16}
#: Weights that a checkpoint may lack, because no hidden state depends on them.
_UNUSED = ("pooler", "lm_head", "head.", "text_projection", "logit_")


@dataclass(frozen=True)
class Family:
    """What is taken from encoders of one kind unless the caller says otherwise.

    Attributes:
        layers: hidden states, see :class:`PretrainedTextEncoder`.
        chat: texts are put into the tokenizer's chat template, where it has one.
        filled: texts are filled up to the longest that the model takes, and all tokens count.
        absolute: the model has a learned table of positions, which is the longest text it takes.
    """

    layers: tuple[int, ...] = (-1,)
    chat: bool = False
    filled: bool = False
    absolute: bool = False


FAMILIES: dict[str, Family] = {
    "encoder": Family(),  # T5, UMT5, ByT5, BERT: the last hidden states, as Wan, LTX-Video and Mochi take them
    "decoder": Family(layers=(-2,), chat=True),  # Qwen3, Mistral, Gemma: as Z-Image takes them
    "clip": Family(absolute=True),  # as Stable Diffusion 1 takes them
    "siglip": Family(filled=True, absolute=True),
}
#: Text towers of models of pictures and text, which the Auto classes do not know.
_TOWERS = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "siglip": "SiglipTextModel",
    "siglip_text_model": "SiglipTextModel",
    "siglip2": "Siglip2TextModel",
    "siglip2_text_model": "Siglip2TextModel",
}


class PretrainedTextEncoder:
    """An encoder of transformers with its tokenizer, frozen; the counterpart of :class:`ByteTextEncoder`.

    Args:
        model: the network, or a function of a floating-point type that loads it; then it is loaded when first needed.
        tokenizer: transformers' tokenizer of it.
        config: the network's config; needed where ``model`` is a function.
        max_tokens: a longer text is cut to so many tokens, fewer where the model takes fewer.
        layers: which hidden states, concatenated along channels. 0 is the embedding, k the output of block k, -1 the
            last hidden states (behind the final norm), -2 those of the block before, and so on. Empty: the family's.
        template: ``chat`` is the tokenizer's chat template with the text as the user's message and without thinking;
            other text has ``{}`` where the caption goes; empty takes the caption alone. None: the family's.
        skip: leave out so many tokens at the start, such as those of a template's opening; they come on top of
            ``max_tokens``.
        precision: of the computation on accelerators; on the CPU it is float32.
        rounding: values are rounded to this type, whether they come from the network or from a cache.
        batch: texts encoded at once; 0 is 1 on the CPU and 16 elsewhere. Fewer are filled up with copies, see the
            module's docstring.
        name: tells these weights and tokenizer from others; without one it is a hash of the weights.
        source: folder or hub id, as it is written into files.
        licence: of the weights.

    Attributes:
        spec: its name ends in a hash of the weights, the tokenizer and every setting that values depend on.

    Raises:
        UserError: a model that is no text encoder, or settings that do not fit it.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[torch.dtype], nn.Module],
        tokenizer: Any,
        *,
        config: Any = None,
        max_tokens: int = 256,
        layers: Sequence[int] = (),
        template: str | None = None,
        skip: int = 0,
        precision: Literal["float32", "bfloat16"] = "float32",
        rounding: Precision = "bfloat16",
        batch: int = 0,
        name: str = "",
        source: str = "",
        licence: str = "unknown",
    ) -> None:
        self._load = None if isinstance(model, nn.Module) else model
        self._model = model.eval().requires_grad_(False) if isinstance(model, nn.Module) else None
        network: Any = model
        self.config: Any = network.config if config is None else config
        self.tokenizer, self.source, self.licence = tokenizer, source, licence
        self.device, self.batch = torch.device("cpu"), batch
        self.precision, self.rounding = precision, rounding
        self.values_dtype = _type(rounding, "rounding")
        _type(precision, "precision")
        if max_tokens < 1 or skip < 0 or batch < 0:
            raise UserError(f"max_tokens is at least 1, skip and batch at least 0; got {max_tokens}, {skip}, {batch}")
        self.family = family_of(self.config)[0]
        takes = FAMILIES[self.family]
        about = _text_config(self.config)
        self.blocks: int = about.num_hidden_layers
        self.layers = _layers(tuple(layers) or takes.layers, self.blocks, str(self.config.model_type))
        self.template = self._template(template, takes)
        self.skip = skip
        self.max_tokens = self._limit(max_tokens, takes, about)
        tokenizer.truncation_side = "right"  # the end is cut, whatever a chat tokenizer prefers
        settings = {"layers": self.layers, "template": self.template, "skip": skip, "rounding": rounding}
        own = name or weights_hash(self.model)
        digest = hashlib.sha256(json.dumps([own, settings]).encode()).hexdigest()[:12]
        self.spec = TokenizerSpec(
            name=f"{self.config.model_type}-{digest}",
            modality="text",
            channels=about.hidden_size * len(self.layers),
            licence=licence,
        )
        self._ids("")  # an impossible template or skip shows here

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False, **settings: Any) -> Self:
        """An encoder of a folder or the hub's cache. Files are checked now, weights are read when first needed.

        Args:
            source: as for :func:`~selfflow_tokenizers.text_files.find_files`.
            download: fetch it from the hub where it is not cached. Nothing is fetched unless asked for.
            settings: of the constructor.

        Raises:
            UserError: nothing is there, files are missing or broken, it is no text encoder, it needs code of its
                repository or a package that is not installed.
        """
        files = text_files.find_files(source, download=download)
        ensure_torchaudio()
        from transformers import AutoConfig, AutoTokenizer

        try:
            with _quietly():
                config = AutoConfig.from_pretrained(files.weights, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(_unreadable(source, "config", error)) from error
        try:
            with _quietly():
                tokenizer = AutoTokenizer.from_pretrained(
                    files.tokenizer, config=config, local_files_only=True, trust_remote_code=False
                )
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
            raise UserError(_unreadable(source, "tokenizer", error)) from error

        def load(dtype: torch.dtype) -> nn.Module:
            return _load_model(files, config, dtype)

        where = str(files.root.resolve()) if Path(source).expanduser().is_dir() else str(source)
        settings = {"licence": text_files.licence(files), "source": where, **settings}
        return cls(load, tokenizer, config=config, name=text_files.fingerprint(files), **settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`load_text_encoder` makes the same encoder of, as JSON can hold it."""
        return {
            "encoder": self.source,
            "max_tokens": self.max_tokens,
            "layers": list(self.layers),
            "template": self.template,
            "skip": self.skip,
            "precision": self.precision,
            "rounding": self.rounding,
        }

    @property
    def model(self) -> nn.Module:
        """The network, loaded if it is not."""
        if self._model is None:
            assert self._load is not None
            dtype = torch.float32 if self.device.type == "cpu" else _TYPES[self.precision]
            network = self._load(dtype).eval().requires_grad_(False).to(self.device)
            # Out of the mapped file into memory of its own: a matrix product's last bits depend on how a matrix lies.
            for parameter in network.parameters():
                parameter.data = parameter.data.clone()
            self._model = network
        return self._model

    def to(self, device: torch.device | str) -> Self:
        """Compute there; values are given on the CPU all the same."""
        device = torch.device(device)
        if self._model is not None and device.type != self.device.type and self._load is not None:
            self._model = None  # the precision may be another: read again when needed
        self.device = device
        if self._model is not None:
            dtype = torch.float32 if device.type == "cpu" else _TYPES[self.precision]
            self._model.to(device, dtype)
        return self

    def unload(self) -> None:
        """Free the network; it is read again when next needed."""
        if self._load is not None:
            self._model = None

    def encode(self, texts: Sequence[str]) -> TokenStream:
        """Texts -> values ``(B, N, channels)``, positions ``(0, 0, 0, index)``; short rows end in padding.

        Raises:
            UserError: not a list of texts, or hidden states that are not finite or too large for ``rounding``.
        """
        check_texts(texts)
        different = list(dict.fromkeys(texts))
        ids = [self._ids(text) for text in different]
        values: dict[str, Tensor] = {}
        rows = self.batch or _BATCH["cpu" if self.device.type == "cpu" else "other"]
        for group in same_shape([(len(i),) for i in ids], rows):
            hidden = self._forward([ids[i] for i in group], rows)
            values |= {different[i]: row for i, row in zip(group, hidden, strict=True)}
        return as_stream([values[text] for text in texts])

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without computing any."""
        return [len(self._ids(text)) - self.skip for text in texts]

    @torch.no_grad()
    def _forward(self, ids: list[list[int]], rows: int) -> Tensor:
        """Ids of equal length, at most ``rows`` of them -> values float32 ``(len(ids), N, C)`` on the CPU."""
        model: Any = self.model
        filled = torch.tensor(ids + ids[:1] * (rows - len(ids)))
        known = model.get_input_embeddings().num_embeddings
        if int(filled.max()) >= known:
            raise UserError(
                f"the tokenizer gives token {int(filled.max())}, the model knows only {known}; are they a pair?"
            )
        filled = filled.to(self.device)
        options: dict[str, Any] = {"use_cache": False} if self.family == "decoder" else {}
        if not FAMILIES[self.family].filled:
            options["attention_mask"] = torch.ones_like(filled)
        inner = any(layer != self.blocks for layer in self.layers)
        output = model(input_ids=filled, output_hidden_states=inner, **options)
        chosen = [output.last_hidden_state if k == self.blocks else output.hidden_states[k] for k in self.layers]
        values = torch.cat(chosen, dim=-1)[: len(ids), self.skip :].to("cpu", self.values_dtype).float()
        if not bool(torch.isfinite(values).all()):
            raise UserError(
                f"hidden states of {self.source or 'the text encoder'} are not finite in {self.rounding}; "
                "take rounding bfloat16 or float32, or precision float32"
            )
        return values

    def _ids(self, text: str) -> list[int]:
        """The token ids of a text in its template, at least one more than are skipped."""
        text = text.encode("utf-8", errors="replace").decode("utf-8")  # half a surrogate pair is no character
        chat = self.template == "chat"
        if chat:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        elif self.template:
            text = self.template.replace("{}", text)
        filled = FAMILIES[self.family].filled
        ids = self.tokenizer(
            text,
            truncation=True,
            max_length=self.max_tokens + self.skip,
            padding="max_length" if filled else False,
            add_special_tokens=not chat,  # the template has them
        )["input_ids"]
        if not ids:  # a language model's tokenizer gives nothing for the empty text, and a text is a token at least
            special = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
            ids = [next((i for i in special if i is not None), 0)]
        if len(ids) <= self.skip:
            raise UserError(f"skip {self.skip} leaves nothing of a text of {len(ids)} tokens")
        return ids

    def _template(self, template: str | None, takes: Family) -> str:
        has_chat = bool(getattr(self.tokenizer, "chat_template", None))
        if template is None:
            return "chat" if takes.chat and has_chat else ""
        if template == "chat" and not has_chat:
            raise UserError(f"template is 'chat', and the tokenizer of {self.source} has no chat template")
        if template not in ("", "chat") and template.count("{}") != 1:
            raise UserError(f"a template is 'chat', or a text with one {{}} where the caption goes; got '{template}'")
        return template

    def _limit(self, wanted: int, takes: Family, about: Any) -> int:
        """The most tokens of a text, those skipped left out."""
        limits = [wanted + self.skip]
        if takes.absolute or self.config.model_type in ("bert", "distilbert", "roberta", "xlm-roberta", "albert"):
            limits += [about.max_position_embeddings, self.tokenizer.model_max_length]
        most = min(limits) - self.skip
        if takes.filled and most < about.max_position_embeddings:
            raise UserError(
                f"this {self.config.model_type} was trained on texts filled up to {about.max_position_embeddings} "
                f"tokens, so max_tokens is at least that; got {wanted}"
            )
        if most < 1:
            raise UserError(f"skip is {self.skip}, and the model takes {min(limits)} tokens at most")
        return most


def family_of(config: Any) -> tuple[str, str]:
    """The family of a model's config, and transformers' class that reads its text.

    Raises:
        UserError: it is no text encoder.
    """
    from transformers.models.auto import modeling_auto as auto

    if config.model_type in _TOWERS:
        return ("clip" if config.model_type.startswith("clip") else "siglip"), _TOWERS[config.model_type]
    kind = type(config)
    if kind in auto.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return "encoder", "AutoModelForTextEncoding"
    if config.is_encoder_decoder and kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return "encoder", "AutoModel"
    if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING or kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return "decoder", "AutoModel"
    raise UserError(
        f"a model of type '{config.model_type}' is no text encoder; T5, UMT5, ByT5, BERT, CLIP, SigLIP and language "
        "models such as Qwen3 are"
    )


def _load_model(files: text_files.TextFiles, config: Any, dtype: torch.dtype) -> nn.Module:
    import transformers

    cls = getattr(transformers, family_of(config)[1])
    try:
        with _quietly():
            model, info = cls.from_pretrained(
                files.weights,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(_unreadable(files.source, "weights", error)) from error
    missing = sorted(name for name in info["missing_keys"] if not any(part in name for part in _UNUSED))
    if missing:
        raise UserError(f"{files.source} lacks {len(missing)} of the encoder's weights, such as {missing[0]}")
    if config.is_encoder_decoder and hasattr(model, "decoder"):
        return model.get_encoder()
    return model


def _text_config(config: Any) -> Any:
    """The part of a config that has the text encoder's width and depth."""
    inner = getattr(config, "encoder", None) if config.is_encoder_decoder else None
    return inner if hasattr(inner, "hidden_size") else config.get_text_config()


def _layers(wanted: tuple[int, ...], blocks: int, kind: str) -> tuple[int, ...]:
    for k in wanted:
        if not -blocks - 1 <= k <= blocks:
            raise UserError(f"layers: this {kind} has layers 0 to {blocks} (or -1 to {-blocks - 1}), got {k}")
    return tuple(k % (blocks + 1) for k in wanted)


def _type(name: str, what: str) -> torch.dtype:
    if name not in _TYPES or (what == "precision" and name == "float16"):
        known = [n for n in _TYPES if what != "precision" or n != "float16"]
        raise UserError(f"{what} of a text encoder is {' or '.join(known)}, got '{name}'")
    return _TYPES[name]


def _unreadable(source: str | Path, part: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        reason = "it needs code of its own repository, which is never run; take a model that transformers has"
    return f"the {part} of the text encoder {source} cannot be read: {reason}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's bars and its warnings about decoder weights, which an encoder rightly leaves unused."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
