"""What every test gets: two threads, fixed seeds, no network but loopback, and the shared data where they exist."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

REPOSITORY = Path(__file__).parents[1]
HUB = os.environ.get("SELFFLOW_TEST_HUB") == "1"

torch.set_num_threads(2)
# The same examples every time: a test that fails in one run fails in the next.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    accelerator = torch.cuda.is_available() or torch.backends.mps.is_available()
    for item in items:
        if item.get_closest_marker("accelerator") and not accelerator:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA or MPS device"))
        if item.get_closest_marker("hub") and not HUB:
            item.add_marker(pytest.mark.skip(reason="uses the Hugging Face hub; set SELFFLOW_TEST_HUB=1 to run it"))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """A connection to anything but this machine raises, so that no test can depend on the network."""
    with pytest.MonkeyPatch.context() as patch:
        if not HUB:
            for name in ("connect", "connect_ex"):
                patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise RuntimeError(f"a test tried to connect to {address}: tests run without a network")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real media beside the repository; tests that read them skip where they are missing."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"there are no shared data at {folder}")
    return folder
