"""Text encoders of transformers: the library's classes called as their users call them, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from selfflow_tokenizers import UserError
from selfflow_tokenizers.text import load_text_encoder
from selfflow_tokenizers.text_pretrained import FAMILIES, PretrainedTextEncoder

from . import texts
from .texts import TEXTS


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only wait for each other in networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {name: make(root / name) for name, make in texts.MAKERS.items()}


def load(folder: Path, **options: Any) -> PretrainedTextEncoder:
    return PretrainedTextEncoder.from_pretrained(folder, **({"rounding": "float32"} | options))


def rows(encoder: PretrainedTextEncoder, captions: list[str]) -> list[torch.Tensor]:
    stream = encoder.encode(captions)
    return [value[valid] for value, valid in zip(stream.values, stream.valid, strict=True)]


@torch.no_grad()
def directly(
    cls: Any, folder: Path, captions: list[str], side: str = "right", mask: bool = True, **options: Any
) -> Any:
    """The library's class and tokenizer on a batch filled up on one side: its output, and which tokens are real."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = tokenizer(captions, return_tensors="pt", **({"padding": True} | options))
    given = {"attention_mask": batch["attention_mask"]} if mask else {}
    model = cls.from_pretrained(folder).eval()
    return model(input_ids=batch["input_ids"], output_hidden_states=True, **given), batch["attention_mask"].bool()


def assert_rows(got: list[torch.Tensor], values: torch.Tensor, real: torch.Tensor) -> None:
    for row, value, valid in zip(got, values, real, strict=True):
        torch.testing.assert_close(row, value[valid], rtol=1e-4, atol=1e-5)
        assert row.abs().mean() > 0.01


def test_t5_is_the_encoders_last_hidden_states_without_the_padding(folders):
    from transformers import T5EncoderModel

    output, real = directly(T5EncoderModel, folders["t5"], TEXTS)
    assert_rows(rows(load(folders["t5"]), TEXTS), output.last_hidden_state, real)
    assert real.sum(1).tolist() == [7, 3, 1, 4, 5, 3]  # words and the end token


def test_byt5_takes_the_bytes_of_any_text(folders):
    from transformers import T5EncoderModel

    encoder = load(folders["byt5"])
    assert encoder.count(["ü", "日本", "🎈", ""]) == [3, 7, 5, 1]  # bytes and the end token
    output, real = directly(T5EncoderModel, folders["byt5"], TEXTS)
    assert_rows(rows(encoder, TEXTS), output.last_hidden_state, real)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_language_model_gives_what_it_gives_padded_on_either_side(folders, side):
    from transformers import Qwen3Model

    captions = [text for text in TEXTS if text]  # the library's tokenizer makes nothing of the empty text
    output, real = directly(Qwen3Model, folders["qwen3"], captions, side)
    for k in range(5):
        expected = output.last_hidden_state if k == 4 else output.hidden_states[k]
        assert_rows(rows(load(folders["qwen3"], layers=[k], template=""), captions), expected, real)


def test_several_layers_are_concatenated_along_channels_as_flux2_does(folders):
    """FLUX.2 [klein]: hidden states of three layers of the chat, stacked and moved behind the width of each."""
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folders["qwen3"])
    messages = [{"role": "user", "content": TEXTS[0]}]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    output, _ = directly(Qwen3ForCausalLM, folders["qwen3"], [chat])
    stacked = torch.stack([output.hidden_states[k] for k in (1, 2, 3)], dim=1)
    expected = stacked.permute(0, 2, 1, 3).reshape(1, stacked.shape[2], 3 * stacked.shape[3])
    encoder = load(folders["qwen3"], layers=[1, 2, 3])
    assert encoder.template == "chat" and encoder.spec.channels == 48
    torch.testing.assert_close(encoder.encode(TEXTS[:1]).values, expected, rtol=1e-4, atol=1e-5)


def test_clip_is_its_text_tower_and_the_padding_behind_it_does_not_matter(folders):
    """Stable Diffusion fills up to the model's length without a mask; CLIP is causal, so real tokens stay the same."""
    from transformers import CLIPTextModel

    output, real = directly(CLIPTextModel, folders["clip"], TEXTS, mask=False, padding="max_length")
    assert_rows(rows(load(folders["clip"]), TEXTS), output.last_hidden_state, real)
    assert_rows(rows(load(folders["clip"], layers=[-2]), TEXTS), output.hidden_states[-2], real)  # as SDXL


