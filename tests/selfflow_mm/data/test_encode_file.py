"""Files to tokens and back: what the Python API gives, in a file that any safetensors reader opens."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfflow_mm.data.decode_file import decode_file
from selfflow_mm.data.encode_file import NamedTokenizer, encode_file
from selfflow_mm.data.encoded import EncodedFile, EncodedWriter
from selfflow_mm.data.reading import read_media
from selfflow_mm.data.resampling import mix_channels, resample
from selfflow_mm.data.writing import encode_wav, write_audio, write_image, write_video
from selfflow_mm.errors import UserError
from selfflow_tokenizers import Audio, Image, TokenStream, Video, load_tokenizer
from selfflow_tokenizers.stream import Extent


@pytest.fixture(scope="module")
def picture(small_tokenizers: dict[str, str]) -> NamedTokenizer:
    return NamedTokenizer(small_tokenizers["video"], load_tokenizer(small_tokenizers["video"]))


@pytest.fixture(scope="module")
def sound(small_tokenizers: dict[str, str]) -> NamedTokenizer:
    return NamedTokenizer(small_tokenizers["audio"], load_tokenizer(small_tokenizers["audio"]))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """19 frames of 22 x 36 with mono sound at 8 kHz: nothing fits whole tokens."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (19, 22, 36, 3), generator=generator, dtype=torch.uint8)
    wave = 0.2 * torch.randn(1, 19_000, generator=generator).clamp(-3, 3)
    write_video(tmp_path / "clip.mp4", Video(frames, 8.0), Audio(wave, 8000))
    return tmp_path / "clip.mp4"


def test_tokens_are_those_of_the_python_api(clip: Path, picture: NamedTokenizer, sound: NamedTokenizer) -> None:
    target = clip.with_suffix(".safetensors")
    encoded = encode_file(clip, target, picture=picture, sound=sound)
    whole = read_media(clip)
    heard = mix_channels(resample(whole.audio, 16_000), 2)
    file = EncodedFile(target)
    for medium, named, truth in (("video", picture, whole.video), ("audio", sound, heard)):
        expected = named.tokenizer.encode([truth])
        found = file.stream(medium)
        torch.testing.assert_close(found.values, expected.values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.positions, expected.positions)
        assert found.extents == expected.extents
        assert file.tracks[medium].spec == named.tokenizer.spec
    assert any(note.startswith("resampled") for note in encoded.notes)
    assert any(note.startswith("mixed") for note in encoded.notes)
    tensors = load_file(target)
    assert sorted(tensors) == ["audio.positions", "audio.values", "video.positions", "video.values"]
    assert tensors["video.values"].shape == (6 * 2 * 3, 12)


def test_decoding_gives_what_the_tokenizer_gives(
    clip: Path, picture: NamedTokenizer, sound: NamedTokenizer, tmp_path: Path
) -> None:
    target = clip.with_suffix(".safetensors")
    encode_file(clip, target, picture=picture, sound=sound)
    file = EncodedFile(target)
    tokenizers = {"video": picture.tokenizer, "audio": sound.tokenizer}
    decode_file(file, tmp_path / "back.mp4", tokenizers)
    (video,) = picture.tokenizer.decode(file.stream("video"))
    (heard,) = sound.tokenizer.decode(file.stream("audio"))
    write_video(tmp_path / "truth.mp4", video, heard)
    back, truth = read_media(tmp_path / "back.mp4"), read_media(tmp_path / "truth.mp4")
    assert back.video.frames.shape == (19, 22, 36, 3) and back.video.fps == 8.0
    assert (back.video.frames.int() - truth.video.frames.int()).abs().max() <= 2  # a rounded level may move a block
    assert back.audio.waveform.shape == truth.audio.waveform.shape
    torch.testing.assert_close(back.audio.waveform, truth.audio.waveform, atol=1e-3, rtol=0)
    decode_file(file, tmp_path / "back.wav", tokenizers)
    assert (tmp_path / "back.wav").read_bytes() == encode_wav(heard)


