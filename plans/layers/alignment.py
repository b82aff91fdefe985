"""Copies float tensors to where torch allocates memory, since products of floats may differ with the address.

Files are mapped into memory, where their tensors begin anywhere. Kernels of float products handle the elements before
the first multiple of 16 bytes (or more, by the processor) apart, and so add in another order.
"""

from __future__ import annotations

from torch import Tensor, nn

ALIGNMENT = 64  # bytes of whose multiples torch allocates memory on a CPU


def align(module: nn.Module) -> int:
    """Copies the data of each float parameter and buffer that begins elsewhere, one after the other, and returns the
    bytes copied.

    Parameters stay the same objects. Codes and scales of packed layers stay where they are, mapped: integers are
    multiplied exactly, and scales one by one.
    """
    found = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers()) if is_misaligned(tensor)}
    for tensor in found.values():
        tensor.data = tensor.data.clone()
    return sum(tensor.nbytes for tensor in found.values())


def is_misaligned(tensor: Tensor) -> bool:
    """Whether this is a plain float tensor on a CPU whose memory begins elsewhere than at a multiple of `ALIGNMENT`."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"
    return plain and tensor.is_floating_point() and tensor.data_ptr() % ALIGNMENT != 0
