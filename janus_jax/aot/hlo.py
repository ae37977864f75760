"""What a compiled program moves between chips and computes on one, read from its text (HLO).

    while(...), body=%layers, backend_config={"known_trip_count":{"n":"24"}}

says how often a loop's body runs, which the compiler's own cost analysis does not count; where that is absent, the
constant that the loop's counter is compared with does. A loop whose count is not known (sampling until all rows have
ended) is taken to run `unknown` times.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
# The attributes of an instruction that name what it runs; a reduction's to_apply is arithmetic on single numbers.
CALLS = r"(?:body|calls|branch_computations|\w+_computation)=(\{[^}]*\}|%?[\w.\-]+)"


class Op(NamedTuple):
    """One instruction: its name, the text of its type, its opcode, its operands' names, and all that follows them."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    attributes: str


class Collective(NamedTuple):
    """Collectives of one kind: how many run, and the bytes of a device's array at its larger end, in all."""

    count: int
    bytes: int


def collectives(text: str, unknown: int = 1) -> dict[str, Collective]:
    """{kind: Collective} of a program's text; asynchronous ones are counted where they start."""
    totals = {}
    for op, types, times, inside in _run(text, unknown):
        kind = op.opcode.removesuffix("-start")
        if kind == "all-reduce" and inside.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"  # how the compiler for TPUs writes it: a sum, and a slice of it, as one
        if kind in KINDS:
            sent, got = sum(size_of(types.get(name, "")) for name in op.operands), size_of(op.type)
            if op.opcode.endswith("-start") and got > sent:
                got -= sent  # its type names the operands, too
            count, size = totals.get(kind, (0, 0))
            totals[kind] = Collective(count + times, size + times * max(sent, got))
    return totals


def flops(text: str, unknown: int = 1) -> int:
    """Multiplications and additions in matrix products and convolutions, on one device. Kernels (custom calls) are not
    seen."""
    total = 0
    for op, types, times, _ in _run(text, unknown):
        if op.opcode == "dot":
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.attributes)[1]
            left = _arrays(types[op.operands[0]])[0][1]
            contracted = math.prod(left[int(axis)] for axis in axes.split(",") if axis)
            total += times * 2 * math.prod(_arrays(op.type)[0][1]) * contracted
        elif op.opcode == "convolution":
            total += times * _convolution(op, types)
    return total


def gathered(text: str, least: int = 1) -> list[str]:
    """The types of arrays of at least so many elements that are all-gathered, inside loops or not."""
    return [
        op.type
        for op, _, _, _ in _run(text, 1)
        if op.opcode.startswith("all-gather")
        and not op.opcode.endswith("-done")
        and max(math.prod(shape) for _, shape in _arrays(op.type)) >= least
    ]


def size_of(type_text: str) -> int:
    """Bytes of an array type, or of all arrays of a tuple's; scalars that only serve as handles count nothing."""
    return sum(math.ceil(_bits(name) * math.prod(shape) / 8) for name, shape in _arrays(type_text) if shape)


def _arrays(type_text) -> list[tuple[str, tuple[int, ...]]]:
    found = re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", type_text)
    return [(name, tuple(int(size) for size in sizes.split(",") if size)) for name, sizes in found]


def _bits(name) -> int:
    """bf16 -> 16, f8e4m3fn -> 8, pred -> 8, token -> 0."""
    digits = re.search(r"\d+", name)
    return 8 if name == "pred" else int(digits[0]) if digits else 0


def computations(text: str) -> tuple[dict[str, list[Op]], str]:
    """({name: its instructions}, the name of the one that is run)."""
    found, entry, current = {}, "", None
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None and (start := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)):
            type_text, rest = _split_type(line[start.end() :])
            opcode, _, rest = rest.partition("(")
            inside = _balanced("(" + rest)
            names = re.findall(r"%([\w.\-]+)", inside) or re.findall(r"([\w.\-]+)(?=[,)])", inside)
            current.append(Op(start[1], type_text, opcode, names, rest[len(inside) - 1 :]))
    return found, entry


