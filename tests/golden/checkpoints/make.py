#!/usr/bin/env python3
"""Writes checkpoints as training programs and libraries save them, and features of their models.

    pip install torch==2.15.0 timm==1.0.31 transformers==5.24.0 peft==0.21.2 lightning==2.6.6 \
        omegaconf==2.4.0 onnx==1.23.2 onnxscript==0.7.2 safetensors
    python make.py        writes next to itself

All files with the weights of `plain*.safetensors` must give that file's fingerprint. `expected_*`
holds an input and the features that the library itself computes of it.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import enum
import functools
import pathlib
import warnings

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
DIM, DEPTH, HEADS, HIDDEN, PATCH, GRID, REGISTERS = 8, 4, 2, 16, 4, 4, 2
warnings.filterwarnings("ignore")


def hub(seed: int, registers: int = 0, swiglu: bool = False) -> dict[str, torch.Tensor]:
    """Returns random weights under the hub's names; the biases of keys are 0 without registers."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, around: float = 0.0) -> torch.Tensor:
        return around + 0.3 * torch.randn(*shape, generator=generator)

    state = {
        "cls_token": random(1, 1, DIM),
        "pos_embed": random(1, 1 + GRID * GRID, DIM),
        "mask_token": random(1, DIM),
        "patch_embed.proj.weight": random(DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": random(DIM),
    }
    if registers:
        state["register_tokens"] = random(1, registers, DIM)
    first, second, wide = ("w12", "w3", 2 * HIDDEN) if swiglu else ("fc1", "fc2", HIDDEN)
    for block in range(DEPTH):
        bias = random(3 * DIM)
        if not registers:
            bias[DIM : 2 * DIM] = 0
        tensors = {
            "norm1.weight": random(DIM, around=1), "norm1.bias": random(DIM),
            "attn.qkv.weight": random(3 * DIM, DIM), "attn.qkv.bias": bias,
            "attn.proj.weight": random(DIM, DIM), "attn.proj.bias": random(DIM),
            "ls1.gamma": random(DIM, around=1),
            "norm2.weight": random(DIM, around=1), "norm2.bias": random(DIM),
            f"mlp.{first}.weight": random(wide, DIM), f"mlp.{first}.bias": random(wide),
            f"mlp.{second}.weight": random(DIM, HIDDEN), f"mlp.{second}.bias": random(DIM),
            "ls2.gamma": random(DIM, around=1),
        }
        state |= {f"blocks.{block}.{name}": tensor for name, tensor in tensors.items()}
    return state | {"norm.weight": random(DIM, around=1), "norm.bias": random(DIM)}


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def renamed(state: dict, change) -> dict:
    return {change(name): tensor for name, tensor in state.items()}


def save(value, name: str, **options) -> None:
    torch.save(value, HERE / name, **options)


PLAIN, OTHER = hub(1), hub(2)
REG, GATED = hub(3, REGISTERS), hub(4, REGISTERS, swiglu=True)


class Color(enum.Enum):
    RED = 1


def arguments() -> argparse.Namespace:
    return argparse.Namespace(arch="vit", lr=5e-4, out=pathlib.Path("out"), color=Color.RED)


def objects() -> dict:
    """Returns what programs keep next to weights."""
    return {
        "config": OmegaConf.create({"model": {"arch": "vit", "drop": [0.1, 0.2]}}),
        "scalar": np.float64(0.5), "array": np.arange(6.0).reshape(2, 3),
        "random": np.random.RandomState(0).get_state(), "torch_random": torch.get_rng_state(),
        "when": datetime.datetime(2026, 1, 2, 3, 4), "delta": datetime.timedelta(1),
        "color": Color.RED, "set": {1, 2}, "frozen": frozenset("ab"), "complex": 1 + 2j,
        "bytes": b"ab", "bytearray": bytearray(b"cd"), "decimal": decimal.Decimal("1.5"),
        "path": pathlib.Path("a/b"), "partial": functools.partial(print, 1, end=""),
        "long": 1 << 200, "negative": -(1 << 40), "float": 1e300, "none": None, "true": True,
        "type": torch.float32, "device": torch.device("cpu"), "size": torch.Size([1, 2]),
        "function": torch.relu, "slice": slice(1, 2), "range": range(3), "text": "Ünïcode",
        "dataclass": torch.optim.lr_scheduler.StepLR, "integers": torch.arange(4),
    }


# Training programs


def training() -> None:
    heads = {"head.mlp.0.weight": torch.ones(4, DIM)}
    parameters = [nn.Parameter(tensor.clone()) for tensor in list(OTHER.values())[:3]]
    optimizer = torch.optim.AdamW(parameters)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    student, teacher = OTHER | heads, PLAIN | heads
    save({
        "student": prefixed(student, "module.backbone."),
        "teacher": prefixed(teacher, "backbone."),
        "optimizer": optimizer.state_dict(), "epoch": 3, "args": arguments(), "fp16_scaler": None,
    }, "dino.pth")
    save({"model": OTHER, "model_ema": PLAIN, "args": arguments(), "epoch": 1}, "model_ema.pth")
    save({"arch": "vit", "state_dict": OTHER, "state_dict_ema": prefixed(PLAIN, "module."),
          "metric": np.float64(76.5), "args": arguments()}, "timm_training.pth")
    save({"state_dict": prefixed(OTHER, "student.module.") | prefixed(PLAIN, "teacher.module.")},
         "one_dict.pth")
    save({"outer": {"state": {"state_dict": prefixed(PLAIN, "_orig_mod.module.model.")}}},
         "nested.pth")
    save({"a": PLAIN, "b": OTHER}, "unclear.pth")
    save([{"model": PLAIN}, optimizer.state_dict()], "list.pth")

    chunks = renamed(PLAIN, lambda name: chunked(name, through=True))
    others = renamed(OTHER, lambda name: chunked(name, through=True))
    save({"model": prefixed(others, "student.backbone.") | prefixed(chunks, "teacher.backbone.")
          | {"teacher.dino_head.last_layer.weight": torch.ones(2, 2)}, "iteration": 9},
         "dinov2_training.pth")
    save(renamed(PLAIN, lambda name: chunked(name, through=False)), "chunks_of_their_own.pth")
    wrapped = renamed(PLAIN, lambda name: name.replace(".attn.", "._fsdp_wrapped_module.attn.")
                      .replace(".mlp.", "._checkpoint_wrapped_module._orig_mod.mlp."))
    save(wrapped, "wrapped.pth")


def chunked(name: str, through: bool) -> str:
    if not name.startswith("blocks."):
        return name
    _, block, rest = name.split(".", 2)
    chunk, inner = divmod(int(block), 2)
    return f"blocks.{chunk}.{block if through else inner}.{rest}"


def pickles() -> None:
    for protocol in (2, 3, 4, 5):
        save({"before": objects(), "state_dict": PLAIN, "after": objects()},
             f"objects_{protocol}.pth", pickle_protocol=protocol)
    save({"args": arguments(), "teacher": PLAIN, "student": OTHER}, "legacy.pth",
         _use_new_zipfile_serialization=False)
    save({"objects": objects(), "model": PLAIN}, "legacy_4.pth", pickle_protocol=4,
         _use_new_zipfile_serialization=False)
    save({name: nn.Parameter(tensor) for name, tensor in PLAIN.items()}, "parameters.pth")
    # Transposed views, and parts of one storage.
    strided = {name: tensor.T.contiguous().T if tensor.dim() == 2 else tensor
               for name, tensor in PLAIN.items()}
    flat = torch.cat([tensor.flatten() for tensor in PLAIN.values()])
    parts = flat.split([tensor.numel() for tensor in PLAIN.values()])
    shared = {name: part.view_as(PLAIN[name]) for name, part in zip(PLAIN, parts)}
    save(strided, "strided.pth")
    save(shared, "shared.pth")
    doubles = {name: tensor.double() * (1 + 1e-12) for name, tensor in PLAIN.items()}
    save(doubles, "float64.pth")
    save_file(doubles, HERE / "float64.safetensors")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.ones(1, 1, DIM))
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    Model.__qualname__ = "Model"
    globals()["Model"] = Model
    averages(Model())
    save(Model(), "module.pth")
    save({"epoch": 1, "model": Model()}, "module_in_dict.pth")
    save(Model(), "module_legacy.pth", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(Model()), str(HERE / "script.pt"))


