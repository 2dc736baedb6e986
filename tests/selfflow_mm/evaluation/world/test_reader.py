"""The reader's files, how letters become words, and that its training teaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_mm.data.world.picture import render_picture
from selfflow_mm.data.world.stories import draw_clip
from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.world.labels import label
from selfflow_mm.evaluation.world.reader import BUNDLED, Reader
from selfflow_mm.evaluation.world.reader_net import LETTERS, ObjectReader, PixelReader, WordReader
from selfflow_mm.evaluation.world.reader_training import ReaderTraining, train_reader
from selfflow_tokenizers.media import Video


class _Fixed(WordReader):
    """Sees given letters at given columns of every strip."""

    def __init__(self, columns: str) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, strips: torch.Tensor) -> torch.Tensor:
        numbers = torch.tensor([0 if c == "." else 1 + LETTERS.index(c) for c in self.columns])
        return 9 * torch.nn.functional.one_hot(numbers, 27).T.float().expand(len(strips), -1, -1)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ("..CCCC..AAAA....TTTT....", "CAT"),
        ("..ZZZ...OOOO...OOOO.....", "ZOO"),  # two alike are two, because nothing is between
        ("..CCCCAAAA.T....TTT.....", "CAT"),  # a single column is no letter
        ("........................", ""),
        ("....................GGGG", "G"),
    ],
)
def test_runs_of_columns_are_letters(columns: str, word: str) -> None:
    reader = Reader(PixelReader(), ObjectReader(), _Fixed(columns))
    assert reader.read(torch.zeros(3, 13, 40, 3, dtype=torch.uint8)) == word


def test_a_saved_reader_is_the_same_and_the_bundled_one_is_small(tmp_path: Path, world_reader: Reader) -> None:
    world_reader.save(tmp_path / "copy.safetensors")
    again = Reader.load(tmp_path / "copy.safetensors")
    video = Video(torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8), 16.0)
    assert torch.equal(again.look(video), world_reader.look(video))
    assert BUNDLED.stat().st_size <= 2**20


def test_refusals(tmp_path: Path, world_reader: Reader) -> None:
    with pytest.raises(UserError, match="world_reader.py"):
        Reader.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no reader"):
        Reader.load(tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="multiples of 8, got 60 x 64"):
        world_reader.look(Video(torch.zeros(1, 64, 60, 3, dtype=torch.uint8), 16.0))


@pytest.mark.long
def test_training_teaches_what_pixels_show() -> None:
    reader = train_reader(ReaderTraining(clips=60, steps=160))
    shown, right, room = [], [], []
    for index in range(8):
        scene, motion = draw_clip(np.random.default_rng([5, index]), None)
        frames = torch.from_numpy(render_picture(scene, motion)[0])
        truth = torch.from_numpy(label(scene, motion.states, range(len(frames))))
        found = reader.look(Video(frames, 16.0)).argmax(1)
        shown.append((found > 2)[truth > 2].float().mean().item())
        right.append((found == truth)[truth > 2].float().mean().item())
        room.append((found == truth)[truth == 0].float().mean().item())
    # Chance is one of eleven; the bundled reader, with eight times the steps, is right in nearly all.
    assert np.mean(shown) > 0.5 and np.mean(right) > 0.3 and np.mean(room) > 0.95, (shown, right, room)
