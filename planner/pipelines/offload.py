"""Weights in files instead of memory, for the length of a measurement: `profile --offload-folder FOLDER`.

diffusers and transformers map a weight file if it has the requested float type: the operating system reads pages when
they are used, and drops them when memory is short. Weights that are converted while they load are put into memory
instead. Within `offloaded`, these are written to files in the folder and mapped, too. The model behaves as usual.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bitplan.planner.environment import environment
from bitplan.planner.errors import UserError
from bitplan.planner.files import PathLike
from bitplan.planner.texts import system_reason

LEAST = 1 << 16  # bytes; smaller tensors stay in memory
PREFIX = "bitplan-weights-"  # of file names
IN_MEMORY = ("tmpfs", "ramfs")  # file systems
_ONE_THREAD = "HF_DEACTIVATE_ASYNC_LOAD"  # a dispatch mode acts on one thread; transformers loads in several


@contextmanager
def offloaded(folder: PathLike | None) -> Iterator[None]:
    """Within the `with`, each new tensor of 64 KiB or more that is not a view is stored in a file of the folder.

    The files have no names, so the system deletes each with its last tensor or with the process. None has no effect.
    Raises UserError if the folder cannot be created, is on a file system in memory, or is full.
    """
    if folder is None:
        yield
        return
    _check_folder(Path(folder))
    with environment({_ONE_THREAD: "1"}), _Mapping(Path(folder)):
        yield


class _Mapping(TorchDispatchMode):
    """Puts the results of operations into files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if (
            func is torch.ops.aten._to_copy.default
            and _on_cpu(args[0])
            and str(options.get("device") or "cpu") == "cpu"
        ):
            form = options.get("memory_format") or torch.preserve_format
            like = torch.empty_like(args[0], dtype=options.get("dtype"), device="meta", memory_format=form)
            if like.untyped_storage().nbytes() >= LEAST:  # converted directly into its file
                return self._room_for(like).copy_(args[0])
        result = func(*args, **options)
        new = not any(returned.alias_info for returned in func._schema.returns)
        large = new and _on_cpu(result) and result.untyped_storage().nbytes() >= LEAST
        return self._room_for(result).copy_(result) if large else result

    def _room_for(self, like: Tensor) -> Tensor:
        """Returns a mapped tensor of the same shape, strides and type."""
        flat = _mapped(self.folder, like.untyped_storage().nbytes(), like.dtype)
        return flat.as_strided(like.size(), like.stride(), like.storage_offset())


def _on_cpu(value: object) -> bool:
    """Whether the value is a dense tensor on the CPU."""
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def _mapped(folder: Path, size: int, dtype: torch.dtype) -> Tensor:
    """Returns a flat tensor of zeros in an unnamed file. size: in bytes."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=PREFIX) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # otherwise a full disk kills the process on a later write
        except OSError as error:
            raise UserError(
                f"--offload-folder {folder} has no room for {size / 2**20:.0f} MiB more: {system_reason(error)}; name "
                "a folder with room for all converted weights"
            ) from error
        return torch.from_file(file.name, shared=True, size=size // dtype.itemsize, dtype=dtype)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"--offload-folder {folder} cannot be written: {system_reason(error)}; name another") from error
    if (kind := _file_system(folder)) in IN_MEMORY:
        raise UserError(f"--offload-folder {folder} is on a file system in memory ({kind}); name a folder on a disk")


def _file_system(folder: Path) -> str | None:
    """Returns the type of the folder's file system, or None outside Linux."""
    device, mounts = os.stat(folder).st_dev, Path("/proc/self/mountinfo")
    place = f"{os.major(device)}:{os.minor(device)}"
    lines = (line.split() for line in (mounts.read_text().splitlines() if mounts.is_file() else ()))
    return next((words[words.index("-") + 1] for words in lines if words[2] == place), None)
