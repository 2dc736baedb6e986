"""REPA's feature function against the encoders of transformers called directly (tiny ones, random weights)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selfflow_mm.conditions import Conditions
from selfflow_mm.errors import UserError
from selfflow_mm.flow.objectives import Batch
from selfflow_mm.training import encoders
from selfflow_mm.training.encoders import Features, build_features, encoder_width, load_encoder, middle_frames
from selfflow_tokenizers import ByteTextEncoder, load_tokenizer
from selfflow_tokenizers._audio_backend import ensure_torchaudio

ensure_torchaudio()
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLUTIONS = {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random encoders, as ``save_pretrained`` of transformers writes them."""
    import transformers as tf

    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    vision = TINY | {"image_size": 32, "patch_size": 8}
    models = {
        "dinov2": tf.Dinov2Model(tf.Dinov2Config(**TINY, image_size=56, patch_size=14, mlp_ratio=2)),
        "registers": tf.Dinov2WithRegistersModel(
            tf.Dinov2WithRegistersConfig(**TINY, image_size=56, patch_size=14, num_register_tokens=3)
        ),
        "siglip-vision": tf.SiglipVisionModel(tf.SiglipVisionConfig(**vision)),
        "siglip": tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision)),
        "hubert": tf.HubertModel(tf.HubertConfig(**TINY, **CONVOLUTIONS)),
        "wav2vec2": tf.Wav2Vec2Model(tf.Wav2Vec2Config(**TINY, **CONVOLUTIONS, vocab_size=9)),
        "wide": tf.SiglipVisionModel(tf.SiglipVisionConfig(**vision | {"hidden_size": 24})),
        "spectrogram": tf.ASTModel(tf.ASTConfig(**TINY, max_length=32, num_mel_bins=32)),
        "clips": tf.VideoMAEModel(tf.VideoMAEConfig(**vision, num_frames=4)),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
    dino = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    (root / "dinov2/preprocessor_config.json").write_text(json.dumps(dino | {"resample": 3}))
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}, "resample": 2}
    (root / "siglip/preprocessor_config.json").write_text(json.dumps(half))
    (root / "hubert/preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000, "do_normalize": True}))
    return {p.name: p for p in root.iterdir()}


class Still:
    """A tokenizer whose latents are the picture itself: a token is a cell of 8 x 8 pixels of one grey."""

    def __init__(self, compression: int = 1) -> None:
        self.spec = type("Spec", (), {"time_compression": compression, "channels": 1})()

    def decode_batch(self, values: Tensor, rows: int, columns: int) -> Tensor:
        grid = values.view(len(values), -1, rows, columns)
        first, later = grid[:, :1], grid[:, 1:].repeat_interleave(self.spec.time_compression, dim=1)
        cells = torch.cat([first, later], dim=1).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        return cells.to(torch.uint8)[..., None].expand(*cells.shape, 3)


class Tone:
    """A tokenizer whose latents are 80 samples of sound at 16 kHz."""

    spec = type("Spec", (), {"sample_rate": 16000, "decoded_rate": 0})()

    def decode_batch(self, values: Tensor) -> Tensor:
        return values.flatten(1).unsqueeze(1)


def batch_of(modality: str, values: Tensor, positions: Tensor, given: bool = False) -> Batch:
    from selfflow_mm.tokens import TokenStream

    conditions = Conditions.named({"image": "t2i", "video": "v2a" if given else "t2v", "audio": "t2a"}[modality])
    streams = {modality: TokenStream.dense(values, positions)}
    if given:
        streams["audio"] = TokenStream.dense(torch.zeros(len(values), 2, 1), torch.zeros(2, 4))
    text = ByteTextEncoder().encode([""] * len(values))
    return Batch(streams, conditions, text, torch.arange(len(values)))


def grid_positions(latent: int, rows: int, columns: int) -> Tensor:
    axes = [torch.arange(n, dtype=torch.float32) for n in (latent, rows, columns, 1)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 4)


def resized(pixels: Tensor, mean: list[float], deviation: list[float], size: int, mode: str) -> Tensor:
    """Pictures uint8 (B, H, W, 3) as pixel values (B, 3, size, size), by PIL."""
    from PIL import Image

    how = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[mode]
    small = [np.asarray(Image.fromarray(p.numpy()).resize((size, size), how)) for p in pixels]
    x = (torch.from_numpy(np.stack(small)).float() / 255 - torch.tensor(mean)) / torch.tensor(deviation)
    return x.movedim(-1, 1)


def direct(folder: Path, pixel_values: Tensor) -> Tensor:
    """last_hidden_state of the encoder's own class."""
    import transformers as tf

    kind = getattr(tf, json.loads((folder / "config.json").read_text())["architectures"][0])
    model = kind.from_pretrained(folder).eval()
    model = model.vision_model if kind is tf.SiglipModel else model
    with torch.no_grad():
        return model(pixel_values=pixel_values).last_hidden_state


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("name", "prefix", "mean", "deviation", "size", "patch", "mode"),
    [
        ("dinov2", 1, *IMAGENET, 56, 14, "bicubic"),
        ("registers", 4, *IMAGENET, 56, 14, "bicubic"),
        ("siglip-vision", 0, *IMAGENET, 32, 8, "bicubic"),
        ("siglip", 0, [0.5] * 3, [0.5] * 3, 32, 8, "bilinear"),
    ],
)
def test_patches_are_those_of_the_model_called_directly(folders, name, prefix, mean, deviation, size, patch, mode):
    encoder = load_encoder(str(folders[name]))
    assert isinstance(encoder, encoders.PictureEncoder)
    # Soft contrasts, as PIL cuts a bicubic overshoot off between its two passes.
    pixels = torch.randint(60, 200, (3, 48, 80, 3), dtype=torch.uint8)
    got = encoder(pixels)
    side = size // patch
    assert got.shape == (3, side, side, 16) and encoder.size == (size, size)
    # PIL rounds to bytes after each of the two passes of a resize, ours keeps the fractions: about a level of 255.
    reference = resized(pixels, mean, deviation, size, mode)
    torch.testing.assert_close(encoder.prepare(pixels), reference, atol=1.1 / 255 / min(deviation), rtol=0)
    expected = direct(folders[name], encoder.prepare(pixels))
    assert expected.shape[1] == prefix + side * side
    torch.testing.assert_close(got.flatten(1, 2), expected[:, prefix:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["dinov2", "siglip"])
def test_features_lie_on_the_tokens_whose_place_they_show(folders, name):
    """One token of a grid of 4 x 4 is brighter; its own feature moves more than those far from it."""
    encoder = load_encoder(str(folders[name]))
    features = Features({"image": encoder}, {"image": Still()})
    positions = grid_positions(1, 4, 4)
    dark = torch.full((1, 16, 1), 60.0)
    base = features(batch_of("image", dark, positions))["image"]
    assert base.shape == (1, 16, 16)
    for place in (0, 3, 6, 12, 15):
        lit = dark.clone()
        lit[0, place] = 250.0
        moved = (features(batch_of("image", lit, positions))["image"] - base).norm(dim=-1)[0]
        assert int(moved.argmax()) == place


def test_halves_of_a_picture_give_features_of_their_own_side(folders):
    encoder = load_encoder(str(folders["siglip"]))
    values = torch.full((1, 4, 4), 40.0)
    values[:, :, 2:] = 220.0
    positions = grid_positions(1, 4, 4)
    got = Features({"image": encoder}, {"image": Still()})(batch_of("image", values.view(1, 16, 1), positions))
    grid = got["image"].view(4, 4, 16)
    across, along = (grid[:, 0] - grid[:, 3]).norm(), (grid[0] - grid[3]).norm()
    assert across > 2 * along
    # The encoder's grid is the tokens' here, so the features are the model's own, in the order of rows.
    pixels = Still().decode_batch(values.view(1, 16, 1), 4, 4)[:, 0]
    expected = direct(folders["siglip"], resized(pixels, [0.5] * 3, [0.5] * 3, 32, "bilinear"))
    torch.testing.assert_close(got["image"], expected, atol=1e-4, rtol=1e-4)


def test_other_token_grids_are_filled_bilinearly(folders):
    encoder = load_encoder(str(folders["siglip"]))
    values = 30 * torch.rand(2, 2 * 8, 1) + 100
    got = Features({"image": encoder}, {"image": Still()})(batch_of("image", values, grid_positions(1, 2, 8)))["image"]
    assert got.shape == (2, 16, 16)
    grid = encoder(Still().decode_batch(values, 2, 8)[:, 0])  # (2, 4, 4, 16)
    # 4 rows to 2: pairs weighed (1, 3, 3, 1) / 8 with the edges renormalised; 4 columns to 8: quarters between centres.
    rows = torch.stack(
        [(3 * grid[:, 0] + 3 * grid[:, 1] + grid[:, 2]) / 7, (grid[:, 1] + 3 * grid[:, 2] + 3 * grid[:, 3]) / 7], dim=1
    )
    at = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3)
    low = at.long()
    share = (at - low)[:, None]
    expected = rows[:, :, low] * (1 - share) + rows[:, :, (low + 1).clamp(max=3)] * share
    torch.testing.assert_close(got, expected.flatten(1, 2), atol=1e-5, rtol=1e-5)


