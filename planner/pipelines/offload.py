"""Weights in files instead of memory, for the length of a measurement: `profile --offload-folder FOLDER`.

diffusers and transformers map a file of weights that is in the float type asked for, so that the kernel reads a layer's
weights when they are used, and drops them again where memory is short. What they convert as they load they put into
memory. Within `offloaded` that lies in files of the folder and is mapped, too: an ordinary model, whose weights can be
read at any time, with as many of them in memory as there is room for.
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

LEAST = 1 << 16  # bytes: what is smaller stays in memory
PREFIX = "bitplan-weights-"  # of files
IN_MEMORY = ("tmpfs", "ramfs")  # file systems
_ONE_THREAD = "HF_DEACTIVATE_ASYNC_LOAD"  # a dispatch mode is of one thread; transformers loads in several


@contextmanager
def offloaded(folder: PathLike | None) -> Iterator[None]:
    """Within the `with`, every tensor of 64 KiB or more that is made, and that views nothing else, lies in a file.

    The files have no names, and are gone when the last tensor is, or the process, however it ends. No folder: nothing
    is different. Raises UserError for a folder that cannot be made, is itself kept in memory, or has no room.
    """
    if folder is None:
        yield
        return
    _check_folder(Path(folder))
    with environment({_ONE_THREAD: "1"}), _Mapping(Path(folder)):
        yield


class _Mapping(TorchDispatchMode):
    """Puts what operations make into files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.ops.aten._to_copy.default and _on_cpu(args[0]) and str(given.get("device") or "cpu") == "cpu":
            form = given.get("memory_format") or torch.preserve_format
            like = torch.empty_like(args[0], dtype=given.get("dtype"), device="meta", memory_format=form)
            if like.untyped_storage().nbytes() >= LEAST:  # written where it stays, never whole in memory
                return self._room_for(like).copy_(args[0])
        made = func(*args, **given)
        new = not any(returned.alias_info for returned in func._schema.returns)
        large = new and _on_cpu(made) and made.untyped_storage().nbytes() >= LEAST
        return self._room_for(made).copy_(made) if large else made

    def _room_for(self, like: Tensor) -> Tensor:
        """A mapped tensor of the same shape, layout and float type."""
        flat = _mapped(self.folder, like.untyped_storage().nbytes(), like.dtype)
        return flat.as_strided(like.size(), like.stride(), like.storage_offset())


def _on_cpu(value: object) -> bool:
    """Whether it is an ordinary tensor there."""
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def _mapped(folder: Path, size: int, dtype: torch.dtype) -> Tensor:
    """(size in bytes) zeros, in a file that has lost its name."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=PREFIX) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk kills the process when it writes
        except OSError as error:
            raise UserError(
                f"--offload-folder {folder} takes no {size / 2**20:.0f} MiB more: {error.strerror}; name a folder "
                "with room for all converted weights"
            ) from error
        return torch.from_file(file.name, shared=True, size=size // dtype.itemsize, dtype=dtype)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"--offload-folder {folder} cannot be written: {error.strerror}; name another") from error
    if (kind := _file_system(folder)) in IN_MEMORY:
        raise UserError(f"--offload-folder {folder} is kept in memory itself ({kind}); name a folder on a disk")


def _file_system(folder: Path) -> str | None:
    """The kind of file system that a folder is on, where Linux tells."""
    device, mounts = os.stat(folder).st_dev, Path("/proc/self/mountinfo")
    place = f"{os.major(device)}:{os.minor(device)}"
    lines = (line.split() for line in (mounts.read_text().splitlines() if mounts.is_file() else ()))
    return next((words[words.index("-") + 1] for words in lines if words[2] == place), None)
