"""What the real lerobot 0.4.4 does, run by test_against_lerobot.py in an environment of its own; not a test by itself.

``read FOLDER OUT``: every item of a data set through ``LeRobotDataset.__getitem__`` into arrays.
``write FOLDER IN``: a data set by ``create``, ``add_frame``, ``save_episode`` and ``finalize``.
``upgrade FOLDER``: the v2.1 data set in it becomes v3.0, by lerobot's converter.
"""

import sys
import types
from pathlib import Path

import av
import datasets  # noqa: F401, before the stand-in below, which it would take for the real thing
import numpy as np
import torch


def stand_in_for_torchvision():
    """The few things that lerobot's data sets use of torchvision, which has no build for every torch."""

    class VideoReader:
        def __init__(self, path, stream):
            self.container = av.open(path)
            self._stream = self.container.streams.video[0]

        def seek(self, time, keyframes_only=False):
            self.container.seek(int(time / self._stream.time_base), stream=self._stream)

        def __iter__(self):
            for frame in self.container.decode(self._stream):
                data = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                yield {"data": data, "pts": float(frame.pts * self._stream.time_base)}

    class ToTensor:
        def __call__(self, picture):
            pixels = np.array(picture)
            pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255

    torchvision = types.ModuleType("torchvision")
    torchvision.io, torchvision.transforms = types.ModuleType("torchvision.io"), types.ModuleType("transforms")
    torchvision.io.VideoReader, torchvision.transforms.ToTensor = VideoReader, ToTensor
    torchvision.set_video_backend = lambda name: None
    torchvision.__version__ = "0"
    sys.modules |= {
        "torchvision": torchvision,
        "torchvision.io": torchvision.io,
        "torchvision.transforms": torchvision.transforms,
    }


try:
    import torchvision  # noqa: F401
except ImportError:
    stand_in_for_torchvision()

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402


def flat(column):
    """The stored numbers of a column, one axis, as Arrow holds them."""
    array = column.combine_chunks()
    while hasattr(array, "storage") or hasattr(array, "flatten"):
        flatter = array.storage if hasattr(array, "storage") else array.flatten()
        if flatter is array or flatter.type == array.type:
            break
        array = flatter
    values = array.to_numpy(zero_copy_only=False)
    return values.astype(str) if values.dtype == object else values


def read(folder, out):
    data = LeRobotDataset("test/data", root=folder, video_backend="pyav")
    found = {"version": np.array(data.meta.info["codebase_version"]), "episodes": np.array(data.num_episodes)}
    table = data.hf_dataset.with_format("arrow")[:]
    for name in data.features:
        if name not in data.meta.camera_keys:
            found[f"column/{name}"] = flat(table[name])
        elif name in data.meta.image_keys:
            found[f"bytes/{name}"] = np.array([entry["bytes"].hex() for entry in table[name].to_pylist()])
    items = [data[step] for step in range(len(data))]
    for camera in data.meta.camera_keys:
        found[f"camera/{camera}"] = np.stack([item[camera].numpy() for item in items])
    found["task"] = np.array([item["task"] for item in items])
    if "subtask" in items[0]:
        found["subtask"] = np.array([item["subtask"] for item in items])
    for name, values in data.meta.stats.items():
        found |= {f"stats/{name}/{key}": value for key, value in values.items()}
    for row in data.meta.episodes:
        for name, value in row.items():
            found[f"episode/{row['episode_index']}/{name}"] = np.array(value)
    windowed = LeRobotDataset(
        "test/data", root=folder, video_backend="pyav", episodes=[1], delta_timestamps={"action": [-1 / data.fps, 0.0]}
    )
    found["window"] = windowed[0]["action"].numpy()
    np.savez(out, **found)


def write(folder, given):
    content = np.load(given)
    fps = int(content["fps"])
    cameras = {"observation.images.front": "video", "observation.images.wrist": "image"}
    features = {
        name: {"dtype": kind, "shape": (3, 48, 64), "names": ["channels", "height", "width"]}
        for name, kind in cameras.items()
    }
    for name, values in content.items():
        if name.startswith("column/"):
            shape = values.shape[1:] or (1,)
            features[name.removeprefix("column/")] = {"dtype": values.dtype.name, "shape": shape, "names": None}
    data = LeRobotDataset.create(
        "test/data", fps, features, root=folder, robot_type="arm", vcodec=str(content["codec"])
    )
    for episode in range(int(content["episodes"])):
        for step in np.flatnonzero(content["episode"] == episode):
            frame = {name: content[f"camera/{name}"][step] for name in cameras}
            for name, values in content.items():
                if name.startswith("column/"):
                    frame[name.removeprefix("column/")] = values[step].reshape(values.shape[1:] or (1,))
            data.add_frame(frame | {"task": str(content["task"][step])})
        data.save_episode(parallel_encoding=False)
    data.finalize()


def upgrade(folder):
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

    path = Path(folder)
    # A small limit, so that the copy has several data files.
    convert_dataset(path.name, root=path.parent, push_to_hub=False, data_file_size_in_mb=0.002)


if __name__ == "__main__":
    {"read": read, "write": write, "upgrade": upgrade}[sys.argv[1]](*sys.argv[2:])
