"""Packed folders with edited configurations and tensors: what loads holds finite weights and runs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tests.fuzz.box import watched
from tests.fuzz.case import Case, command, raised
from tests.fuzz.values import CANARY, NAMES, mutated, nasty, spoilt, text_of
from tests.fuzz.world import copied

LARGE = 1e6
CONFIG, INDEX, TENSORS = "unet/config.json", "model_index.json", "unet/diffusion_pytorch_model.safetensors"


def run(case: Case) -> None:
    """Spoils a copy of the folder, loads it and runs it."""
    random = case.random
    folder = copied(case.world.packed, case.box.inputs)
    edits = random.choice((0, 1, 1, 1, 1, 1, 1, 2))
    for _ in range(edits):
        random.choice(_EDITS)(case, folder)
    loaded = _load(case, folder)
    if not edits and loaded is None:
        case.find("a good packed folder is refused", "")
    if loaded is not None:
        _accepted(case, loaded)
    if random.random() < 0.1:
        command(case, "bench", case.world.pipeline_plan, folder, "--pairs", 1)
    if random.random() < 0.2:
        command(case, "inspect", "--config", random.choice((folder, folder / INDEX, folder / CONFIG)))


def _load(case: Case, folder: Path) -> Any:
    """The pipeline, or None where it is refused with one line."""
    import contextlib
    import io

    from bitplan.planner.errors import UserError
    from bitplan.planner.pipelines.sources import REFUSALS, load_pipeline

    said = io.StringIO()
    try:
        with watched(case.box), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return load_pipeline(str(folder))
    except REFUSALS as refused:
        if "\n" in str(refused).strip() and isinstance(refused, UserError):
            case.find("a refusal of several lines", refused)
        if said.getvalue():
            case.find("a library says more than the refusal", (said.getvalue()[:200], case.edits))
        return None
    except Exception as error:
        case.find(f"raised {raised(error)}", (error, case.edits))
        return None


def _accepted(case: Case, pipe: Any) -> None:
    """All packed weights are finite, and the model runs and gives finite numbers."""
    import torch

    from bitplan.plans.layers.modules import is_packed

    layers = {name: module for name, module in pipe.unet.named_modules() if is_packed(module)}
    if not layers:
        return  # diffusers alone has loaded it
    for module in layers.values():
        numbers = (module.weight, *(tensor for tensor in module.parameters() if torch.Tensor.is_floating_point(tensor)))
        if not all(torch.isfinite(torch.Tensor(each.detach().float())).all() for each in numbers):
            case.find("a packed layer with numbers that are not finite", case.edits)
            return
    try:
        with torch.no_grad():
            out = pipe.unet(torch.linspace(-1, 1, 192).view(1, 3, 8, 8), torch.tensor(1.0)).sample
    except Exception as error:
        if type(error).__name__ != "KernelError":
            case.find(f"loaded, and raised {raised(error)}", (error, case.edits))
        return
    if not torch.isfinite(out).all() and all(_is_moderate(tensor) for tensor in pipe.unet.state_dict().values()):
        case.find("loaded, and its output is not finite", case.edits)


def _is_moderate(tensor: Any) -> bool:
    """Whether sums of products of the numbers are in the range of floats."""
    return not tensor.is_floating_point() or bool((tensor.float().abs() < LARGE).all())


def _data(path: Path) -> Any:
    """What the file says; None where an earlier edit spoilt it."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _config(case: Case, folder: Path) -> None:
    """Edits what the configuration says of the quantization."""
    path = folder / CONFIG
    data = _data(path)
    if not isinstance(data, dict) or "quantization_config" not in data:
        return
    data["quantization_config"] = mutated(data["quantization_config"], case.random)
    path.write_text(text_of(data).replace("@box", str(case.box.root)), "utf-8", "surrogatepass")
    case.edits.append(f"quantization_config = {str(data['quantization_config'])[:200]}")


def _moved(case: Case, folder: Path) -> None:
    """Gives a layer another scheme, another path, or a range."""
    path = folder / CONFIG
    data = _data(path)
    try:
        own = data["quantization_config"]
        scheme = case.random.choice(list(own["schemes"]))
        layer = case.random.choice(own["schemes"][scheme])
        to = case.random.choice((*own["schemes"], "w4a8", "w2a8", "w8a8t", "w8a8t+first", "w4g64za8", "fp8a8", *NAMES))
        if case.random.random() < 0.5:
            own["schemes"][scheme].remove(layer)
            own["schemes"].setdefault(to, []).append(layer)
        elif case.random.random() < 0.5:
            own["ranges"][layer] = case.random.choice(([0.0], [1e-320], [1e308], [-1.0], [nasty(case.random)], [1, 2]))
        else:
            own["schemes"][scheme].append(case.random.choice(("", "conv_in.", "..", "conv_norm_out", "time_embedding")))
    except (TypeError, KeyError, AttributeError, IndexError, ValueError):
        return
    path.write_text(text_of(data), "utf-8", "surrogatepass")
    case.edits.append(f"{layer}: {scheme} -> {to}; {str(own.get('ranges'))[:100]}")


