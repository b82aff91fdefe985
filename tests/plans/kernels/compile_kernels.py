"""Compiles the Triton kernels for CUDA devices that need not be here: `python tests/plans/kernels/compile_kernels.py`.

For every kernel it checks that integers are multiplied as int8 and that blocks fit: at least the smallest ones into the
least shared memory of an 8.x device.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bitplan.plans.kernels.gpu import product as triton_product
from bitplan.plans.kernels.gpu import rounding as triton_rounding
from bitplan.plans.scheme import parse_scheme

SHARED = 99 << 10  # bytes a block of devices 8.6 and 8.9 may have
POINTERS = {tl.int8: "*i8", tl.float16: "*fp16", tl.bfloat16: "*bf16", tl.float32: "*fp32"}
CONV = (3, 3, 2, 1, 1, 1, 1, 1)
CASES = (
    ("w8za8", tl.int8, None, 320, 80), ("w6a8", tl.int8, CONV, 2880, 90), ("w5a8", tl.int8, None, 640, 90),
    ("w4g64za8", tl.int8, CONV, 2880, 80), ("w3g32a8", tl.int8, None, 1300, 90), ("w8a8", tl.int8, CONV, 40000, 80),
    ("w4g64a16", tl.float16, None, 1280, 80), ("w8za16", tl.bfloat16, None, 1280, 90),
    ("fp8a16", tl.bfloat16, CONV, 2880, 80), ("w3g32za16", tl.float32, None, 1280, 90),
)  # fmt: skip


def compiled(function, types: dict, constants: dict, device: int, **options):
    """The kernel for `device` (80 is 8.0), pointers and whole numbers multiples of 16."""
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    even = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in signature.items() if kind[0] in "*i"}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=values, attrs=even)
    return triton.compile(source, target=GPUTarget("cuda", device, 32), options=options)


def product(scheme: str, compute, window, inputs: int, device: int, blocks: tuple[int, ...], ones: dict | None = None):
    fmt = parse_scheme(scheme).weight
    constants = triton_product.walk(inputs, fmt.bits, fmt.group or 0) | {
        "affine": fmt.affine, "fp8": fmt.kind == "fp8", "has_bias": True, "compute": compute, "window": window,
        "group": fmt.group or 0, "block_m": blocks[0], "block_n": blocks[1], **(ones or {}),
    }  # fmt: skip
    numbers = ("rows", "outputs", "inputs", "row_bytes", "positions", "bucket")
    types = dict.fromkeys(("steps", "scale", "bias"), "*fp32") | dict.fromkeys(numbers, "i32")
    types |= {"x": POINTERS[compute], "codes": "*u8", "zero": "*u8" if fmt.affine else "*fp32", "out": "*bf16"}
    if window is None:
        constants["positions"] = 1
    types["sizes"] = ("i32",) * 4
    return compiled(triton_product.product_kernel, types, constants, device, num_warps=blocks[2], num_stages=blocks[3])


def main() -> None:
    for scheme, compute, window, inputs, device in CASES:
        kernel = product(scheme, compute, window, inputs, device, triton_product.BLOCKS[-1])
        assert kernel.metadata.shared <= SHARED, (scheme, compute, kernel.metadata.shared)
        assert (".s32.s8.s8" in kernel.asm["ptx"]) == (compute == tl.int8), (scheme, compute)
    product("w8a8", tl.int8, None, 1280, 90, triton_product.BLOCKS[0])
    ones = dict.fromkeys(("rows", "outputs", "positions"), 1)  # Triton compiles arguments that are 1 as constants
    product("w4za8", tl.int8, CONV, 72, 80, triton_product.BLOCKS[-1], ones)
    types = {"x": "*bf16", "found": "*fp32", "codes": "*i8", "steps": "*fp32"}
    types |= dict.fromkeys(("features", "chunks", "tokens"), "i32")
    types |= dict.fromkeys(("tensor", "first", "largest"), "fp32")
    for static, parts, one in ((False, 0, ("chunks", "tokens")), (False, 16, ("tokens",)), (True, 0, ("chunks",))):
        constants = {"static": static, "parts": parts, "block": 1024} | dict.fromkeys(one, 1)
        compiled(triton_rounding.round_kernel, types, constants, 80)
    compiled(triton_rounding.magnitudes_kernel, types, {"block": 1024}, 80)


if __name__ == "__main__":
    main()
