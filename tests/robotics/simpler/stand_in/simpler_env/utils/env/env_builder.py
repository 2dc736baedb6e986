"""Builds the stand-in's environments, and refuses what the real ones do not know."""

from .environment import StandInEnv


def build_maniskill2_env(env_name, **kwargs):
    if kwargs.get("rgb_overlay_path") is not None and kwargs.get("rgb_overlay_cameras") is None:
        google = "google_robot_static" in kwargs["robot"]
        kwargs["rgb_overlay_cameras"] = ["overhead_camera" if google else "3rd_view_camera"]
    return StandInEnv(env_name, **kwargs)


def get_robot_control_mode(robot_name, policy_name):
    return "google's" if "google_robot_static" in robot_name else "widowx's"