def test_pieces_of_a_file_are_whole_latent_frames(
    clip: Path, picture: NamedTokenizer, sound: NamedTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = clip.with_suffix(".safetensors")
    encode_file(clip, target, picture=picture, sound=sound)
    file = EncodedFile(target)
    monkeypatch.setattr("selfflow_mm.data.encoded._PIXELS", 2 * 4 * 32 * 48)  # two latent frames
    pieces = list(file.pieces("video"))
    assert [p.values.shape[1] for p in pieces] == [12, 12, 12]
    assert [p.extents[0].frames for p in pieces] == [5, 8, 6]
    assert sum(p.extents[0].samples for p in file.pieces("audio")) == file.tracks["audio"].extent.samples == 38_000


def test_an_image_and_resizing(tmp_path: Path, picture: NamedTokenizer) -> None:
    image = Image(torch.randint(0, 256, (23, 46, 3), dtype=torch.uint8))
    write_image(tmp_path / "photo.png", image)
    target = tmp_path / "photo.safetensors"
    encode_file(tmp_path / "photo.png", target, picture=picture)
    file = EncodedFile(target)
    torch.testing.assert_close(file.stream("image").values, picture.tokenizer.encode([image]).values)
    decode_file(file, tmp_path / "back.png", {"image": picture.tokenizer})
    (truth,) = picture.tokenizer.decode(picture.tokenizer.encode([image]))
    assert torch.equal(read_media(tmp_path / "back.png").image.pixels, truth.pixels)
    for size, expected in (("32", (32, 64)), ("16x48", (16, 48))):
        encode_file(tmp_path / "photo.png", target, picture=picture, size=size)
        extent = EncodedFile(target).tracks["image"].extent
        assert (extent.height, extent.width) == expected


def test_a_film_is_resized_upright(clip: Path, picture: NamedTokenizer) -> None:
    target = clip.with_suffix(".safetensors")
    encode_file(clip, target, picture=picture, size="16")
    extent = EncodedFile(target).tracks["video"].extent
    assert (extent.frames, extent.height, extent.width) == (19, 16, 26)


@pytest.mark.parametrize("latents", [10, 59])
def test_a_film_has_as_much_sound_as_picture(
    tmp_path: Path, picture: NamedTokenizer, sound: NamedTokenizer, clip: Path, latents: int
) -> None:
    """A sound track of other length is cut, or followed by silence."""
    target = clip.with_suffix(".safetensors")
    encode_file(clip, target, picture=picture, sound=sound)
    extent = Extent(samples=latents * 640)
    with EncodedWriter(tmp_path / "cut.safetensors") as writer:
        file = EncodedFile(target)
        longer = torch.cat([file.stream("audio").values] * 2, dim=1)[:, :latents]
        writer.add("video", file.stream("video"))
        writer.add("audio", TokenStream.dense(longer, torch.zeros(latents, 4)))
        audio = replace(file.tracks["audio"], extent=extent, tokens=latents)
        writer.close({"video": file.tracks["video"], "audio": audio}, {})
    cut = EncodedFile(tmp_path / "cut.safetensors")
    decode_file(cut, tmp_path / "cut.mp4", {"video": picture.tokenizer, "audio": sound.tokenizer})
    assert read_media(tmp_path / "cut.mp4").audio.waveform.shape == (2, 38_000)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [("nan", "NaN"), ("text", "not a media file"), ("silent film", "no sound"), ("no tokenizer", "name a tokenizer")],
)
def test_bad_input_is_refused_and_nothing_is_left(
    tmp_path: Path, sound: NamedTokenizer, what: str, sentence: str
) -> None:
    source = tmp_path / "source.wav"
    if what == "nan":  # a WAV of 32-bit floats
        values = struct.pack("<8f", *[float("nan")] * 8) * 50
        form = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
        body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(values)) + values
        source.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    elif what == "text":
        source.write_text("not a sound")
    elif what == "silent film":
        source = tmp_path / "film.mp4"
        write_video(source, Video(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), 8.0))
    else:
        write_audio(source, Audio(torch.zeros(1, 400), 16_000))
    with pytest.raises(UserError, match=sentence):
        encode_file(source, tmp_path / "out.safetensors", sound=None if what == "no tokenizer" else sound)
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_another_tokenizer_and_another_ending_are_refused(
    tmp_path: Path, clip: Path, picture: NamedTokenizer, sound: NamedTokenizer
) -> None:
    target = clip.with_suffix(".safetensors")
    encode_file(clip, target, picture=picture)
    file = EncodedFile(target)
    from selfflow_mm.weights.tokenizers import named_tokenizer

    with pytest.raises(UserError, match="was encoded by"):
        decode_file(file, tmp_path / "back.mp4", {"video": named_tokenizer("tiny/video")})
    with pytest.raises(UserError, match=r"written as \.mp4"):
        decode_file(file, tmp_path / "back.wav", {"video": picture.tokenizer})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "clip.safetensors"]
    with pytest.raises(UserError, match="not a file that `selfflow-mm encode` wrote"):
        EncodedFile(clip)
    with pytest.raises(UserError, match="there is no file"):
        EncodedFile(tmp_path / "none.safetensors")


def test_a_version_of_the_future_is_refused(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"format": "selfflow-encoded", "version": "9", "tracks": "{}"}
    save_file({"video.values": torch.zeros(1, 1)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(UserError, match="version 9"):
        EncodedFile(tmp_path / "x.safetensors")
    save_file(
        {"video.values": torch.zeros(1, 1)}, tmp_path / "x.safetensors", {**metadata, "version": "1", "tracks": "x"}
    )
    with pytest.raises(UserError, match="lacks what decoding needs"):
        EncodedFile(tmp_path / "x.safetensors")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_memory_does_not_grow_with_the_length(tmp_path: Path, small_tokenizers: dict[str, str]) -> None:
    """Peak resident memory of encoding 10 minutes of sound is that of encoding one (7.7 MB a minute when decoded)."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom selfflow_mm.data.encode_file import *\n"
        "from selfflow_tokenizers import load_tokenizer\n"
        f"t = NamedTokenizer('t', load_tokenizer({small_tokenizers['audio']!r}))\n"
        "encode_file(Path(sys.argv[1]), Path(sys.argv[1] + '.safetensors'), sound=t)\n"
        # Not ru_maxrss, which begins with the size of the process that this one was forked from.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        write_audio(path, Audio(0.1 * torch.randn(2, 16_000 * 60 * minutes), 16_000))
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert abs(peaks[1] - peaks[0]) < 25  # MB; in one piece it would be 70 more at the least
