"""Files in every shape they come in give the same network; files that do not match are refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from selfflow_mm.errors import UserError
from selfflow_mm.models import ImageNetConfig, SelfFlowPerTokenDiT
from selfflow_mm.models.imagenet_weights import infer_config, load_imagenet, save_imagenet

TINY = ImageNetConfig(
    input_size=8, hidden_size=32, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=11, learn_sigma=True
)


@pytest.fixture(scope="module")
def net() -> SelfFlowPerTokenDiT:
    torch.manual_seed(0)
    net = SelfFlowPerTokenDiT.from_config(TINY)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def assert_same(a: SelfFlowPerTokenDiT, b: SelfFlowPerTokenDiT) -> None:
    assert a.config == b.config
    x, t, y = torch.randn(2, 16, 16), torch.rand(2), torch.tensor([0, 10])
    with torch.no_grad():
        assert torch.equal(a(x, t, y), b(x, t, y))
    assert [p.requires_grad for p in a.parameters()] == [p.requires_grad for p in b.parameters()]


@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "net.", "model.", "state_dict.module."])
def test_bare_and_prefixed_files(net, tmp_path, ending, prefix):
    path = tmp_path / f"weights{ending}"
    state = {prefix + k: v.detach().clone() for k, v in net.state_dict().items()}
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    assert_same(load_imagenet(path, num_heads=2), net)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "ema"])
def test_wrapped_files(net, tmp_path, wrapper):
    torch.save({wrapper: net.state_dict(), "step": 3, "opt": {"state": {0: torch.zeros(2)}}}, tmp_path / "w.pt")
    assert_same(load_imagenet(tmp_path / "w.pt", TINY), net)


def test_of_model_and_ema_the_ema_counts(net, tmp_path):
    other = {k: v + 1 for k, v in net.state_dict().items()}
    torch.save({"model": other, "ema": net.state_dict()}, tmp_path / "w.pt")
    assert_same(load_imagenet(tmp_path / "w.pt", TINY), net)


def test_the_old_file_format_and_half_precision(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same(load_imagenet(tmp_path / "old.pt", TINY), net)
    torch.save({k: v.bfloat16() for k, v in net.state_dict().items()}, tmp_path / "half.pt")
    loaded = load_imagenet(tmp_path / "half.pt", TINY)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_our_files_say_their_shape(net, tmp_path):
    path = save_imagenet(net, tmp_path / "ours.safetensors")
    assert_same(load_imagenet(path), net)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["selfflow"])["config"] == asdict(TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["ours.safetensors"]
    with pytest.raises(UserError, match="has 2 heads, num_heads says 4"):
        load_imagenet(path, num_heads=4)


def test_the_fixture_loads(shared_data, tmp_path):
    with safe_open(shared_data / "reference" / "imagenet_small.safetensors", "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    state = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    torch.save(state, tmp_path / "reference.pt")
    net = load_imagenet(tmp_path / "reference.pt", num_heads=4)
    with torch.no_grad():
        got = net(tensors["input.x"], tensors["input.t_scalar"], tensors["input.y"])
    torch.testing.assert_close(got, tensors["output.velocity_scalar"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [False, True])
@pytest.mark.parametrize("channels", [1, 4, 32])
def test_shapes_show_the_config(sigma, channels):
    config = ImageNetConfig(12, 2, channels, 24, 3, 6, 3.0, 7, sigma)
    with torch.device("meta"):
        state = SelfFlowPerTokenDiT.from_config(config).state_dict()
        released = SelfFlowPerTokenDiT(num_classes=1001, learn_sigma=True, depth=1).state_dict()
    assert infer_config(state, "w.pt", num_heads=6) == config
    assert infer_config(released, "w.pt") == ImageNetConfig(depth=1, num_classes=1001, learn_sigma=True)
    with pytest.raises(UserError, match="width of 24 has; give num_heads"):
        infer_config(state, "w.pt")


def test_a_file_that_does_not_match_is_refused_by_name(net, tmp_path):
    state = dict(net.state_dict())
    del state["blocks.1.attn.qkv.bias"], state["projector.linear1.weight"]
    state["blocks.0.attn.q_norm.weight"] = torch.ones(16)
    state["blocks.0.mlp.fc2.bias"] = torch.ones(31)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError) as caught:
        load_imagenet(tmp_path / "w.pt", num_heads=2)
    sentence = str(caught.value)
    assert "2 missing (blocks.1.attn.qkv.bias, projector.linear1.weight)" in sentence
    assert "1 unexpected (blocks.0.attn.q_norm.weight)" in sentence
    assert "1 of another shape (blocks.0.mlp.fc2.bias is (31,) instead of (32,))" in sentence

    torch.save(net.state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"10 missing \(blocks.2.+, \.\.\.\)"):
        load_imagenet(tmp_path / "w.pt", replace(TINY, depth=3))


class Surprise:
    """Pickles as a call of a function, as an attack would."""

    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_no_weights(net, tmp_path, capsys):
    torch.save({"model": net.state_dict(), "args": Surprise()}, tmp_path / "code.pt")
    torch.save({"model": {"step": 3}}, tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({**net.state_dict(), "step": 3}, tmp_path / "mixed.pt")
    torch.save({"encoder.weight": torch.ones(3)}, tmp_path / "other.pt")
    torch.save(net.state_dict(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:5000])
    save_imagenet(net, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "weights.bin").touch()
    save_file({"a": torch.ones(1)}, tmp_path / "newer.safetensors", {"selfflow": '{"format": "selfflow-imagenet"}'})
    cases = {
        "code.pt": "Python objects beside tensors",
        "none.pt": "holds no weights: a mapping",
        "list.pt": "holds no weights: a mapping",
        "mixed.pt": "step among its weights are no tensors",
        "other.pt": r"no ImageNet transformer of this family: pos_embed, .* \(encoder.weight\)",
        "cut.pt": "cannot be read",
        "cut.safetensors": "cannot be read",
        "text.pt": "no PyTorch file",
        "empty.pt": "no PyTorch file",
        "weights.bin": r"\.pt, \.pth or \.safetensors",
        "newer.safetensors": "version None; this release reads 1",
        "missing.pt": "no such file",
    }
    for name, sentence in cases.items():
        with pytest.raises(UserError, match=sentence) as caught:
            load_imagenet(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(UserError, match="written as .safetensors"):
        save_imagenet(net, tmp_path / "w.pt")
    with pytest.raises(UserError, match="cannot be written"):
        save_imagenet(net, tmp_path / "no" / "w.safetensors")
