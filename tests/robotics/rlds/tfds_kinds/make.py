"""Write the data set beside this file with tensorflow_datasets itself (needs TensorFlow; run by hand, once).

python -m venv tfds && tfds/bin/pip install tensorflow-cpu==2.21.0 tensorflow-datasets==4.9.10 pillow
tfds/bin/python tests/robotics/rlds/tfds_kinds/make.py
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from kinds import EPISODES, metadata, step

_IS = tfds.features
_FEATURES = _IS.FeaturesDict(
    {
        "steps": _IS.Dataset(
            {
                "observation": {
                    "image": _IS.Image(shape=(16, 24, 3), encoding_format="jpeg"),
                    "any_size": _IS.Image(shape=(None, None, 3)),
                    "depth": _IS.Image(shape=(16, 24, 1), dtype=np.float32),
                    "depth16": _IS.Image(shape=(16, 24, 1), dtype=np.uint16, encoding_format="png"),
                },
                "action": _IS.Tensor(shape=(7,), dtype=np.float32),
                "float64": _IS.Tensor(shape=(3,), dtype=np.float64),
                "float64_zlib": _IS.Tensor(shape=(3,), dtype=np.float64, encoding="zlib"),
                "float16": _IS.Tensor(shape=(2,), dtype=np.float16),
                "uint8": _IS.Tensor(shape=(2, 2), dtype=np.uint8),
                "uint64": _IS.Tensor(shape=(), dtype=np.uint64, encoding="bytes"),
                "dynamic": _IS.Tensor(shape=(None, None), dtype=np.uint8, encoding="bytes"),
                "label": _IS.ClassLabel(num_classes=4),
                "box": _IS.BBoxFeature(),
                "points": _IS.Sequence(_IS.Tensor(shape=(2,), dtype=np.float32)),
                "three": _IS.Sequence(np.int32, length=3),
                "words": _IS.Sequence(_IS.Text()),
                "pair": _IS.Tensor(shape=(2,), dtype=np.str_),
                "is_last": _IS.Scalar(dtype=np.bool_),
                "text": _IS.Text(),
            }
        ),
        "episode": {
            "name": _IS.Text(),
            "ok": np.bool_,
            "list": _IS.Sequence(np.int64),
            "picture": _IS.Image(shape=(4, 4, 3), encoding_format="png"),
            "film": _IS.Video(shape=(None, 4, 4, 3)),
        },
    }
)


class Kinds(tfds.core.GeneratorBasedBuilder):
    """Five short episodes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return tfds.core.DatasetInfo(builder=self, features=_FEATURES)

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, Any]]:
        for e in range(EPISODES):
            steps = [step(e, k) for k in range(e)]
            for each in steps:
                each["box"] = _IS.BBox(*each["box"].tolist())
            yield str(e), {"steps": steps, "episode": metadata(e)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        builder = Kinds(data_dir=folder)
        builder.download_and_prepare()
        for path in Path(builder.data_dir).iterdir():
            shutil.copy(path, Path(__file__).parent)
