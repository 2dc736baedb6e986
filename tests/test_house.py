"""The house itself: packages in their places, names that shadow nobody, a whole wheel, no way to the network."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

PACKAGES = {"selfflow_mm": "selfflow_mm", "selfflow_tokenizers": "tokenizers", "selfflow_robotics": "robotics"}
_WHERE = "import tokenizers; print(tokenizers.__file__, hasattr(tokenizers, 'Tokenizer'))"


def _hugging_face_tokenizers() -> str:
    """Where the distribution ``tokenizers`` keeps its package, by its own records."""
    distribution = importlib.metadata.distribution("tokenizers")
    return str(distribution.locate_file("tokenizers/__init__.py"))


@pytest.mark.parametrize("folder", ["tokenizers", "robotics"])
def test_the_outer_folders_are_no_packages(repository: Path, folder: str) -> None:
    assert (repository / folder).is_dir() and not (repository / folder / "__init__.py").exists()


@pytest.mark.parametrize("arguments", [["-c", _WHERE], ["-m", "timeit", "-n1", "-r1", "-s", _WHERE, ""]])
def test_tokenizers_is_hugging_face_s_from_the_repository_root(repository: Path, arguments: list[str]) -> None:
    # Both put the working directory first on the path, where the folder `tokenizers/` lies.
    done = subprocess.run([sys.executable, *arguments], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == [_hugging_face_tokenizers(), "True"]


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy of the sources (a build leaves files behind)."""
    copy = tmp_path_factory.mktemp("sources") / "repository"
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        copy.mkdir(exist_ok=True)
        shutil.copy(repository / name, copy / name)
    for name in ("selfflow_mm", "tokenizers", "robotics", "configs"):
        shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        str(out),
        ".",
    ]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("*.whl")
    return file


def test_the_wheel_holds_every_module_and_all_data(repository: Path, wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected: set[str] = set()
    for package, root in PACKAGES.items():
        base = repository if package == root else repository / root
        expected |= {p.relative_to(base).as_posix() for p in (base / package).rglob("*.py")}
    weights = repository / "selfflow_mm" / "weights"
    endings = {".safetensors", ".json", ".yaml", ".md", ".txt"}
    expected |= {p.relative_to(repository).as_posix() for p in weights.rglob("*") if p.suffix in endings}
    robotics = repository / "robotics"
    data = [p for ending in ("yaml", "txt") for p in (robotics / "selfflow_robotics").rglob(f"*.{ending}")]
    expected |= {p.relative_to(robotics).as_posix() for p in data}
    configs = repository / "configs"
    expected |= {f"selfflow_mm/configs/{p.relative_to(configs).as_posix()}" for p in configs.rglob("*.yaml")}
    assert {name for name in inside if not name.startswith("selfflow_mm/configs/")} <= expected
    assert expected <= inside
    assert {name.split("/")[0] for name in inside} == set(PACKAGES)


def test_the_installed_wheel_works_from_anywhere(repository: Path, wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    code = f"""
import sys
sys.path.insert(0, {str(target)!r})
# The editable installation of this environment must not answer in the wheel's place.
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "") + str(f)]
import selfflow_mm, selfflow_tokenizers, selfflow_robotics
from selfflow_mm.config import config_folder
print(*(m.__file__ for m in (selfflow_mm, selfflow_tokenizers, selfflow_robotics)), config_folder(), sep="\\n")
{_WHERE}
"""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *files, configs, tokenizers = done.stdout.splitlines()
    assert files == [str(target / package / "__init__.py") for package in PACKAGES]
    assert configs == str(target / "selfflow_mm" / "configs")
    assert tokenizers.split() == [_hugging_face_tokenizers(), "True"]


def test_every_dependency_is_pinned_within_its_bounds(repository: Path) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    named = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    for requirement in map(Requirement, named):
        version = pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]
        assert requirement.specifier.contains(version), f"{requirement} is not met by {version}"
    assert "+" not in "".join(pins.values()), "a local version (+cpu) keeps users of a GPU from the same pin"


def test_no_test_reaches_the_network() -> None:
    with pytest.raises(RuntimeError, match="tests run without a network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)  # an address reserved for documentation (RFC 5737)
    with socket.socket() as plain, pytest.raises(RuntimeError, match="tests run without a network"):
        plain.connect_ex(("example.org", 443))


def test_loopback_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
