"""The bytes that a loop's body moves to and from a chip's memory, read from the compiled text (HLO).

Each instruction reads its operands and writes its result, but for what lies in the memory beside the arithmetic units
(S(1) in a layout), for what is only renamed, and for slices: of an array that is sliced, or written to in place, the
slice alone moves.
"""

import re

from janus_jax.aot import hlo

FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "while", "conditional", "iota"}
SLICES = {"dynamic-slice", "slice", "gather"}


def moved(text: str) -> int:
    """Bytes of one run of the body that moves most, of all loops of a program."""
    found, _ = hlo.computations(text)
    bodies = {re.search(r"body=%?([\w.\-]+)", op.attributes)[1] for op in _all(found) if op.opcode == "while"}
    return max((sum(_moved(op, found[body], found) for op in found[body]) for body in bodies), default=0)


def _all(found):
    return (op for ops in found.values() for op in ops)


def _far(type_text: str) -> int:
    """Bytes of a type's arrays that lie in the chip's large memory."""
    arrays = re.findall(r"[a-z]+\d*\w*\[[\d,]*\](?:\{[^}]*\})?", type_text)
    return sum(hlo.size_of(each) for each in arrays if not re.search(r"S\([1-9]", each))


def _moved(op, around, found) -> int:
    if op.opcode in FREE or op.opcode.endswith("-done") or "AllocateBuffer" in op.attributes:
        return 0
    types = {each.name: each.type for each in around}
    called = re.search(r"calls=%?([\w.\-]+)", op.attributes)
    if op.opcode == "fusion" and called:
        return _fused(op, types, found[called[1]])
    if op.opcode == "copy-start":
        target, source = re.findall(r"[a-z]+\d*\w*\[[\d,]*\](?:\{[^}]*\})?", op.type)[:2]
        return _far(target) + _far(source)
    if op.opcode in SLICES:
        return 2 * _far(op.type)
    if op.opcode == "dynamic-update-slice":
        return 2 * _far(types.get(op.operands[1], ""))
    return _far(op.type) + sum(_far(types.get(name, "")) for name in op.operands)


def _fused(op, types, inside) -> int:
    """Of a fusion: of each operand what is used of it, and what is written."""
    by_name = {each.name: each for each in inside}
    total = 0
    for each in inside:
        if each.opcode != "parameter":
            continue
        operand = types.get(op.operands[int(each.operands[0])], "")
        users = _users(each.name, inside)
        if users and all(user.opcode in SLICES or _in_place(user, name) for user, name in users):
            slices = sum(_far(user.type) for user, name in users if not _in_place(user, name))
            total += min(slices, _far(operand)) if _far(operand) else 0
        else:
            total += _far(operand)
    root = inside[-1]
    results = [by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
    outputs = re.findall(r"[a-z]+\d*\w*\[[\d,]*\](?:\{[^}]*\})?", op.type)
    for result, type_text in zip(results, outputs, strict=False):
        while result.opcode == "bitcast" and result.operands[0] in by_name:
            result = by_name[result.operands[0]]
        if result.opcode == "dynamic-update-slice" and _far(type_text):
            total += hlo.size_of(by_name[result.operands[1]].type)
        else:
            total += _far(type_text)
    return total


def _users(name, inside):
    """(instruction, the name by which it takes it) of those that use a value, through renamings."""
    found = []
    for each in inside:
        if name in each.operands:
            found += _users(each.name, inside) if each.opcode == "bitcast" else [(each, name)]
    return found


def _in_place(user, name) -> bool:
    return user.opcode == "dynamic-update-slice" and user.operands[0] == name
