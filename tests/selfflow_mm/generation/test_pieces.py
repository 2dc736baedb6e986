"""Videos made piece by piece: where they are cut, and that each piece is made with those before it and no other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.cli.main import main
from selfflow_mm.conditions import Conditions, Part
from selfflow_mm.errors import UserError
from selfflow_mm.generation.pieces import borders
from selfflow_mm.generation.sampling import SamplingConfig
from selfflow_tokenizers.media import Image, Video

TWO = SamplingConfig(steps=2, piece=0.25)


@given(
    times=st.lists(st.floats(0, 4, width=32), min_size=1, max_size=20),
    piece=st.floats(0.05, 3),
    kept=st.integers(0, 19),
)
def test_every_border_has_something_to_make_before_it_and_the_last_has_all(times, piece, kept):
    seconds = torch.tensor([sorted(times)])
    wanted = torch.arange(len(times))[None] >= min(kept, len(times) - 1)
    cuts = borders(seconds, wanted, piece)
    before = -1.0
    for cut in cuts:
        assert before < cut and bool((wanted & (seconds < cut + 1e-5) & (seconds > before - 1e-5)).any())
        before = cut
    assert float(seconds[wanted].max()) <= cuts[-1] + 1e-5
    assert cuts[-1] - float(seconds[wanted].max()) <= piece + 1e-5


def spied(pipeline, monkeypatch) -> list:
    """Runs of the solver: conditions, how many video tokens were given, what came out."""
    runs, solve = [], pipeline._solve

    def spy(prompts, conditions, streams, clean, sampling):
        masks = conditions.masks(streams)
        out = solve(prompts, conditions, streams, clean, sampling)
        given = int(masks["video"].sum()) if "video" in masks else 0
        runs.append((conditions, given, {m: v.clone() for m, v in clean.items()}, out))
        return out

    monkeypatch.setattr(pipeline, "_solve", spy)
    return runs


def test_each_run_is_given_what_those_before_it_made(small_pipeline, monkeypatch):
    """Nine frames of four tokens at 0, 0.16 and 0.41 s: pieces of 0.25 s hold two latent frames and one."""
    runs = spied(small_pipeline, monkeypatch)
    [clip] = small_pipeline(["a ball"], sampling=TWO)
    assert [(run.generate, given) for run, given, _, _ in runs] == [(("video",), 0), (("video",), 8), (("audio",), 12)]
    first, second, sound = (out for _, _, _, out in runs)
    assert torch.equal(second["video"][:, :8], first["video"][:, :8])
    assert not torch.equal(second["video"][:, 8:], first["video"][:, 8:])
    assert torch.equal(sound["video"], second["video"])
    assert clip.video is not None and clip.audio is not None


def test_the_first_piece_is_that_of_a_whole_run(small_pipeline):
    whole, pieces = (
        small_pipeline(["a ball"], "t2v", seed=4, sampling=SamplingConfig(steps=2, piece=piece))[0].video.frames
        for piece in (0.0, 0.25)
    )
    assert torch.equal(whole[:5], pieces[:5]) and not torch.equal(whole[5:], pieces[5:])  # the decoder is causal
    [one] = small_pipeline(["a ball"], "t2v", seed=4, sampling=SamplingConfig(steps=2, piece=9.0))
    assert torch.equal(one.video.frames, whole)


def test_what_is_given_is_kept_and_not_made_again(small_pipeline, monkeypatch):
    runs = spied(small_pipeline, monkeypatch)
    picture = Image(torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=torch.manual_seed(0)))
    small_pipeline(["a ball"], "i2va", given={"video": picture}, sampling=TWO)
    tokens = small_pipeline.tokenizers["video"].encode([picture]).values
    assert [given for _, given, _, _ in runs] == [4, 8, 12]
    assert all(torch.equal(out["video"][:, :4], tokens) for _, _, _, out in runs)
    film = Video(torch.full((9, 32, 32, 3), 90, dtype=torch.uint8), 16.0)
    conditions = Conditions(("video",), {"video": Part("prefix", seconds=0.2), "audio": Part("all")})
    sound = small_pipeline(["x"], "t2a")[0].audio
    runs.clear()
    [result] = small_pipeline(["x"], conditions, given={"video": film, "audio": sound}, sampling=TWO)
    assert [(run.modalities, given) for run, given, _, _ in runs] == [(("video", "audio"), 8)]  # the rest is one piece
    assert result.audio is sound


def test_sound_alone_knows_no_pieces(small_pipeline, monkeypatch):
    runs = spied(small_pipeline, monkeypatch)
    small_pipeline(["a ball"], "t2a", sampling=TWO)
    assert len(runs) == 1
    with pytest.raises(UserError, match="piece counts seconds"):
        SamplingConfig(piece=-1)


def test_generate_goes_on_with_a_film(small_pipeline, tmp_path, capsys):
    small_pipeline.save_pretrained(tmp_path / "p")
    command = ["generate", "a ball", "--model", str(tmp_path / "p"), "--steps", "2"]
    film, silent = tmp_path / "a.mp4", tmp_path / "s.mp4"
    assert main([*command, "--out", str(film)]) == 0
    assert main([*command, "--out", str(silent), "--task", "t2v", "--piece", "0.25"]) == 0
    assert main([*command, "--out", str(tmp_path / "b.mp4"), "--video", str(film), "--keep", "0.3"]) == 0
    longer = ["--video", str(silent), "--keep", "0.3", "--task", "extend-v", "--piece", "0.25"]
    assert main([*command, "--out", str(tmp_path / "c.mp4"), *longer]) == 0
    capsys.readouterr()
    for arguments, sentence in (
        (["--video", str(silent), "--keep", "0.3"], "there is no sound in this file to go on with"),
        (["--video", str(film), "--keep", "0"], "--keep counts seconds"),
        (["--video", str(film), "--task", "extend"], "needs --keep"),
        (["--keep", "0.3"], "--keep goes with --video"),
        (["--keep", "0.3", "--task", "extend"], "needs video to be given"),
        (["--piece", "-1"], "piece counts seconds"),
    ):
        assert main([*command, "--out", str(tmp_path / "d.mp4"), *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "d.mp4").exists()