def _split_type(rest):
    end = len(_balanced(rest)) if rest.startswith("(") else rest.index(" ")
    return rest[:end], rest[end:].lstrip()


def _balanced(rest):
    """The leading parenthesis up to the one that closes it."""
    depth = 0
    for i, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[: i + 1]
    raise ValueError(f"unbalanced HLO: {rest[:80]}")


def _run(text, unknown) -> Iterator[tuple[Op, dict[str, str], int, str]]:
    """(instruction, the types of its computation's names, how often it runs, its computation), for all that run."""
    found, entry = computations(text)

    def visit(name, times):
        types = {op.name: op.type for op in found[name]}
        for op in found[name]:
            yield op, types, times, name
            again = times * (_trips(op, found) or unknown) if op.opcode == "while" else times
            for group in re.findall(CALLS, op.attributes):
                for callee in re.findall(r"[\w.\-]+", group):
                    if callee in found:
                        yield from visit(callee, again)

    return visit(entry, 1)


def _trips(loop, found) -> int | None:
    """How often a loop runs: as the compiler notes it, or from a counter that starts at 0, is compared with a constant
    and grows by one. Products that are cut up to overlap with their collectives are such loops, and often grow by 2."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    condition, body = (
        {op.name: op for op in found.get(re.search(rf"{part}=%?([\w.\-]+)", loop.attributes)[1], [])}
        for part in ("condition", "body")
    )
    test, last = (list(ops.values())[-1:] for ops in (condition, body))
    if not test or test[0].opcode != "compare" or "direction=LT" not in test[0].attributes:
        return None
    counter, bound = (condition[name] for name in test[0].operands)
    index = re.search(r"index=(\d+)", counter.attributes)
    if bound.opcode != "constant" or not bound.operands[0].isdigit() or not index:
        return None
    steps = []
    if last and last[0].opcode == "tuple":
        grown = body[last[0].operands[int(index[1])]]
        steps = [body[name] for name in grown.operands if grown.opcode == "add" and name in body]
    by = [op.operands[0] for op in steps if op.opcode == "constant"]
    return -(-int(bound.operands[0]) // int(by[0])) if by and by[0].isdigit() and int(by[0]) else int(bound.operands[0])


def _convolution(op, types) -> int:
    left, right = (_arrays(types[name])[0][1] for name in op.operands[:2])
    out = _arrays(op.type)[0][1]
    inputs, kernel, result = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes).groups()
    window = re.search(r"window=\{([^}]*)\}", op.attributes)
    window = dict(item.split("=") for item in window[1].split()) if window else {}
    axes = sorted(letter for letter in kernel if letter.isdigit())

    def setting(name, axis, default):
        return window[name].split("x")[axis] if name in window else default

    pairs = 1
    for axis, label in enumerate(axes):
        pairs *= _pairs(
            left[inputs.index(label)],
            right[kernel.index(label)],
            out[result.index(label)],
            int(setting("stride", axis, 1)),
            int(str(setting("pad", axis, "0_0")).split("_")[0]),
            int(setting("lhs_dilate", axis, 1)),
            int(setting("rhs_dilate", axis, 1)),
        )
    groups = int((re.search(r"batch_group_count=(\d+)", op.attributes) or [0, 1])[1])
    # The kernel's input features are those of one group already; grouped batches are shared out among the outputs.
    return 2 * pairs * out[result.index("b")] * out[result.index("f")] * right[kernel.index("i")] // groups


@functools.cache
def _pairs(size, window, out, stride, low, dilated, spread) -> int:
    """Pairs of an output place and a window place, along one axis, that meet an element: products with a batch axis are
    written as convolutions most of whose places meet padding."""
    places = np.arange(out)[:, None] * stride + np.arange(window)[None] * spread - low
    return int(((places >= 0) & (places <= (size - 1) * dilated) & (places % dilated == 0)).sum())