class Average:
    """Keeps the moving average of a model, as a class that is no module."""

    def __init__(self, shadow: dict) -> None:
        self.decay, self.shadow = 0.999, shadow


def averages(module: nn.Module) -> None:
    """Writes students whose moving average has no names.

    The committed files were made without PyTorch: by Python's pickle, with the same calls and the
    layout of torch.save.
    """
    save({"student": prefixed(OTHER, "module.backbone."), "teacher": module, "epoch": 1},
         "teacher_module.pth")
    save({"model": OTHER, "ema": module}, "ema_module.pth")
    save({"model": OTHER, "ema": {"decay": 0.999, "num_updates": 3, "collected_params": None,
                                  "shadow_params": list(PLAIN.values())}}, "shadow_params.pth")
    save({"model": OTHER, "model_ema": Average(PLAIN)}, "ema_object.pth")


def lightning() -> None:
    import lightning as pl

    class Learner(pl.LightningModule):
        def __init__(self, config, backbone, when, color) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.student = Names(OTHER)
            self.teacher = Names(PLAIN)

        def training_step(self, batch, _):
            return self.student.tensors[0].sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    class Names(nn.Module):
        def __init__(self, state) -> None:
            super().__init__()
            self.tensors = nn.ParameterList(nn.Parameter(tensor) for tensor in state.values())
            self.names = list(state)

        def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
            destination = {} if destination is None else destination
            for name, tensor in zip(self.names, self.tensors):
                destination[prefix + name] = tensor.detach()
            return destination

    config = OmegaConf.create({"lr": 0.1, "layers": [1, 2]})
    learner = Learner(config, nn.Linear(2, 2), datetime.date(2026, 1, 1), Color.RED)
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_checkpointing=False, default_root_dir="/tmp",
                         enable_model_summary=False)
    trainer.fit(learner, torch.utils.data.DataLoader([0]))
    trainer.save_checkpoint(HERE / "lightning.ckpt")