def test_siglip_is_filled_up_and_unmasked_as_it_was_trained(folders):
    from transformers import SiglipTextModel

    output, _ = directly(SiglipTextModel, folders["siglip"], TEXTS, mask=False, padding="max_length")
    stream = load(folders["siglip"]).encode(TEXTS)
    assert bool(stream.valid.all()) and stream.full
    torch.testing.assert_close(stream.values, output.last_hidden_state, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="trained on texts filled up to 8 tokens.*got 5"):
        load(folders["siglip"], max_tokens=5)


@pytest.mark.parametrize("name", texts.MAKERS)
@pytest.mark.parametrize("batch", [0, 4])
def test_a_text_has_the_same_bits_alone_and_in_company(folders, name, batch):
    encoder = load(folders[name], batch=batch, rounding="bfloat16")
    together = rows(encoder, TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        assert torch.equal(rows(encoder, [text])[0], row)
    assert torch.equal(together[1], together[5])  # the same text twice
    apart = load(folders[name], batch=3, rounding="float32")
    for a, b in zip(rows(apart, TEXTS), rows(load(folders[name]), TEXTS), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", texts.MAKERS)
def test_every_text_is_a_token_at_least_and_positions_count(folders, name):
    encoder = load(folders[name])
    stream = encoder.encode(["", "a red ball"])
    assert encoder.count(["", "a red ball"]) == stream.valid.sum(1).tolist()
    assert stream.valid[:, 0].all() and stream.values.shape[-1] == encoder.spec.channels
    real = stream.positions[1][stream.valid[1]]
    assert real.tolist() == [[0, 0, 0, i] for i in range(len(real))]
    assert stream.sample.unique().tolist() in ([-1, 0], [0])
    assert not any(p.requires_grad for p in encoder.model.parameters()) and not encoder.model.training


def test_a_language_model_without_template_gives_its_end_token_for_the_empty_text(folders):
    from transformers import Qwen3Model

    encoder = load(folders["qwen3"], template="", layers=[-1])
    model = Qwen3Model.from_pretrained(folders["qwen3"]).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[encoder.tokenizer.eos_token_id]])).last_hidden_state
    torch.testing.assert_close(encoder.encode([""]).values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "most"), [("t5", 4), ("byt5", 4), ("clip", 4), ("qwen3", 4)])
def test_long_texts_are_cut_and_end_as_the_tokenizer_ends_them(folders, name, most):
    encoder = load(folders[name], max_tokens=most, template="")
    long = " ".join(texts.WORDS)
    assert encoder.count([long, "a"]) == [most, encoder.count(["a"])[0]]
    assert encoder.encode([long]).values.shape[1] == most
    end = encoder.tokenizer.eos_token_id
    assert (encoder._ids(long)[-1] == end) == (name != "qwen3")  # whose tokenizer adds none
    # Never more than the model has positions for, whatever is asked.
    assert load(folders["clip"], max_tokens=10_000).max_tokens == 10


def test_templates_hold_the_caption_and_their_opening_can_be_skipped(folders):
    encoder = load(folders["qwen3"], template="user a {} assistant", skip=2, max_tokens=4)
    assert encoder.count(["red ball"]) == [3] and encoder.count(["red ball falls on metal"]) == [4]
    whole = load(folders["qwen3"], template="user a {} assistant")
    torch.testing.assert_close(encoder.encode(["red ball"]).values, whole.encode(["red ball"]).values[:, 2:])
    with pytest.raises(UserError, match="where the caption goes"):
        load(folders["qwen3"], template="no place")
    with pytest.raises(UserError, match="has no chat template"):
        load(folders["t5"], template="chat")
    with pytest.raises(UserError, match="skip 2 leaves nothing"):
        load(folders["t5"], skip=2)


def test_braces_in_captions_are_not_places(folders):
    encoder = load(folders["qwen3"], template="a {} ball")
    assert encoder.count(["{} {0} {x}"]) == [5]


