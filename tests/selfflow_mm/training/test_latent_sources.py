"""Training from a folder of latents against training from the raw data set: the same bits, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.config import load_config
from selfflow_mm.errors import UserError
from selfflow_mm.training import loop
from selfflow_mm.training.config import TrainConfig
from selfflow_mm.training.parts import geometry_of
from selfflow_mm.training.plan import describe
from selfflow_tokenizers import load_tokenizer

from ...tokenizers import texts
from .test_loop import assert_same


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoded(small_clips: Path, small_tokenizers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips' latents, from the command, made of a copy of the data set that is then removed."""
    root = tmp_path_factory.mktemp("encoded")
    shutil.copytree(small_clips, root / "clips")
    named = ["--video", small_tokenizers["video"], "--audio", small_tokenizers["audio"]]
    command = ["encode", str(root / "clips"), str(root / "latents"), *named, "--workers", "2", "--device", "cpu"]
    assert main(command) == 0
    shutil.rmtree(root / "clips")
    return root / "latents"


def train(config: Path, out: Path, *overrides: str, resume: bool = False) -> Path:
    settings = load_config(TrainConfig, config, ["run.threads=1", *overrides])
    return loop.train(settings, out, resume=resume)


def losses(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k in ("step", "grad_norm") or k.startswith(("loss", "l_"))} for row in rows
    ]


def test_latents_train_to_the_bits_of_the_raw_data(small_config, encoded, tmp_path):
    """Losses of every step, all weights and the model folder's clip sizes; the raw data set is gone."""
    train(small_config, tmp_path / "raw", f"data.latents={tmp_path / 'own'}", "run.log_every=1")
    train(small_config, tmp_path / "latent", f"data.sources.clips.path={encoded}", "run.log_every=1")
    assert losses(tmp_path / "raw") == losses(tmp_path / "latent") and len(losses(tmp_path / "raw")) == 6
    assert_same(tmp_path / "raw/checkpoints/step-000006", tmp_path / "latent/checkpoints/step-000006")
    assert not (tmp_path / "latent/latents").exists()
    raw, latent = (json.loads((tmp_path / n / "model/config.json").read_text()) for n in ("raw", "latent"))
    assert raw == latent


def test_the_first_so_many_samples_are_those_of_the_raw_data(small_config, encoded, tmp_path):
    few = ["data.sources.clips.max_samples=5", "run.steps=2", "run.log_every=1"]
    train(small_config, tmp_path / "raw", f"data.latents={tmp_path / 'own'}", *few)
    train(small_config, tmp_path / "latent", f"data.sources.clips.path={encoded}", *few)
    assert losses(tmp_path / "raw") == losses(tmp_path / "latent")


def test_latents_of_another_tokenizer_are_refused_by_name_and_hash(small_config, encoded, small_tokenizers, tmp_path):
    from selfflow_tokenizers import AudioAutoencoder, AudioAutoencoderConfig, AudioTokenizer

    torch.manual_seed(1)
    other = AudioTokenizer(
        AudioAutoencoder(AudioAutoencoderConfig(latent_channels=4, widths=(8,) * 3, blocks=(1,) * 3))
    )
    other.save_pretrained(tmp_path / "other")
    ours = load_tokenizer(small_tokenizers["audio"]).spec.name
    theirs = load_tokenizer(str(tmp_path / "other")).spec.name
    with pytest.raises(UserError) as refused:
        source = f"data.sources.clips.path={encoded}"
        train(small_config, tmp_path / "run", source, f"tokenizers.audio={tmp_path / 'other'}")
    sentence = str(refused.value)
    assert sentence.startswith(f"data.sources.clips: {encoded} holds audio latents of {ours} (hash ")
    assert f"but tokenizers.audio is {theirs} (hash " in sentence and "\n" not in sentence
    assert not (tmp_path / "run").exists()


def test_what_a_task_needs_must_be_there(small_config, small_clips, small_tokenizers, tmp_path):
    command = ["encode", str(small_clips), str(tmp_path / "l"), "--audio", small_tokenizers["audio"], "--workers", "0"]
    assert main(command) == 0
    with pytest.raises(UserError, match="holds latents of audio only, and task t2va needs video; drop the task"):
        train(small_config, tmp_path / "run", f"data.sources.clips.path={tmp_path / 'l'}")
    (tmp_path / "l/latents.json").rename(tmp_path / "l/draft.json")
    with pytest.raises(UserError, match="is not encoded to its end"):
        train(small_config, tmp_path / "run", f"data.sources.clips.path={tmp_path / 'l'}")
    assert not (tmp_path / "run").exists()