# Libraries


def wave() -> torch.Tensor:
    """Returns pixels as bytes, [height, width, 3]."""
    side = PATCH * GRID
    y, x, c = np.mgrid[0:side, 0:side, 0:3]
    pixels = 127.5 + 127.5 * np.sin(0.37 * y + 0.61 * x + 1.7 * c)
    return torch.from_numpy(np.rint(pixels).astype(np.uint8))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    return ((pixels / 255 - mean) / std).permute(2, 0, 1)[None]


def expect(name: str, tokens: torch.Tensor, registers: int) -> None:
    save_file({"pixels": wave().float(), "cls": tokens[0, 0].contiguous(),
               "patch_tokens": tokens[0, 1 + registers :].contiguous()}, HERE / name)


def transformers() -> None:
    from transformers import Dinov2Config, Dinov2Model
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    common = dict(hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS, mlp_ratio=2,
                  image_size=PATCH * GRID, patch_size=PATCH)
    for state, swiglu, name in ((PLAIN, False, "hf5"), (REG, False, "hf5_reg"),
                                (GATED, True, "hf5_swiglu_reg")):
        if "register_tokens" in state:
            config = Dinov2WithRegistersConfig(**common, num_register_tokens=REGISTERS,
                                               use_swiglu_ffn=swiglu)
            model = Dinov2WithRegistersModel(config)
        else:
            model = Dinov2Model(Dinov2Config(**common))
        model.load_state_dict(to_transformers_5(state))
        model.eval()
        save_file({k: v.contiguous() for k, v in model.state_dict().items()},
                  HERE / f"{name}.safetensors")
        with torch.no_grad():
            tokens = model(normalized(wave())).last_hidden_state
        expect(f"expected_{name}.safetensors", tokens, REGISTERS if "reg" in name else 0)
        if name == "hf5":
            with torch.no_grad():
                torch.onnx.export(model, (normalized(wave()),), str(HERE / "dynamo.onnx"),
                                  dynamo=True, external_data=False, verbose=False)
                strip(HERE / "dynamo.onnx")
                torch.onnx.export(model, (normalized(wave()),), str(HERE / "torchscript.onnx"),
                                  dynamo=False, opset_version=17)


def strip(file: pathlib.Path) -> None:
    """Removes the stack traces that the exporter leaves."""
    import onnx

    model = onnx.load(file)
    for node in [*model.graph.node, *model.graph.input, *model.graph.value_info, *model.graph.output,
                 *model.graph.initializer]:
        del node.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:], model.functions[:]
    onnx.save(model, file)