@settings(max_examples=15)
@given(st.text(max_size=30))
def test_any_text_can_be_encoded(byt5_encoder, text):
    stream = byt5_encoder.encode([text])
    assert stream.values.shape[1] == min(len(text.encode("utf-8", "replace")) + 1, 256)
    assert bool(torch.isfinite(stream.values).all())


@pytest.fixture(scope="module")
def byt5_encoder(folders) -> PretrainedTextEncoder:
    return load(folders["byt5"])


def test_half_a_surrogate_pair_is_a_question_mark(byt5_encoder):
    assert torch.equal(byt5_encoder.encode(["a \ud800"]).values, byt5_encoder.encode(["a ?"]).values)


def test_values_are_exact_in_the_type_they_are_rounded_to(folders):
    exact = load(folders["t5"]).encode(TEXTS).values
    for name, error in (("bfloat16", 2**-8), ("float16", 2**-10)):
        rounded = load(folders["t5"], rounding=name).encode(TEXTS).values
        assert rounded.dtype == torch.float32
        assert torch.equal(rounded, rounded.to(getattr(torch, name)).float())
        assert 0 < float(((rounded - exact).abs() / exact.abs().clamp_min(1e-6)).max()) < error


def test_hidden_states_too_large_for_float16_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["qwen3"], tmp_path / "large")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder, layers=[0], rounding="bfloat16").encode(["a ball"]).values.abs().max() > 1e5
    with pytest.raises(UserError, match="not finite in float16; take rounding bfloat16"):
        load(folder, layers=[0], rounding="float16").encode(["a ball"])


def test_an_encoder_in_memory_is_the_one_on_disk(folders):
    from transformers import AutoTokenizer, T5EncoderModel

    model, tokenizer = T5EncoderModel.from_pretrained(folders["t5"]), AutoTokenizer.from_pretrained(folders["t5"])
    encoder = PretrainedTextEncoder(model, tokenizer, rounding="float32")
    torch.testing.assert_close(encoder.encode(TEXTS).values, load(folders["t5"]).encode(TEXTS).values)
    assert encoder.spec.name == PretrainedTextEncoder(model, tokenizer, rounding="float32").spec.name


def test_weights_are_read_when_first_needed_and_can_be_freed(folders):
    encoder = load(folders["t5"])
    assert encoder._model is None and encoder.spec.channels == 16
    first = encoder.encode(["a ball"]).values
    assert encoder._model is not None
    encoder.unload()
    assert encoder._model is None
    assert torch.equal(encoder.encode(["a ball"]).values, first)


def test_the_name_tells_weights_tokenizer_and_settings_apart(folders, tmp_path):
    folder = folders["t5"]
    name = load(folder).spec.name
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load(copy).spec.name == name  # not where it lies
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0.0"}))
    assert load(copy).spec.name == name  # nor who wrote it
    names = {name, load(folder, layers=[1]).spec.name, load(folder, template="a {}").spec.name}
    names |= {load(folder, rounding="bfloat16").spec.name}
    weights = load_file(copy / "model.safetensors")
    last = sorted(weights)[-1]
    weights[last].view(-1)[-1] += 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    names |= {load(copy).spec.name}
    other = shutil.copytree(folder, tmp_path / "other")
    vocabulary = other / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace("rubber", "leather"))
    names |= {load(other).spec.name}
    assert len(names) == 6


def test_weights_in_several_files_are_the_same_encoder(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "sharded")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({n: weights[n] for n in held}, folder / file, metadata={"format": "pt"})
    where = {n: file for file, held in parts.items() for n in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert load(folder).spec.name == load(folders["t5"]).spec.name
    assert torch.equal(load(folder).encode(TEXTS).values, load(folders["t5"]).encode(TEXTS).values)
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match="lacks b.safetensors"):
        load(folder)


