"""``selfflow-mm inspect``: a checkpoint, run, shard or configuration, said in words."""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HELP = "say in words what a checkpoint, run, shard, encoded file or configuration holds"
EXAMPLES = """\
examples:
  selfflow-mm inspect runs/first                            a run: how far it is, its last losses
  selfflow-mm inspect runs/first/checkpoints/step-002000    a checkpoint
  selfflow-mm inspect model.safetensors                     any weights: parameters, types, metadata
  selfflow-mm inspect clip.safetensors                      what `selfflow-mm encode` wrote
  selfflow-mm inspect shards/                               a data set, or one of its .tar files
  selfflow-mm inspect runs/first/latents/world              encoded data
  selfflow-mm inspect tiny.yaml                             a training configuration, resolved and counted
  selfflow-mm inspect tokenizers/tiny_video.yaml            the same for a tokenizer's
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="a run, checkpoint, model or data folder; a .safetensors, .tar or .yaml file")


def run(args: argparse.Namespace) -> int:
    print("\n".join(_on_a_store(args.path) if "://" in args.path else describe(Path(args.path))))
    return 0


#: Sizes that are listed; a collection of pictures that nobody cut can have thousands.
_BUCKETS = 40


def _on_a_store(url: str) -> Iterable[str]:
    from ..data.latents import read_about
    from ..data.latents_copy import described_at

    folder = described_at(url)
    if folder is None:
        return shards(url)
    about = read_about(folder)
    made_by = ", ".join(f"{m} by {about.get('names', {}).get(m, h)}" for m, h in about["tokenizers"].items())
    return [f"{url}: latents of {about['samples']:,} samples of {about['data']}: {made_by}"]


#: What RLDS and LeRobot folders have; another command reads them.
_ROBOT_DATA = ("features.json", "*/features.json", "*.tfrecord*", "meta/info.json")


def describe(path: Path) -> Iterable[str]:
    """Lines about whatever lies at ``path``; UserError when it is nothing this program knows."""
    from ..errors import UserError

    if path.is_dir():
        for marker, reader in _FOLDERS.items():
            if any(path.glob(marker)):
                return reader(path)
        if any(next(path.glob(marker), None) for marker in _ROBOT_DATA):
            raise UserError(f"{path} holds robot data; look at it with: selfflow-mm robot-data inspect {path}")
        contents = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise UserError(
            f"{path} is no run, checkpoint, model or data set (it holds {contents}); "
            f"those have a {', '.join(m for m in _FOLDERS if '*' not in m)} or .tar shards"
        )
    if path.suffix in (".yaml", ".yml") or (not path.exists() and not path.suffix):
        return configuration(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.suffix not in _FILES:
        known = ", ".join([*_FILES, ".yaml"])
        raise UserError(f"{path}: files that end in '{path.suffix}' are unknown here; known are {known} and folders")
    return _FILES[path.suffix](path)


def run_folder(path: Path) -> Iterator[str]:
    """What a run trains, how far it is and how it goes."""
    from ..training.checkpoint import latest_checkpoint
    from ..training.run_folder import read_log, read_run

    record = read_run(path)
    log = read_log(path)
    yield f"{path}: a run that trains a {record['kind']}, with seed {record['seed']}, started {record['started']}"
    yield f"  command     {record['command']}"
    again = record.get("resumed", [])
    if again:
        yield f"  resumed     {len(again)} times, last {again[-1]['started']}"
    if log:
        last = log[-1]
        seconds = last.get("seconds", 0.0)
        yield f"  progress    step {last['step']} after {_duration(seconds)} of work"
        scalars = {k: v for k, v in last.items() if k not in ("step", "seconds")}
        yield f"  last line   {', '.join(f'{k} {_short(v)}' for k, v in scalars.items()) or 'no scalars'}"
    else:
        yield "  progress    nothing logged yet"
    newest = latest_checkpoint(path / "checkpoints")
    yield f"  checkpoint  {newest if newest else 'none yet'}"
    yield f"  software    {', '.join(f'{k} {v}' for k, v in record['versions'].items())}"


def checkpoint(path: Path) -> Iterator[str]:
    """A checkpoint's step and what each of its groups of tensors holds."""
    from ..weights.checkpoints import GroupTensors, group_names, read_state

    record = read_state(path)
    by = f", written by {record['processes']} processes" if record.get("processes", 1) > 1 else ""
    yield f"{path}: a checkpoint after {record['step']:,} steps (format version {record['version']}){by}"
    for group in group_names(record):
        held = GroupTensors(path, group, verify=False)
        tensors = {name: (held.shape(name), held.kind(name)) for name in held.names}
        yield from _indent(_counted(group, tensors))
    yield f"  {len(record['files'])} files, {sum((path / f).stat().st_size for f in record['files']) / 1e6:.1f} MB"
    if record["state"]:
        yield f"  state: {', '.join(record['state'])}"