def test_each_latent_frame_has_the_features_of_a_frame_of_its_time(folders):
    assert middle_frames(3, 4) == [0, 3, 7]  # frames 1..4 and 5..8 follow the first
    assert middle_frames(3, 1) == [0, 1, 2]
    encoder = load_encoder(str(folders["siglip"]))
    values = torch.randint(0, 255, (2, 3 * 16, 1)).float()
    video = Features({"video": encoder}, {"video": Still(4)})(batch_of("video", values, grid_positions(3, 4, 4)))
    image = Features({"image": encoder}, {"image": Still()})
    for j in range(3):
        still = image(batch_of("image", values[:, 16 * j : 16 * (j + 1)], grid_positions(1, 4, 4)))["image"]
        torch.testing.assert_close(video["video"][:, 16 * j : 16 * (j + 1)], still)


@pytest.mark.parametrize("name", ["hubert", "wav2vec2"])
def test_sound_features_are_the_models_own_at_the_times_of_its_frames(folders, name):
    import transformers as tf

    encoder = load_encoder(str(folders[name]))
    assert isinstance(encoder, encoders.SoundEncoder)
    # Strides 5, 4, 2 make a hop of 40 samples; kernels 10, 3, 2 see 10 + 2 * 5 + 1 * 20 = 40.
    assert (encoder.hop, encoder.field, encoder.rate) == (40, 40, 16000)
    values = 0.3 * torch.randn(2, 12, 80).cumsum(-1).div(20)
    tokens = torch.zeros(12, 4)
    tokens[:, 0] = (torch.arange(12) + 0.5) * 80 / 16000  # centres of the tokens
    got = Features({"audio": encoder}, {"audio": Tone()})(batch_of("audio", values, tokens))["audio"]
    wave = values.flatten(1)
    normalised = tf.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True)(
        list(wave.numpy()), sampling_rate=16000, return_tensors="pt"
    )
    model = getattr(tf, {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model"}[name]).from_pretrained(folders[name])
    with torch.no_grad():
        hidden = model.eval()(**normalised).last_hidden_state
    assert hidden.shape[1] == 24
    # A token of 80 samples is two frames long; its centre lies half-way between their centres.
    torch.testing.assert_close(got, (hidden[:, 0::2] + hidden[:, 1::2]) / 2, atol=1e-4, rtol=1e-4)


def test_sound_of_another_rate_is_brought_to_the_encoders(folders):
    encoder = load_encoder(str(folders["hubert"]))
    seconds = torch.arange(48000) / 48000
    tone = torch.sin(2 * torch.pi * 440 * seconds)
    high = encoder.prepare(tone.expand(1, 2, -1), 48000)
    low = encoder.prepare(tone[None, None, ::3], 16000)
    torch.testing.assert_close(high[:, 200:-200], low[:, 200:-200], atol=0.02, rtol=0)


def test_encoders_are_frozen_and_deterministic_behind_real_tokenizers(folders, small_tokenizers):
    video, audio = load_tokenizer(small_tokenizers["video"]), load_tokenizer(small_tokenizers["audio"])
    sources = {"image": str(folders["siglip"]), "video": str(folders["siglip"]), "audio": str(folders["hubert"])}
    features = build_features(sources, {"image": video, "video": video, "audio": audio})
    assert features.width == 16 == encoder_width(sources)
    assert features.encoders["image"] is features.encoders["video"]
    for encoder in features.encoders.values():
        assert not encoder.model.training and not any(p.requires_grad for p in encoder.model.parameters())
    values = torch.randn(2, 3 * 4, video.spec.channels)
    batch = batch_of("video", values, video.positions(9, 32, 32, 16.0))
    first, again = features(batch)["video"], features(batch)["video"]
    assert first.shape == (2, 12, 16) and torch.equal(first, again) and not first.requires_grad
    assert torch.isfinite(first).all()
    assert features.to("cpu") is features


def test_a_given_video_is_not_encoded(folders):
    features = Features({"video": load_encoder(str(folders["siglip"]))}, {"video": Still(4)})
    values = torch.zeros(1, 3 * 16, 1)
    assert features(batch_of("video", values, grid_positions(3, 4, 4), given=True)) == {}


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ({"video": "facebook/dinov2-base"}, "neither a folder nor in the Hugging Face cache.*hf download"),
        ({"video": "{tmp}"}, "no folder of a model that transformers knows"),
        ({"smell": "{siglip}"}, "which has no tokenizer"),
        ({"video": "{siglip}", "image": "{wide}"}, "features of one width, got video 16, image 24"),
        ({"audio": "{siglip}"}, "audio: .* is an encoder of pictures"),
        ({"video": "{hubert}"}, "video: .* is an encoder of sound"),
        ({"audio": "{spectrogram}"}, "neither pictures nor raw sound"),
        ({"video": "{clips}"}, "encodes whole clips"),
    ],
)
def test_encoders_that_will_not_do_are_refused_in_a_sentence(folders, tmp_path, sources, sentence):
    sources = {m: s.format(tmp=tmp_path, **{k: str(v) for k, v in folders.items()}) for m, s in sources.items()}
    tokenizers = dict.fromkeys(["image", "video", "audio"])
    with pytest.raises(UserError, match=sentence) as caught:
        build_features(sources, tokenizers)
    assert "\n" not in str(caught.value)


def test_an_encoder_that_lacks_weights_is_refused(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "siglip"
    folder.mkdir()
    (folder / "config.json").write_text((folders["siglip-vision"] / "config.json").read_text())
    weights = load_file(folders["siglip-vision"] / "model.safetensors")
    gone = next(name for name in weights if "layers.1.mlp" in name)
    save_file({k: v for k, v in weights.items() if k != gone}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 of the encoder's weights"):
        load_encoder(str(folder))