def test_the_encoder_of_a_pipeline_is_found_in_its_folders(folders, tmp_path):
    root = tmp_path / "pipeline"
    shutil.copytree(folders["t5"], root / "text_encoder", ignore=shutil.ignore_patterns("*token*"))
    (root / "tokenizer").mkdir()
    for file in folders["t5"].glob("*token*"):
        shutil.copy(file, root / "tokenizer")
    (root / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: none of it\n")
    encoder = load(root)
    assert torch.equal(encoder.encode(TEXTS).values, load(folders["t5"]).encode(TEXTS).values)
    assert encoder.spec.licence == "apache-2.0" and load(folders["t5"]).spec.licence == "unknown"


def test_what_is_missing_is_said_in_a_sentence_with_the_command(folders, tmp_path):
    with pytest.raises(UserError, match="hf download nobody/nothing --local-dir nothing"):
        load(Path("nobody/nothing"))
    with pytest.raises(UserError, match="no folder '/nowhere/t5'"):
        load(Path("/nowhere/t5"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither config.json nor text_encoder/config.json"):
        load(tmp_path / "empty")
    folder = shutil.copytree(folders["t5"], tmp_path / "t5", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(UserError, match="weights but no tokenizer"):  # transformers would make up an empty one
        load(folder)
    folder = shutil.copytree(folders["t5"], tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="lacks model.safetensors; pytorch_model.bin is pickled"):
        load(folder)


def test_a_file_cut_short_is_found_before_it_is_read(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(UserError, match=f"has {len(data) - 100:,} bytes and should have {len(data):,}"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 not safetensors at all")
    with pytest.raises(UserError, match="no safetensors file"):
        load(folder)


def test_a_sentencepiece_vocabulary_asks_for_its_package(folders, tmp_path, monkeypatch):
    from selfflow_tokenizers import text_files

    folder = shutil.copytree(folders["siglip"], tmp_path / "sp", ignore=shutil.ignore_patterns("tokenizer.json"))
    (folder / "spiece.model").write_bytes(b"\n\x0e")
    monkeypatch.setattr(text_files, "_installed", lambda module: module != "sentencepiece")
    with pytest.raises(UserError, match="pip install sentencepiece "):
        load(folder)


def test_weights_that_lack_part_of_the_encoder_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "partly")
    weights = load_file(folder / "model.safetensors")
    weights = {k: v for k, v in weights.items() if "encoder.block.1" not in k}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks .* of the encoder's weights, such as encoder.block.1"):
        load(folder).encode(["a"])


def test_models_that_are_no_text_encoders_and_remote_code_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "vit")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 8}))
    with pytest.raises(UserError, match="of type 'vit' is no text encoder"):
        load(folder)
    remote = {"model_type": "of-its-own", "auto_map": {"AutoConfig": "c.C", "AutoModel": "m.M"}}
    (folder / "config.json").write_text(json.dumps(remote))
    with pytest.raises(UserError, match="needs code of its own repository, which is never run"):
        load(folder)


def test_a_tokenizer_of_another_model_is_noticed(folders, tmp_path):
    folder = shutil.copytree(folders["clip"], tmp_path / "mixed", ignore=shutil.ignore_patterns("tokenizer*"))
    for file in folders["t5"].glob("tokenizer*"):
        text = file.read_text().replace('"red": 5', '"red": 500')
        (folder / file.name).write_text(text)
    with pytest.raises(UserError, match="gives token 500, the model knows only 32"):
        load(folder).encode(["a red ball"])


def test_settings_that_do_not_fit_are_refused(folders):
    for options, message in (
        ({"layers": [3]}, "layers 0 to 2 .*got 3"),
        ({"rounding": "int8"}, "rounding of a text encoder is"),
        ({"precision": "float16"}, "precision of a text encoder is float32 or bfloat16"),
        ({"max_tokens": 0}, "max_tokens is at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            load(folders["t5"], **options)
    with pytest.raises(UserError, match="'bytes' has no layers"):
        load_text_encoder("bytes", layers=[1])
    for wrong in ("a red ball", ["a", 3]):
        with pytest.raises(UserError, match="text encoder takes"):
            load(folders["t5"]).encode(wrong)


def test_settings_make_the_same_encoder_again(folders):
    encoder = load(folders["qwen3"], layers=[1, -2], template="a {} ball", skip=1, max_tokens=9, rounding="float16")
    again = load_text_encoder(**json.loads(json.dumps(encoder.settings)))
    assert again.spec == encoder.spec and again.max_tokens == 9
    assert torch.equal(again.encode(TEXTS).values, encoder.encode(TEXTS).values)
    assert load_text_encoder("bytes", max_tokens=5).settings == {"encoder": "bytes", "max_tokens": 5}


def test_every_family_is_tested_here(folders):
    assert {load(folder).family for folder in folders.values()} == set(FAMILIES)