def model_folder(path: Path) -> Iterator[str]:
    """A folder with a config.json and weights, as tokenizers and exported models are stored."""
    from ..errors import UserError

    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path / 'config.json'} is broken: {error}") from error
    yield f"{path}: a model or tokenizer"
    for key, value in (config if isinstance(config, dict) else {"config": config}).items():
        if isinstance(value, dict):
            yield f"  {key}: {', '.join(f'{k} {_short(v)}' for k, v in value.items())}"
        else:
            yield f"  {key}: {_short(value)}"
    for file in sorted(path.glob("*.safetensors")):
        yield from _indent(safetensors_file(file))


def safetensors_file(path: Path) -> Iterator[str]:
    """Parameters by top-level module, number types and metadata, from the header alone."""
    from safetensors import SafetensorError, safe_open

    from ..errors import UserError

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}
            tensors = {name: (s.get_shape(), s.get_dtype()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from error
    if about.get("format") == "selfflow-encoded":
        yield from encoded_file(path)
        return
    yield from _counted(str(path), tensors, f", {path.stat().st_size / 1e6:.1f} MB")
    for key, value in about.items():
        yield f"  metadata {key}: {_short(value)}"


def _counted(title: str, tensors: Mapping[str, tuple[Sequence[int], str]], size: str = "") -> Iterator[str]:
    """Numbers by top-level module of tensors given by shape and type."""
    modules: dict[str, int] = defaultdict(int)
    types: dict[str, int] = defaultdict(int)
    for name, (shape, dtype) in tensors.items():
        modules[name.split(".")[0]] += math.prod(shape)
        types[dtype] += math.prod(shape)
    total = sum(modules.values())
    kinds = ", ".join(f"{n:,} {t}" if len(types) > 1 else t for t, n in types.items()) or "empty"
    yield f"{title}: {total:,} numbers in {len(tensors)} tensors ({kinds}){size}"
    width = max((len(name) for name in modules), default=0)
    for name, count in modules.items():
        yield f"  {name:<{width}}  {count:>14,}  {count / max(total, 1):6.1%}"


def encoded_file(path: Path) -> Iterator[str]:
    """The tokens of a media file: what was encoded, by which tokenizers, to how much."""
    from ..data.encoded import EncodedFile

    file = EncodedFile(path)
    media = " and ".join(file.tracks)
    source, size = file.about.get("source", "an unknown file"), path.stat().st_size / 1e6
    yield f"{path}: {media} of {source} as tokens, {size:.1f} MB"
    for medium, track in file.tracks.items():
        e, spec = track.extent, track.spec
        if medium == "audio":
            seconds, channels = e.samples / spec.sample_rate, spec.audio_channels
            what = f"{seconds:.2f} s of sound at {spec.sample_rate} Hz, {channels} channels"
        elif medium == "video":
            what = (
                f"{e.frames} frames of {e.height} x {e.width} at {_short(e.fps)} per second ({e.frames / e.fps:.2f} s)"
            )
        else:
            what = f"an image of {e.height} x {e.width}"
        yield f"  {medium}  {what}"
        yield f"    {track.tokens:,} tokens of {spec.channels} values, tokenizer {spec.name} ({track.tokenizer})"
    if file.about.get("created_by"):
        yield f"  made by  {file.about['created_by']}"


def shards(path: Path | str) -> Iterator[str]:
    """A data set (or one shard of it): modalities, samples, sizes, first captions."""
    from ..data.prepare import describe_bucket
    from ..data.shards import ShardDataset

    data = ShardDataset(path)
    info = data.info
    modalities = ", ".join(info["modalities"])
    yield f"{path}: {len(data):,} samples of {modalities} in {len(data.shards)} shards ({info['format']})"
    if info.get("video"):
        v = info["video"]
        yield f"  video  {v['frames']} frames of {v['height']} x {v['width']} at {_short(v['fps'])} per second"
    if info.get("audio"):
        yield f"  audio  {info['audio']['rate']} Hz, {info['audio']['channels']} channels"
    for bucket in info.get("buckets", ()):
        yield f"  bucket  {describe_bucket(bucket)}: {bucket['samples']:,} samples"
    if info.get("created_by"):
        yield f"  made by  {info['created_by']}"
    for index in range(min(3, len(data))):
        raw = data.raw(index)
        files = ", ".join(f"{ending} {len(content) / 1000:.1f} kB" for ending, content in raw.files.items())
        captions = data.captions(index)
        yield f"  {raw.key} ({files}): {captions[0] if captions else 'no caption'}"


def configuration(path: Path) -> Iterator[str]:
    """A training configuration of a transformer or a tokenizer: resolved, with parameter counts and memory."""
    from ..config import find_config, load_config
    from ..config_yaml import parse_yaml

    file = find_config(path)
    keys = parse_yaml(file.read_text(encoding="utf-8"), str(file)) or {}
    if "video" in keys or "audio" in keys:
        from ..training.tokenizer_config import TokenizerTrainConfig
        from ..training.tokenizer_plan import describe_tokenizer

        yield describe_tokenizer(load_config(TokenizerTrainConfig, file))
    else:
        from ..training.plan import describe as describe_plan

        yield describe_plan(file)


def latents(path: Path) -> Iterator[str]:
    """Encoded data: how many samples of what, by which tokenizers; what was left out; stored text."""
    from ..data.latents import QUARANTINE, TEXT, LatentDataset

    data = LatentDataset(path)
    about = data.about
    size = sum(p.stat().st_size for p in path.glob("part-*.safetensors"))
    yield f"{path}: latents of {data.samples:,} samples of {about['data']}, {size / 1e6:.1f} MB"
    for modality in data.modalities:
        ids = data.having((modality,))
        channels = data.stream(modality, ids[:1]).values.shape[2]
        buckets = data.buckets((modality,))
        sizes = sorted(data.tokens(modality, own[0]) for own in buckets.values())
        tokens = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        name, by = about.get("names", {}).get(modality), about["tokenizers"][modality]
        named = f"{name} (hash {by})" if name and name != by else by
        yield f"  {modality}  {len(ids):,} samples of {tokens} tokens of {channels} channels, tokenizer {named}"
        if len(buckets) > 1:
            most = sorted(buckets, key=lambda b: -len(buckets[b]))
            for bucket in most[:_BUCKETS]:
                own = buckets[bucket]
                yield f"    {bucket}: {len(own):,} samples of {data.tokens(modality, own[0])} tokens"
            if len(most) > _BUCKETS:
                yield f"    and {len(most) - _BUCKETS:,} smaller buckets"
    if about.get("sizes"):
        yield f"  clips  {', '.join(f'{name} {_short(value)}' for name, value in about['sizes'].items())}"
    wordings = sum(len(captions) for captions in data.captions)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in about.get("caption_kinds", {}).items())
    of_kinds = f" ({kinds})" if kinds else ""
    yield f"  captions  {wordings:,} wordings for {sum(bool(c) for c in data.captions):,} samples{of_kinds}"
    for cache in sorted((path / TEXT).glob("*/cache.json")):
        held = json.loads(cache.read_text(encoding="utf-8"))
        what = f"at most {held['max_tokens']} tokens of {held['channels']} channels"
        yield f"  text  embeddings of {held['encoder']}, {what}"
    if data.left_out:
        yield f"  left out  {len(data.left_out):,} samples, listed in {path / QUARANTINE}:"
        for item in data.left_out[:3]:
            yield f"    {item.shard} {item.key}: {item.reason}"


def unfinished_latents(path: Path) -> Iterator[str]:
    """Latents that are still being encoded, or whose job was stopped."""
    from ..data.latents import DRAFT, FORMAT
    from ..errors import UserError

    wanted = json.loads((path / DRAFT).read_text(encoding="utf-8"))
    if wanted.get("format") != FORMAT:
        raise UserError(f"{path} holds a job that was stopped, of {wanted.get('format', 'an unknown kind')}")
    parts = len(list(path.glob("part-*.safetensors")))
    yield f"{path}: unfinished latents of {wanted['samples']:,} samples of {wanted['data']}, {parts:,} parts so far"
    yield "  the `selfflow-mm encode` that began them goes on where it was"


def _indent(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


#: A file that tells what a folder is -> who reads it.
_FOLDERS = {
    "run.json": run_folder,
    "state.json": checkpoint,
    "dataset.json": shards,
    "latents.json": latents,
    "draft.json": unfinished_latents,
    "config.json": model_folder,
    "*.tar": shards,
}
_FILES = {".safetensors": safetensors_file, ".tar": shards}
