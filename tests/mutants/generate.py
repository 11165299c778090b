"""Make one-line faults from the syntax of a file: see run.py."""

import ast
import copy
from collections.abc import Iterator
from itertools import accumulate

COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARISONS |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
ARITHMETIC |= {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult}
# Of these, one side is also dropped.
FACTORS = (ast.Mult, ast.Div, ast.BitAnd, ast.BitOr, ast.Add, ast.Sub, ast.Mod, ast.Pow)
PAIRS = "min max, amin amax, minimum maximum, any all, sum mean, argmin argmax, floor ceil, zeros ones, train eval, "
PAIRS += "zeros_like ones_like, new_zeros new_ones, softmax log_softmax, logical_and logical_or, cumsum cumprod"
NAMES = dict(pair.split() for pair in PAIRS.split(", "))
NAMES |= {second: first for first, second in NAMES.items()}
ATOMS = (ast.Name, ast.Constant, ast.Call, ast.Attribute, ast.Subscript)  # need no brackets around them
UNTESTED = ("strict", "device")  # arguments that change nothing where all is well
# Methods whose call is dropped: `x.detach()` becomes `x`.
METHODS = (
    "detach clamp clamp_min clamp_max masked_fill abs exp log sqrt neg relu tanh sigmoid flip sort strip lower clone "
)
METHODS += "cumsum logical_not item round"
DROPPED = set(METHODS.split())


def variants(node: ast.AST) -> Iterator[ast.AST | str]:
    """Yield what may stand in the place of one node of the syntax tree."""

    def changed(**fields) -> ast.AST:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    match node:
        case ast.Compare():
            for index, op in enumerate(node.ops):
                if type(op) in COMPARISONS:
                    yield changed(ops=[*node.ops[:index], COMPARISONS[type(op)](), *node.ops[index + 1 :]])
        case ast.BinOp():
            if type(node.op) in ARITHMETIC:
                yield changed(op=ARITHMETIC[type(node.op)]())
            if isinstance(node.op, FACTORS):
                yield from (node.left, node.right)
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant({0: 1, 1: 0}.get(node.value, node.value + 1 if isinstance(node.value, int) else 0.0))
            if isinstance(node.value, float) and node.value:
                yield ast.Constant(1.1 * node.value)
            elif node.value == 1:
                yield ast.Constant(2)
        case ast.BoolOp():
            yield changed(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            if len(node.values) > 1:
                for index in range(len(node.values)):
                    rest = [*node.values[:index], *node.values[index + 1 :]]
                    yield rest[0] if len(rest) == 1 else changed(values=rest)
        case ast.IfExp():
            yield changed(body=node.orelse, orelse=node.body)
        case ast.Call():
            if isinstance(node.func, ast.Name) and node.func.id in NAMES:
                yield changed(func=ast.Name(NAMES[node.func.id]))
            if isinstance(node.func, ast.Attribute):
                if node.func.attr in NAMES:
                    yield changed(func=ast.Attribute(node.func.value, NAMES[node.func.attr]))
                if node.func.attr in DROPPED and ast.unparse(node.func.value) not in ("torch", "math", "np"):
                    yield node.func.value
            for index, keyword in enumerate(node.keywords):
                if keyword.arg and keyword.arg not in UNTESTED:
                    yield changed(keywords=[*node.keywords[:index], *node.keywords[index + 1 :]])
        case ast.AugAssign():
            yield ast.Pass()
            if type(node.op) in ARITHMETIC:
                yield changed(op=ARITHMETIC[type(node.op)]())
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def negated(test: ast.expr) -> bool:
    """Whether a condition is also negated: a comparison and a `not` have such a fault already."""
    return not isinstance(test, ast.Compare) and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))


def conditions(node: ast.AST) -> list[ast.expr]:
    """Return the conditions of a node: each is also negated."""
    match node:
        case ast.If() | ast.While() | ast.IfExp():
            return [node.test]
        case ast.comprehension():
            return node.ifs
    return []


def skipped(name: str, child: ast.AST) -> bool:
    """Whether a child of a node is no mathematics: annotations, messages, docstrings, imports and formatted strings."""
    if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
        return True
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    if isinstance(child, ast.keyword) and child.arg in UNTESTED:
        return True
    return isinstance(child, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr)


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not skipped(name, child):
                yield from nodes(child)


def generated_faults(source: bytes) -> Iterator[dict]:
    """Yield start, old, new and line of every fault of a file, in the order of the file."""
    lines = list(accumulate((len(line) for line in source.splitlines(keepends=True)), initial=0))
    found = {}
    for node in nodes(ast.parse(source)):
        pairs = [(node, other) for other in variants(node)]
        pairs += [(test, ast.UnaryOp(ast.Not(), test)) for test in conditions(node) if negated(test)]
        for place, other in pairs:
            start = lines[place.lineno - 1] + place.col_offset
            old = source[start : lines[place.end_lineno - 1] + place.end_col_offset].decode()
            new = ast.unparse(ast.fix_missing_locations(copy.deepcopy(other)))
            if isinstance(other, ast.expr) and not isinstance(other, ATOMS):
                new = f"({new})"
            mutated = source[:start] + new.encode() + source[start + len(old.encode()) :]
            try:
                same = ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source))
            except SyntaxError:
                continue
            if not same:
                found[start, old, new] = {"start": start, "old": old, "new": new, "line": place.lineno}
    yield from sorted(found.values(), key=lambda each: (each["start"], each["new"]))
