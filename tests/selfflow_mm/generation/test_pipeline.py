"""The pipeline: what it makes, that conditions are kept, that it survives saving, and what it refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selfflow_mm.cli.main import main
from selfflow_mm.conditions import Conditions, Part
from selfflow_mm.data.reading import read_media
from selfflow_mm.errors import UserError
from selfflow_mm.flow.guidance import guide
from selfflow_mm.generation.field import Field
from selfflow_mm.generation.pipeline import Geometry, Pipeline
from selfflow_mm.generation.sampling import SamplingConfig
from selfflow_mm.models import JointTransformer
from selfflow_tokenizers import AudioTokenizer, ByteTextEncoder, VideoAutoencoder, VideoTokenizer
from selfflow_tokenizers.media import Audio, Image, Video


@pytest.fixture(scope="module")
def pipeline(small_pipeline) -> Pipeline:
    return small_pipeline


def test_text_to_video_with_sound_has_picture_and_sound_of_equal_length(pipeline, tmp_path):
    [a, b] = pipeline(["a red ball", "a blue cube"], seed=3)
    assert a.video.frames.shape == (9, 32, 32, 3) and a.audio.waveform.shape == (2, 9000)
    assert a.video.seconds == pytest.approx(a.audio.seconds)
    assert not torch.equal(a.video.frames, b.video.frames)
    clip = read_media(a.save(tmp_path / "a.mp4"))
    assert clip.video.frames.shape[0] == 9
    assert clip.audio.seconds == pytest.approx(clip.video.seconds, abs=1e-3)


def test_the_same_seed_gives_the_same_result_and_another_another(pipeline):
    [a], [b], [c] = (pipeline(["x"], "t2v", seed=s) for s in (1, 1, 2))
    assert torch.equal(a.video.frames, b.video.frames) and not torch.equal(a.video.frames, c.video.frames)


def test_each_task_makes_its_modalities(pipeline, tmp_path):
    [sound] = pipeline(["x"], "t2a")
    [image] = pipeline(["x"], "t2i")
    assert sound.video is None and sound.endings == (".wav",)
    assert image.image.pixels.shape == (32, 32, 3)
    assert read_media(sound.save(tmp_path / "s.wav")).audio.waveform.shape == (2, 9000)
    assert torch.equal(read_media(image.save(tmp_path / "i.png")).image.pixels, image.image.pixels)
    with pytest.raises(UserError, match="written as .wav"):
        sound.save(tmp_path / "s.mp4")


def test_a_given_video_is_returned_as_it_was_and_the_sound_depends_on_it(pipeline):
    videos = [Video(torch.full((9, 32, 32, 3), level, dtype=torch.uint8), 16.0) for level in (20, 220)]
    results = [pipeline(["x"], "v2a", given={"video": v})[0] for v in videos]
    for video, result in zip(videos, results, strict=True):
        assert torch.equal(result.video.frames, video.frames)
    assert not torch.equal(results[0].audio.waveform, results[1].audio.waveform)


def test_a_given_first_frame_keeps_its_tokens(pipeline):
    picture = Image(torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8))
    [result] = pipeline(["x"], "i2v", given={"video": picture})
    tokenizer = pipeline.tokenizers["video"]
    through = tokenizer.decode_images(tokenizer.encode([picture]))[0].pixels
    # A causal decoder's first frame depends on the first latent frame alone.
    assert (result.video.frames[0].int() - through.int()).abs().max() <= 1


def test_guidance_is_the_formula_on_the_velocity(pipeline):
    """One Euler step from noise: x1 - v, with v guided between the caption's and the empty caption's."""
    one = SamplingConfig(steps=1)
    ends = []
    for prompt, scale in (("x", 1.0), ("", 1.0), ("x", 3.0)):
        conditions, captured = Conditions.named("t2a"), {}
        solve = pipeline._solve

        def spy(*args, keep=captured, solve=solve):
            keep["x"] = solve(*args)["audio"]
            keep["noise"] = args[2]["audio"].values
            return {"audio": keep["x"]}

        pipeline._solve = spy
        try:
            pipeline([prompt], conditions, sampling=replace(one, default_guidance=scale))
        finally:
            del pipeline._solve
        ends.append(captured["noise"] - captured["x"])
    conditional, unconditional, guided = ends
    assert torch.allclose(guided, guide(conditional, unconditional, 3.0), atol=1e-5)
    assert not torch.allclose(conditional, unconditional, atol=1e-3)


def test_a_schedule_in_which_the_picture_runs_ahead_changes_the_sound(pipeline):
    ahead = SamplingConfig(steps=4, spans={"video": (0.0, 0.5), "audio": (0.5, 1.0)})
    [together], [staged] = pipeline(["x"], sampling=SamplingConfig(steps=4)), pipeline(["x"], sampling=ahead)
    assert not torch.equal(together.audio.waveform, staged.audio.waveform)


@pytest.mark.parametrize("half", [False, True])
def test_saving_and_loading_give_the_same_clips(pipeline, tmp_path, half):
    pipeline.save_pretrained(tmp_path / "p", half=half)
    again = Pipeline.from_pretrained(tmp_path / "p")
    a, b = pipeline(["x"])[0], again(["x"])[0]
    assert (a.video.frames.int() - b.video.frames.int()).abs().max() <= (8 if half else 0)
    assert torch.allclose(a.audio.waveform, b.audio.waveform, atol=0.02 if half else 0)
    assert again.geometry == pipeline.geometry and again.sampling == pipeline.sampling


def test_longer_clips_than_trained_on(pipeline):
    [result] = pipeline(["x"], frames=17)
    assert result.video.frames.shape[0] == 17 and result.audio.waveform.shape[1] == 17000


def test_requests_that_cannot_be_met_are_refused_in_a_sentence(pipeline, tmp_path):
    sound = Audio(torch.zeros(2, 32000), 16000)
    with pytest.raises(UserError, match="1 \\+ 4k frames.*nearest is 9"):
        pipeline(["x"], frames=10)
    with pytest.raises(UserError, match="needs video to be given"):
        pipeline(["x"], "v2a")
    with pytest.raises(UserError, match="the given audio has 50 tokens"):
        pipeline(["x"], "a2v", given={"audio": sound})
    with pytest.raises(UserError, match="given video is 64 x 32 pixels, the model's clips are 32 x 32"):
        pipeline(["x"], "i2v", given={"video": Image(torch.zeros(32, 64, 3, dtype=torch.uint8))})
    with pytest.raises(UserError, match="has 30 frames per second, the model's clips 16"):
        pipeline(["x"], "v2a", given={"video": Video(torch.zeros(9, 32, 32, 3, dtype=torch.uint8), 30.0)})
    with pytest.raises(UserError, match="no prompt"):
        pipeline([])
    with pytest.raises(UserError, match="this model has no action"):
        pipeline(["x"], Conditions(("action",)))
    with pytest.raises(UserError, match="shorter than the part"):
        picture = Image(torch.zeros(32, 32, 3, dtype=torch.uint8))
        pipeline(["x"], Conditions(("video",), {"video": Part("prefix", seconds=0.3)}), given={"video": picture})


def test_a_folder_that_is_not_a_model_is_refused(pipeline, tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        Pipeline.from_pretrained(tmp_path)
    pipeline.save_pretrained(tmp_path / "p")
    config = tmp_path / "p/config.json"
    about = json.loads(config.read_text())
    config.write_text(json.dumps(about | {"version": 99}))
    with pytest.raises(UserError, match="version 99"):
        Pipeline.from_pretrained(tmp_path / "p")
    config.write_text(json.dumps(about | {"model": about["model"] | {"single_blocks": 2}}))
    with pytest.raises(UserError, match="does not fit its config: missing"):
        Pipeline.from_pretrained(tmp_path / "p")


def test_generate_command(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path / "p")
    model = ["--model", str(tmp_path / "p")]
    assert main(["generate", "a ball", "--out", str(tmp_path / "a.mp4"), *model]) == 0
    assert main(["generate", "a ball", "--out", str(tmp_path / "b.wav"), *model, "--count", "2"]) == 0
    assert (
        main(["generate", "a ball", "--out", str(tmp_path / "c.mp4"), *model, "--video", str(tmp_path / "a.mp4")]) == 0
    )
    assert {p.name for p in Path(tmp_path).glob("*.*")} == {"a.mp4", "b-0.wav", "b-1.wav", "c.mp4"}
    capsys.readouterr()
    for arguments, sentence in (
        (["--out", str(tmp_path / "a.gif")], "written as .mp4 or .wav"),
        (["--out", str(tmp_path / "no/a.mp4")], "there is no folder"),
        (["--out", str(tmp_path / "d.mp4"), "--frames", "10"], "nearest is 9"),
        (["--out", str(tmp_path / "d.mp4"), "--task", "x"], "unknown task"),
        (["--out", str(tmp_path / "d.mp4"), "--model", "nothing"], "no weights folder"),
        (["--out", str(tmp_path / "d.mp4"), "--audio", str(tmp_path / "a.mp4"), "--task", "t2v"], "is given no audio"),
    ):
        assert main(["generate", "a ball", *arguments, *([] if "--model" in arguments else model)]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "d.mp4").exists()


@pytest.mark.parametrize("task", ["t2va", "i2va", "v2a"])
def test_conditions_computed_once_change_nothing_but_the_work(pipeline, monkeypatch, task):
    """A model that isolates its conditions samples alike with their keys kept and with everything at every step."""
    torch.manual_seed(3)
    model = JointTransformer(replace(pipeline.model.config, isolate_conditions=True))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sampling = SamplingConfig(steps=3, guidance={"video": 2.0, "audio": 1.5})
    isolating = Pipeline(model, pipeline.tokenizers, pipeline.geometry, sampling)
    video = Video(torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8), 16.0)
    given = {"video": Image(video.frames[0]) if task == "i2va" else video} if task != "t2va" else {}
    calls = {"whole": 0, "rest": 0}
    whole, rest = JointTransformer.forward, JointTransformer.conditioned
    monkeypatch.setattr(
        JointTransformer, "forward", lambda *a, **k: calls.update(whole=calls["whole"] + 1) or whole(*a, **k)
    )
    monkeypatch.setattr(JointTransformer, "conditioned", lambda *a: calls.update(rest=calls["rest"] + 1) or rest(*a))
    prompts = ["one two three", "one"]  # of different length: text is padded
    quick = isolating(prompts, task, given=given)
    assert calls == {"whole": 0, "rest": 3}
    monkeypatch.setattr(Field, "_conditions_once", lambda self: None)
    slow = isolating(prompts, task, given=given)
    assert calls == {"whole": 3, "rest": 3}
    for a, b in zip(quick, slow, strict=True):
        assert torch.allclose(a.audio.waveform, b.audio.waveform, atol=1e-4)
        assert (a.video.frames.int() - b.video.frames.int()).abs().max() <= 1


# Tokenizers that are not ours, and text


def test_frames_are_counted_by_the_tokenizers_own_compression(pipeline):
    """LTX-2 takes 1 + 8k frames to 1 + k latent frames."""
    video = copy.copy(pipeline.tokenizers["video"])
    video.spec = replace(video.spec, time_compression=8)
    other = Pipeline(pipeline.model, {**pipeline.tokenizers, "video": video}, pipeline.geometry, pipeline.sampling)
    for frames, near in ((12, 9), (16, 17)):
        with pytest.raises(
            UserError, match=rf"1 \+ 8k frames \(1, 9, 17, \.\.\.\), got {frames}; the nearest is {near}"
        ):
            other(["x"], frames=frames)
    assert other._resized(25).frames == 25 and other._resized(25).samples == 25000


def test_clips_that_do_not_fill_their_tokens_are_cropped_to_the_datas_size(pipeline):
    odd = Pipeline(pipeline.model, pipeline.tokenizers, Geometry(10, 30, 33, 16.0, 10001), pipeline.sampling)
    [clip], [image] = odd(["x"]), odd(["x"], "t2i")
    assert clip.video.frames.shape == (10, 30, 33, 3) and clip.video.fps == 16
    assert clip.audio.waveform.shape == (2, 10001)
    assert image.image.pixels.shape == (30, 33, 3)
    [given] = odd(["x"], "i2v", given={"video": image.image})
    assert given.video.frames.shape == (10, 30, 33, 3)


class Upsampling(torch.nn.Module):
    """A sound codec that reads 16 kHz and writes 24 kHz, as LTX-2's does."""

    latent_channels, channels, sample_rate, decoded_rate, samples_per_latent = 4, 2, 16000, 24000, 640

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.scale * waveform.unflatten(-1, (-1, 640)).mean(dim=-1).movedim(1, -1).repeat(1, 1, 2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[..., :2].movedim(-1, 1).repeat_interleave(960, dim=-1)


def test_sound_is_counted_at_the_rate_that_is_read_and_comes_at_the_rate_that_is_written(pipeline, tmp_path):
    tokenizers = {**pipeline.tokenizers, "audio": AudioTokenizer(Upsampling())}
    other = Pipeline(pipeline.model, tokenizers, pipeline.geometry, pipeline.sampling)
    [clip], [longer] = other(["x"]), other(["x"], frames=17)
    assert clip.audio.rate == 24000 and clip.audio.waveform.shape == (2, 9000 * 3 // 2)
    assert clip.audio.seconds == pytest.approx(clip.video.seconds)
    assert longer.audio.seconds == pytest.approx(longer.video.seconds)
    assert read_media(clip.save(tmp_path / "a.mp4")).audio.seconds == pytest.approx(clip.video.seconds, abs=1e-3)


def test_two_tokenizers_of_video_are_both_saved(pipeline, tmp_path):
    torch.manual_seed(3)
    sizes = pipeline.tokenizers["video"].model.config
    second = VideoTokenizer(VideoAutoencoder(sizes))
    tokenizers = {"image": second, "video": pipeline.tokenizers["video"], "audio": pipeline.tokenizers["audio"]}
    Pipeline(pipeline.model, tokenizers, pipeline.geometry, pipeline.sampling).save_pretrained(tmp_path / "p")
    again = Pipeline.from_pretrained(tmp_path / "p").tokenizers
    assert {m: t.spec.name for m, t in again.items()} == {m: t.spec.name for m, t in tokenizers.items()}
    assert again["image"].spec.name != again["video"].spec.name


def test_the_bundled_text_encoder_is_written_as_before_and_other_lengths_are_kept(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "p")
    assert json.loads((tmp_path / "p/config.json").read_text())["text_encoder"] == "bytes"
    layout = (pipeline.model, pipeline.tokenizers, pipeline.geometry, pipeline.sampling, "zero")
    Pipeline(*layout, ByteTextEncoder(max_tokens=3)).save_pretrained(tmp_path / "short")
    assert Pipeline.from_pretrained(tmp_path / "short").text_encoder.max_tokens == 3
    assert Pipeline.from_pretrained(tmp_path / "p", text_encoder="bytes").text_encoder.max_tokens == 256
    with pytest.raises(UserError, match="takes text of 192 channels, 'bytes-v1-8' gives 8"):
        Pipeline(*layout, ByteTextEncoder(8))
