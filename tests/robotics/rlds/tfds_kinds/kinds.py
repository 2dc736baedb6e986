"""What the data set beside this file holds: five episodes of 0 to 4 steps with one feature of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

EPISODES = 5


def step(episode: int, k: int) -> dict[str, Any]:
    """The features of one step, as they were given to tensorflow_datasets."""
    rng = np.random.default_rng([episode, k])
    rows = np.mgrid[:16, :24].sum(0)[..., None]
    return {
        "observation": {
            "image": (rows * np.array([3, 4, 5]) + k).astype(np.uint8),
            "any_size": (rows * np.array([1, 2, 3]) + k).astype(np.uint8)[: 5 + k],
            "depth": rng.normal(size=(16, 24, 1)).astype(np.float32),
            "depth16": rng.integers(0, 2**16, (16, 24, 1)).astype(np.uint16),
        },
        "action": rng.normal(size=7).astype(np.float32),
        "float64": rng.normal(size=3),
        "float64_zlib": rng.normal(size=3),
        "float16": rng.normal(size=2).astype(np.float16),
        "uint8": rng.integers(0, 256, (2, 2)).astype(np.uint8),
        "uint64": np.uint64(2**64 - 1 - k),
        "dynamic": rng.integers(0, 256, (k, 2)).astype(np.uint8),
        "label": k % 4,
        "box": np.float32([0.1, 0.2, 0.3, 0.4]),
        "points": rng.normal(size=(k, 2)).astype(np.float32),
        "three": np.arange(3, dtype=np.int32) - k,
        "words": [f"w{i}" for i in range(k)],
        "pair": ["a", "bé"],
        "is_last": k == episode - 1,
        "text": f"grüße {k}" if k else "",
    }


def metadata(episode: int) -> dict[str, Any]:
    """The features of a whole episode."""
    return {
        "name": f"n{episode}",
        "ok": episode % 2 == 0,
        "list": np.arange(episode) * 10**12,
        "picture": np.full((4, 4, 3), episode, np.uint8),
        "film": np.full((episode, 4, 4, 3), 7, np.uint8),
    }
