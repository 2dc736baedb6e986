"""What SIMPLER's own Python has and lacks, as JSON on the last line. Run as a file by that Python, like the worker.

It looks and changes nothing. Rendering comes last, because a driver that does not fit may end the process.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import json
import os
import sys


def packages() -> dict:
    """Name -> version, or the error of importing it."""
    found = {}
    for name in ("numpy", "sapien", "gymnasium", "mani_skill2_real2sim", "simpler_env", "msgpack", "websockets"):
        try:
            importlib.import_module(name)
            found[name] = {"version": _version(name)}
        except Exception as error:  # whatever an import can raise, a compiled one too
            found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return found


def assets(wanted: dict) -> list:
    """Of ``wanted`` (``scenes``, ``pictures`` and the folder ``overlays`` of these), the files that are not there."""
    root = str(importlib.import_module("mani_skill2_real2sim").ASSET_DIR)
    folder = wanted["overlays"] or os.path.join(root, "real_inpainting")
    needed = [os.path.join(root, "hab2_bench_assets", "stages", f"{scene}.glb") for scene in wanted["scenes"]]
    needed += [os.path.join(folder, name) for name in wanted["pictures"]]
    return [path for path in needed if not os.path.exists(path)]


def rendered() -> str:
    """Draw a box in a few pixels; the driver that did it, as far as the environment tells."""
    import sapien.core as sapien  # type: ignore[import-not-found]

    engine, renderer = sapien.Engine(), sapien.SapienRenderer(offscreen_only=True)
    engine.set_renderer(renderer)
    scene = engine.create_scene()
    scene.set_ambient_light([0.5, 0.5, 0.5])
    builder = scene.create_actor_builder()
    builder.add_box_visual(half_size=[0.2, 0.2, 0.2])  # SAPIEN 2.2.2 dies of a picture of nothing
    builder.build_static().set_pose(sapien.Pose([1.0, 0.0, 0.0]))
    camera = scene.add_camera("probe", 16, 16, 1.0, 0.1, 10.0)
    scene.update_render()
    camera.take_picture()
    seen = camera.get_float_texture("Position")[..., 2]
    if not (seen < 0).any():
        raise RuntimeError("the renderer's picture does not show what stands before the camera")
    return str(os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES") or "the default driver")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(name), "__version__", "(a checkout)"))


def main() -> None:
    wanted = json.loads(sys.argv[1])
    told: dict = {"python": sys.version.split()[0], "packages": packages(), "missing": [], "renders": None}
    if "version" in told["packages"]["mani_skill2_real2sim"]:
        told["missing"] = assets(wanted)
    print(json.dumps(told), flush=True)
    if "version" in told["packages"]["sapien"]:
        try:
            told["renders"] = rendered()
        except Exception as error:
            told["renders_not"] = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.path.pop(0)  # this file's own folder: its neighbours must not be taken for packages
    main()