def to_transformers_5(state: dict) -> dict:
    """Follows the conversion of transformers 4's `convert_dinov2_to_hf.py`, with the new names."""
    out = {}
    table = {"attn.proj": "attention.o_proj", "mlp.w3": "mlp.down_proj",
             "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            block = f"encoder.layer.{block}"
            module, leaf = rest.rsplit(".", 1)
            if module == "attn.qkv":
                for part, value in zip("qkv", tensor.chunk(3)):
                    out[f"{block}.attention.{part}_proj.{leaf}"] = value
            elif module == "mlp.w12":
                for part, value in zip(("gate", "up"), tensor.chunk(2)):
                    out[f"{block}.mlp.{part}_proj.{leaf}"] = value
            elif rest in table:
                out[f"{block}.{table[rest]}"] = tensor
            else:
                out[f"{block}.{table.get(module, module)}.{leaf}"] = tensor
        elif name.startswith("norm."):
            out["layernorm" + name.removeprefix("norm")] = tensor
        elif name.startswith("patch_embed.proj."):
            out["embeddings.patch_embeddings.projection." + name.rsplit(".", 1)[1]] = tensor
        else:
            out["embeddings." + name.replace("pos_embed", "position_embeddings")] = tensor
    return out


def timm() -> None:
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    common = dict(img_size=PATCH * GRID, patch_size=PATCH, embed_dim=DIM, depth=DEPTH,
                  num_heads=HEADS, num_classes=0, init_values=1.0, global_pool="token")
    gated = dict(mlp_ratio=4, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    for name, options in (
        ("timm", dict(mlp_ratio=2)),
        ("timm_reg", dict(mlp_ratio=2, reg_tokens=REGISTERS, no_embed_class=True)),
        ("timm_reg_in_positions", dict(mlp_ratio=2, reg_tokens=REGISTERS)),
        ("timm_swiglu_reg", dict(reg_tokens=REGISTERS, no_embed_class=True, **gated)),
    ):
        torch.manual_seed(7)
        model = VisionTransformer(**common, **options).eval()
        for parameter in model.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape) + (parameter.dim() == 1) * 0.5
        save_file(dict(model.state_dict()), HERE / f"{name}.safetensors")
        with torch.no_grad():
            tokens = model.forward_features(normalized(wave()))
        expect(f"expected_{name}.safetensors", tokens, options.get("reg_tokens", 0))
    parts = {}
    for name, tensor in PLAIN.items():
        if name.endswith("attn.qkv.bias"):
            q, _, v = tensor.chunk(3)
            parts[name.replace("qkv.bias", "q_bias")] = q
            parts[name.replace("qkv.bias", "v_bias")] = v
        else:
            parts[name] = tensor
    save(parts, "bias_parts.pth")
    foreign = PLAIN | {f"blocks.{block}.attn.q_norm.weight": torch.ones(4) for block in range(4)}
    save(foreign, "q_norm.pth")
    save({k: v for k, v in PLAIN.items() if k != "pos_embed"}
         | {"rope_embed.periods": torch.ones(2)}, "rope.pth")
    save(PLAIN | {"pos_embed": torch.ones(1, 50, DIM)}, "other_grid.pth")


def adapters() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
                          mlp_ratio=2, image_size=PATCH * GRID, patch_size=PATCH)
    model = Dinov2Model(config)
    model.load_state_dict(to_transformers_5(PLAIN))
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    save(tuned.state_dict(), "lora.pth")
    tuned.save_pretrained(HERE / "adapter")
    (HERE / "adapter/adapter_model.safetensors").rename(HERE / "adapter_model.safetensors")
    for file in (HERE / "adapter").iterdir():
        file.unlink()
    (HERE / "adapter").rmdir()
    # New adapters add nothing, so the merged weights are the plain ones.
    tuned.merge_adapter()
    merged = {name: tensor for name, tensor in tuned.state_dict().items() if ".lora_" not in name}
    save(merged, "lora_merged.pth")


if __name__ == "__main__":
    for state, name in ((PLAIN, "plain"), (REG, "plain_reg"), (GATED, "plain_swiglu_reg"),
                        (OTHER, "plain_other")):
        save_file(state, HERE / f"{name}.safetensors")
    training()
    pickles()
    lightning()
    timm()
    adapters()
    transformers()
    for file in HERE.iterdir():
        file.chmod(0o644)
