"""What importing costs and whether transformers can be imported after the torchaudio guard."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_imports_nothing_heavy() -> None:
    out = run("import selfflow_tokenizers.errors, sys; print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert out.split() == ["False", "False"]


def test_every_public_name_is_there() -> None:
    run("import selfflow_tokenizers as s; [getattr(s, n) for n in s.__all__]; assert set(s.__all__) == set(s._HOME)")


def test_transformers_imports_after_the_guard() -> None:
    code = (
        "from selfflow_tokenizers import ensure_torchaudio; assert ensure_torchaudio();"
        "import torchaudio, torch; from transformers import AutoModel; "
        "print(torchaudio.transforms.Spectrogram(n_fft=64)(torch.zeros(1, 640)).shape[1])"
    )
    assert run(code).strip() == "33"


def test_a_broken_extension_is_replaced() -> None:
    """The failure itself, made on purpose: loading the compiled part raises OSError as a CUDA build's does."""
    code = """
import sys, importlib.abc, importlib.util
class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name == "torchaudio._extension":
            return importlib.util.spec_from_loader(name, self)
    def exec_module(self, module):
        raise OSError("libcudart.so.13: cannot open shared object file")
sys.meta_path.insert(0, Broken())
from selfflow_tokenizers import ensure_torchaudio
assert ensure_torchaudio() and ensure_torchaudio()
import torchaudio.functional as F, torch
print(F.resample(torch.ones(1, 100), 2, 1).shape[1], sys.modules["torchaudio._extension"]._IS_TORCHAUDIO_EXT_AVAILABLE)
"""
    assert run(code).split() == ["50", "False"]
