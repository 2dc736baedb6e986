"""Small random text encoders of transformers' real classes, with tokenizers built here, saved as the hub has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from selfflow_tokenizers import ensure_torchaudio

ensure_torchaudio()  # before anything of transformers

WORDS = (
    "a red blue green ball cube falls rolls bounces on metal wood rubber and rings loudly twice user assistant".split()
)
#: Of the tests' captions: shorter, longer, empty, repeated, and with words outside the vocabulary.
TEXTS = ["a red ball falls on metal", "a cube", "", "a red ball", "日本 ball ünïcode 🎈", "a cube"]
CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant"


def word_tokenizer(*, before: Sequence[str] = (), after: Sequence[str] = ("</s>",), **options: Any) -> Any:
    """A tokenizer of whole words with special tokens around a text."""
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<pad>", "</s>", "<unk>", "<s>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if before or after:
        inner.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after], special_tokens=[(s, vocabulary[s]) for s in (*before, *after)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", **options)


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """A folder as the hub has them; the model is float32 with numbers large enough to matter."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    """The whole of T5, as the hub has it; its encoder is what we take."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(1)
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=32)
    return save(folder, T5ForConditionalGeneration(config), word_tokenizer(pad_token="<pad>"))


def byt5(folder: Path) -> Path:
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    torch.manual_seed(2)
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=384)
    return save(folder, T5EncoderModel(config), ByT5Tokenizer())


def qwen3(folder: Path, *, chat: bool = True) -> Path:
    """A language model whose tokenizer has neither a padding token nor any that it adds."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    config = Qwen3Config(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, vocab_size=32,
    )  # fmt: skip
    options = {"chat_template": CHAT} if chat else {}
    return save(folder, Qwen3ForCausalLM(config), word_tokenizer(after=(), **options))


def clip(folder: Path) -> Path:
    """The whole of CLIP, towers of pictures and of text."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(4)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **sizes, vocab_size=32, max_position_embeddings=10, projection_dim=8, bos_token_id=3, eos_token_id=1
    )
    vision = CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=8)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    tokenizer = word_tokenizer(before=("<s>",), bos_token="<s>", pad_token="</s>", model_max_length=10)
    return save(folder, CLIPModel(config), tokenizer)


def siglip(folder: Path) -> Path:
    from transformers import SiglipTextConfig, SiglipTextModel

    torch.manual_seed(5)
    config = SiglipTextConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=32,
        max_position_embeddings=8, projection_size=16, bos_token_id=3, eos_token_id=1,
    )  # fmt: skip
    return save(folder, SiglipTextModel(config), word_tokenizer(pad_token="<pad>", model_max_length=8))


MAKERS = {"t5": t5, "byt5": byt5, "qwen3": qwen3, "clip": clip, "siglip": siglip}