def test_latents_of_an_earlier_release_do_not_tell_the_sizes(encoded, tmp_path):
    shutil.copytree(encoded, tmp_path / "l")
    about = json.loads((tmp_path / "l/latents.json").read_text())
    (tmp_path / "l/latents.json").write_text(json.dumps({k: v for k, v in about.items() if k != "sizes"}))
    with pytest.raises(UserError, match="does not say how large the clips are"):
        geometry_of([str(tmp_path / "l")])


def test_a_damaged_sample_is_left_out_and_said_on_both_ways(
    small_config, small_clips, small_tokenizers, tmp_path, capsys
):
    """A clip whose bytes are spoilt: the same losses from the raw data and from their latents."""
    from selfflow_mm.data.shards import ShardDataset

    shutil.copytree(small_clips, tmp_path / "data")
    members = ShardDataset(tmp_path / "data").members(4)
    offset, size = members.places["mp4"]
    with open(members.shard, "r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    named = ["--video", small_tokenizers["video"], "--audio", small_tokenizers["audio"], "--workers", "0"]
    assert main(["encode", str(tmp_path / "data"), str(tmp_path / "l"), *named]) == 0
    said = capsys.readouterr().out
    assert "left out  1 samples" in said and "shard-000000.tar 000004: " in said
    few = ["run.steps=2", "run.log_every=1"]
    for name, path in (("raw", tmp_path / "data"), ("latent", tmp_path / "l")):
        train(
            small_config, tmp_path / name, f"data.sources.clips.path={path}", f"data.latents={tmp_path / 'own'}", *few
        )
        assert "clips: 1 of 10 samples are left out, see " in capsys.readouterr().out
    assert losses(tmp_path / "raw") == losses(tmp_path / "latent")


def test_stored_text_is_read_and_the_encoder_is_not_needed(
    small_config, small_clips, small_tokenizers, tmp_path, capsys
):
    """``encode --text`` fills what ``text.cache`` reads; a plan counts latents and captions without raw data."""
    t5 = texts.t5(tmp_path / "t5")
    folder = tmp_path / "l"
    named = ["--video", small_tokenizers["video"], "--audio", small_tokenizers["audio"], "--workers", "0"]
    stored = ["--text", str(t5), "--text-tokens", "16"]
    assert main(["encode", str(small_clips), str(folder), *named, *stored]) == 0
    said = capsys.readouterr().out
    assert "captions: 21 texts" in said and "at most 16 tokens" in said and f"text.cache={folder / 'text'}" in said
    settings = [f"data.sources.clips.path={folder}", f"text.encoder={t5}", "text.max_tokens=16", "run.prompts=[]"]
    plan = describe(small_config, settings)
    assert "clips, 10 samples of" in plan
    train(small_config, tmp_path / "run", *settings, f"text.cache={folder / 'text'}", "run.steps=1")
    assert "(0 of them new)" in capsys.readouterr().out


def test_a_store_trains_to_the_bits_of_the_disk(small_config, encoded, small_clips, tmp_path, monkeypatch):
    """Raw data and latents alike; memory:// stands for any store."""
    import fsspec

    monkeypatch.setenv("SELFFLOW_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for name, folder in (("raw", small_clips), ("latents", encoded)):
        for path in folder.iterdir():
            store.pipe_file(f"/{tmp_path.name}/{name}/{path.name}", path.read_bytes())
    train(small_config, tmp_path / "disk", f"data.sources.clips.path={encoded}", "run.log_every=1")
    for name in ("raw", "latents"):
        url = f"memory://{tmp_path.name}/{name}"
        places = [f"data.sources.clips.path={url}", f"data.latents={tmp_path / name}-own"]
        train(small_config, tmp_path / name, *places, "run.log_every=1")
        assert losses(tmp_path / name) == losses(tmp_path / "disk") != []
        assert url in (tmp_path / name / "config.yaml").read_text()


def test_encode_reads_a_store(small_clips, small_tokenizers, encoded, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("SELFFLOW_CACHE", str(tmp_path / "cache"))
    for path in small_clips.iterdir():
        fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/clips/{path.name}", path.read_bytes())
    named = ["--video", small_tokenizers["video"], "--audio", small_tokenizers["audio"]]
    url = f"memory://{tmp_path.name}/clips"
    assert main(["encode", url, str(tmp_path / "out"), *named, "--workers", "0", "--device", "cpu"]) == 0
    for part in encoded.glob("part-*.safetensors"):
        assert (tmp_path / "out" / part.name).read_bytes() == part.read_bytes()