def _index(case: Case, folder: Path) -> None:
    """Edits which classes the pipeline is made of."""
    path = folder / INDEX
    data = _data(path)
    if case.random.random() < 0.5 and isinstance(data, dict):
        data[case.random.choice(("unet", "scheduler", "vae", "_class_name"))] = case.random.choice(
            ([CANARY, "Metric"], [CANARY, "pipe"], [f"..{CANARY}", "pipe"], CANARY, [None, None], ["diffusers", CANARY])
        )
    else:
        data = mutated(data, case.random)
    path.write_text(text_of(data).replace("@box", str(case.box.root)), "utf-8", "surrogatepass")
    case.edits.append(f"index = {str(data)[:200]}")


def _header(case: Case, folder: Path) -> None:
    """Edits the header of the tensors: names, types, shapes, places."""
    header, body = parts_of(folder / TENSORS)
    if header is None:
        return
    write_parts(folder / TENSORS, text_of(mutated(header, case.random)).encode("utf-8", "surrogatepass"), body)
    case.edits.append("header of the tensors")


def _retyped(case: Case, folder: Path) -> None:
    """Gives a tensor another type or shape of the same size, or the numbers of another tensor."""
    random = case.random
    header, body = parts_of(folder / TENSORS)
    if header is None:
        return
    name = random.choice([key for key in header if key != "__metadata__"])
    entry, other = header[name], header[random.choice([key for key in header if key != "__metadata__"])]
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    kind = random.randrange(4)
    if kind == 0:
        entry["dtype"], entry["shape"] = random.choice((("U8", [size]), ("I8", [size]), ("BOOL", [size]), ("F16", [
            size // 2]), ("F32", [size // 4]), ("I64", [size // 8]), ("F8_E4M3", [size])))  # fmt: skip
    elif kind == 1:
        entry["shape"] = random.choice((entry["shape"][::-1], [size], [1, *entry["shape"]], entry["shape"][:-1], [0]))
    elif kind == 2:
        entry["data_offsets"] = other["data_offsets"]
    else:
        entry["dtype"] = random.choice(("U8", "I8", "F32", "BF16", "F64", "C64", "X"))
    write_parts(folder / TENSORS, text_of(header).encode(), body)
    case.edits.append(f"{name} {entry}")


def _numbers(case: Case, folder: Path) -> None:
    """Puts NaN, infinities, zeros, negative and huge numbers into a tensor."""
    random = case.random
    header, body = parts_of(folder / TENSORS)
    if header is None:
        return
    names = [key for key in header if key != "__metadata__"]
    scales = [key for key in names if key.rpartition(".")[2] in ("scale", "zero", "input_range", "codes")]
    name = random.choice(scales or names)
    start, stop = header[name]["data_offsets"]
    data = bytearray(body)
    value: Any
    if header[name]["dtype"] == "F32":
        value = struct.pack("<f", random.choice((float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 3e38, 1e-45)))
    else:
        value = random.choice((b"\xff\xff\xff\xff", b"\x7f\x7f\x7f\x7f", b"\x00\x00\x00\x00", b"\x00\x7c\x00\x7c"))
    length = (stop - start) if random.random() < 0.3 else 4
    for at in range(start, min(start + length, stop), 4):
        data[at : min(at + 4, stop)] = value[: min(4, stop - at)]
    write_parts(folder / TENSORS, text_of(header).encode(), bytes(data))
    case.edits.append(f"{name} {header[name]['dtype']} = {value.hex()} x {length // 4}")


def _file(case: Case, folder: Path) -> None:
    """Spoils the bytes of a file, or removes it."""
    path = folder / case.random.choice((CONFIG, INDEX, TENSORS, TENSORS))
    if case.random.random() < 0.2:
        path.unlink(missing_ok=True)
    elif path.is_file():
        path.write_bytes(spoilt(path.read_bytes(), case.random))
    case.edits.append(f"bytes of {path.name}")


def parts_of(path: Path) -> tuple[Any, bytes]:
    """The header and the numbers of a file of tensors; None where it is spoilt already."""
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        names = [key for key in header if key != "__metadata__"]
        return (header if names and all(header[n]["data_offsets"][1] >= 0 for n in names) else None), data[8 + size :]
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None, b""


def write_parts(path: Path, header: bytes, body: bytes) -> None:
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


_EDITS = (_config, _config, _moved, _moved, _index, _header, _retyped, _numbers, _numbers, _file)
