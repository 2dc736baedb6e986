"""What a tokenizer's training sees of its data: epochs, cuts, filled pictures, judged frames."""

from __future__ import annotations

import torch

from selfflow_mm.config import from_dict
from selfflow_mm.randomness import Randomness
from selfflow_mm.training.tokenizer_audio import AudioTask
from selfflow_mm.training.tokenizer_config import TokenizerTrainConfig
from selfflow_mm.training.tokenizer_data import Clips, centre, draw, fill
from selfflow_mm.training.tokenizer_video import VideoTask
from selfflow_mm.training.tokenizer_video_loss import Perceptual


def test_training_cuts_go_everywhere() -> None:
    part = from_dict(TokenizerTrainConfig, {"video": {"crop": 8, "patch": 1, "frames": 1}})
    assert part.video is not None
    clip = torch.zeros(1, 16, 24, 3, dtype=torch.uint8)
    clip[..., 0], clip[..., 1] = torch.arange(16)[:, None], torch.arange(24)
    task = VideoTask(part, part.video, Clips([clip], [clip], 1.0, [""]), Perceptual(part.video.loss))
    ids = torch.zeros(1, dtype=torch.int64)
    corners = {tuple(task.batch(Randomness(0), step, ids)[0, 0, 0, 0, :2].tolist()) for step in range(200)}
    assert {row for row, _ in corners} == set(range(9)) and {column for _, column in corners} == set(range(17))
    batch = task.batch(Randomness(0), 7, ids)
    assert batch.shape == (1, 1, 8, 8, 3) and torch.equal(batch, task.batch(Randomness(0), 7, ids))


def test_the_discriminator_sees_frames_with_those_before_them() -> None:
    data = {"video": {"frames": 5, "patch": 1, "adversarial": {"weight": 1.0, "span": 3, "frames": 2, "layers": 1}}}
    settings = from_dict(TokenizerTrainConfig, data)
    assert settings.video is not None
    clips = Clips([torch.zeros(5, 8, 8, 3, dtype=torch.uint8)] * 2, [], 1.0, [])
    task = VideoTask(settings, settings.video, clips, Perceptual(settings.video.loss))
    times = torch.arange(5.0)[None, :, None, None, None] + 10 * torch.arange(2.0)[:, None, None, None, None]
    media, ids = times.expand(2, 5, 8, 8, 3), torch.arange(2)
    ends = set()
    for step in range(30):
        seen = task.views(media, media, Randomness(0), step, ids)
        assert seen.shape == (4, 9, 8, 8)
        for row, picture in enumerate(seen[:, :, 0, 0]):
            clip, end = divmod(int(picture[-1]), 10)
            assert clip == row // 2 and picture[::3].tolist() == [10 * clip + max(0, end - k) for k in (2, 1, 0)]
            ends.add(end)
    assert ends == set(range(5))


def test_pictures_are_filled_and_cut_about_their_centre() -> None:
    clip = torch.arange(6 * 9).view(1, 6, 9, 1).expand(3, 6, 9, 3).to(torch.uint8)
    filled = fill(clip, 8)
    assert filled.shape == (3, 8, 9, 3)
    # One row is repeated above and one below.
    assert (
        torch.equal(filled[:, 1:7], clip)
        and torch.equal(filled[:, 0], clip[:, 0])
        and torch.equal(filled[:, 7], clip[:, 5])
    )
    middle = centre(clip, 4)
    assert torch.equal(middle, clip[:, 1:5, :8])


def test_the_loudest_place_is_cut() -> None:
    wave = torch.zeros(2, 64000)
    wave[:, 32000:36000] = 0.5
    heard = []
    for places in (1, 8):
        settings = from_dict(TokenizerTrainConfig, {"audio": {"latents": 4, "places": places}})
        assert settings.audio is not None
        task = AudioTask(settings, settings.audio, Clips([wave], [wave], 1.0, [""]))
        ids = torch.zeros(1, dtype=torch.int64)
        cuts = [task.batch(Randomness(0), step, ids) for step in range(40)]
        assert all(c.shape == (1, 2, 2560) for c in cuts)
        heard.append(sum(bool(c.any()) for c in cuts))
    # A cut of 2,560 of 64,000 samples hears the 4,000 loud ones about once in ten times.
    assert heard[0] <= 12 and heard[1] >= 16


def test_every_epoch_sees_every_clip_once() -> None:
    random = Randomness(3)
    drawn = torch.cat([draw(random, step, 4, 10) for step in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()
    assert torch.equal(draw(random, 2, 4, 10), drawn[8:12])
