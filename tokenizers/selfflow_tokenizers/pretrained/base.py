"""What every adapter to a pretrained autoencoder shares: finding its weights, loading them, saying what is missing."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .._audio_backend import ensure_torchaudio
from ..errors import UserError


class PretrainedCodec(nn.Module):
    """A :class:`~selfflow_tokenizers.codecs.PictureCodec` or ``SoundCodec`` around a library's autoencoder.

    A subclass states the facts below, sets the codec's attributes in ``__init__(module)``, and translates
    ``encode`` and ``decode``. The library's own class does all arithmetic, so results are the library's.

    Attributes:
        name: what the adapter is called on the command line and in files.
        modality: ``image``, ``video`` or ``audio``.
        library: module and class that hold the weights, ``diffusers:AutoencoderKL``.
        source: id on the hub of the weights that the name stands for.
        subfolder: where in that repository they are.
        licence: SPDX id (or the hub's) of those weights.
        patch: latent cells per token along rows and columns that models of these latents use.
        train_shift, sample_shift: timestep shifts for models of these latents, see the spec.
    """

    name: ClassVar[str]
    modality: ClassVar[str]
    library: ClassVar[str]
    source: ClassVar[str]
    subfolder: ClassVar[str] = ""
    licence: ClassVar[str]
    patch: int = 1
    train_shift: ClassVar[float] = 1.0
    sample_shift: ClassVar[float] = 1.0

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval().requires_grad_(False)

    def statistics(self) -> tuple[Tensor | None, Tensor | None]:
        """Mean and deviation per latent channel, ``(C,)`` each, that the authors normalise with: values are
        (raw - mean) / deviation. None stands for 0 and 1.
        """
        return None, None

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, *, download: bool = False) -> Self:
        """Load weights from a folder or the hub's cache.

        Args:
            source: a folder (of the weights, or of the repository they are a subfolder of), or a hub id; None is the
                adapter's own.
            download: fetch them from the hub where they are not cached. Nothing is fetched unless asked for.

        Raises:
            UserError: the library is missing, or no weights of this class are there.
        """
        return cls(load_module(cls.library, source or cls.source, cls.subfolder, download=download, name=cls.name))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the library's own files (config.json and safetensors)."""
        module: Any = self.module
        module.save_pretrained(folder, safe_serialization=True)


def library_class(library: str) -> Any:
    """The class of ``module:Class``, imported when first needed.

    Raises:
        UserError: the package is not installed or too old to have it.
    """
    module, _, name = library.partition(":")
    ensure_torchaudio()
    try:
        found = getattr(importlib.import_module(module), name)
        # Both libraries stand in a placeholder for a class whose own needs are missing.
        if getattr(found, "_backends", None):
            raise ImportError(f"{name} needs {', '.join(found._backends)}")
        return found
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"this tokenizer needs {module}'s {name} ({str(error).splitlines()[0]}); "
            "install the extra: pip install 'selfflow-mm[pretrained]'"
        ) from error


def load_module(
    library: str,
    source: str | Path,
    subfolder: str = "",
    *,
    download: bool = False,
    name: str,
    needed: tuple[str, ...] = (),
) -> nn.Module:
    """An autoencoder of the class ``library`` from a folder or the hub's cache, in float32 on the CPU.

    Args:
        needed: every subfolder that the adapter reads, for the sentence on what to fetch; empty: ``subfolder``.

    Raises:
        UserError: as :meth:`PretrainedCodec.from_pretrained`; a config of another class, or a weight that is missing
            (the libraries would start it at random and only log it).
    """
    cls = library_class(library)
    where, options = located(source, subfolder, download=download)
    if library.startswith("diffusers"):
        options["low_cpu_mem_usage"] = False  # the other way needs accelerate
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries call the hub's one with arguments that it deprecates
            _check_class(cls, where, options)
            module, report = cls.from_pretrained(
                where, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True, **options
            )
        if report["missing_keys"]:
            raise ValueError(f"its weights lack {min(report['missing_keys'])} ({len(report['missing_keys'])} missing)")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(_not_here(name, cls.__name__, source, needed or (subfolder,), error)) from error
    return module


def located(source: str | Path, subfolder: str = "", *, download: bool = False) -> tuple[str, dict[str, Any]]:
    """A folder or hub id and the options that the libraries take with it; a folder may be ``subfolder`` itself."""
    local = Path(source).expanduser()
    options: dict[str, Any] = {"local_files_only": not download}
    if subfolder and (not local.is_dir() or (local / subfolder / "config.json").is_file()):
        options["subfolder"] = subfolder
    return (str(local) if local.is_dir() else str(source)), options


def stated_class(cls: Any, where: str, options: dict[str, Any]) -> str | None:
    """What a config.json says it belongs to: a class name of diffusers, a model type of transformers.

    Args:
        cls: any class of the same library that can read a config (for transformers, one with ``config_class``).
    """
    options = {key: value for key, value in options.items() if key in ("subfolder", "local_files_only")}
    if hasattr(cls, "load_config"):
        return cls.load_config(where, **options).get("_class_name")
    return cls.config_class.get_config_dict(where, **options)[0].get("model_type")


def _check_class(cls: Any, where: str, options: dict[str, Any]) -> None:
    stated = stated_class(cls, where, options)
    wanted = cls.__name__ if hasattr(cls, "load_config") else cls.config_class.model_type
    if stated not in (None, wanted):
        raise ValueError(f"its config.json is that of '{stated}'")


def _not_here(name: str, kind: str, source: str | Path, subfolders: tuple[str, ...], error: Exception) -> str:
    if Path(source).expanduser().is_dir() or not isinstance(error, OSError):  # found, and of no use
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # torch's list of misfits has a heading.
        reason = next((line for line in lines if not line.endswith(":")), type(error).__name__)
        return f"{source} holds no {kind} with safetensors weights: {reason}"
    include = "".join(f" --include '{subfolder}/*'" for subfolder in subfolders if subfolder)
    target = str(source).rstrip("/").split("/")[-1]
    return (
        f"the weights of {name} ({source}) are no folder here and not in the hub's cache; fetch them with "
        f"`hf download {source}{include} --local-dir {target}` where there is a network, and name {name}:{target}"
    )
