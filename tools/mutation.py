"""Every small wrong version of a Python source: guards turned, table cells removed, steps left out.

Pure: source text in, ``Mutant`` records out. ``tools/mutants.py`` runs them. A mutant's ``id`` holds no line
number, so that a reason given for it survives edits elsewhere in the file.

Left alone, because no test of behaviour could or should notice: annotations, docstrings, imports, asserts
(each is a test itself), the texts of errors, ``__slots__`` and ``__all__``, decorators, type aliases.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
UNTOUCHED_NAMES = {"__slots__", "__all__", "__match_args__"}
TYPE_CALLS = {"NewType", "TypeVar", "ParamSpec", "cast", "Literal"}


@dataclass(frozen=True)
class Mutant:
    """One change: source bytes ``start`` to ``end`` of ``path`` become ``after``."""

    id: str
    path: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


@dataclass(frozen=True)
class Change:
    kind: str
    scope: str
    node: ast.expr | ast.stmt
    after: str
    label: str = ""
    """For the id, where before and after are long and mostly equal."""


def mutants_of(path: str, text: str) -> list[Mutant]:
    """All mutants of one file that still compile, in source order. ``path`` becomes part of their ids."""
    source = text.encode()
    line_starts = [0]
    for line in source.splitlines(keepends=True):
        line_starts.append(line_starts[-1] + len(line))
    seen: Counter[str] = Counter()
    found = []
    for change in Finder().changes(ast.parse(text)):
        node = change.node
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = line_starts[node.lineno - 1] + node.col_offset
        end = line_starts[node.end_lineno - 1] + node.end_col_offset
        before = source[start:end].decode()
        if before == change.after:
            continue
        label = change.label or f"{one_line(before)} -> {one_line(change.after)}"
        stem = f"{path}::{change.scope}::{change.kind}::{label}"
        seen[stem] += 1
        mutant_id = stem if seen[stem] == 1 else f"{stem} #{seen[stem]}"
        mutant = Mutant(mutant_id, path, node.lineno, start, end, before, change.after)
        if compiles(mutant.apply(source)):
            found.append(mutant)
    return sorted(found, key=lambda mutant: (mutant.start, mutant.id))


def one_line(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= 120 else f"{short[:117]}..."


def compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):  # e.g. a `break` that now stands outside its loop
        return False
    return True


class Finder:
    """Walks a module and yields its changes; ``scope`` is the qualified name of what it is in."""

    def changes(self, tree: ast.Module) -> Iterator[Change]:
        yield from self.block(tree.body, "<module>")

    def block(self, body: list[ast.stmt], scope: str) -> Iterator[Change]:
        for statement in body:
            yield from self.statement(statement, scope)

    def statement(self, node: ast.stmt, scope: str) -> Iterator[Change]:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                inner = node.name if scope == "<module>" else f"{scope}.{node.name}"
                for default in [*node.args.defaults, *node.args.kw_defaults]:
                    if default is not None:
                        yield from self.expression(default, inner)
                yield from self.block(node.body, inner)
            case ast.ClassDef():
                yield from self.block(node.body, node.name if scope == "<module>" else f"{scope}.{node.name}")
            case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Global() | ast.Nonlocal() | ast.Pass():
                pass
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring, or `...`
            case ast.Raise():
                yield Change("raise", scope, node, "pass")
            case ast.If() if is_type_checking(node.test):
                pass
            case ast.If() | ast.While():
                yield from self.guard(node.test, scope, may_be_true=isinstance(node, ast.If))
                yield from self.block([*node.body, *node.orelse], scope)
            case _:
                yield from self.plain_statement(node, scope)

    def plain_statement(self, node: ast.stmt, scope: str) -> Iterator[Change]:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) if name in UNTOUCHED_NAMES:
                return
            case ast.AnnAssign(value=None):
                return
            case ast.Return(value=None) | ast.Continue() | ast.Break():
                yield Change("step left out", scope, node, "pass")
            case ast.Return(value=ast.expr() as value):
                if not is_constant(value, None):
                    yield Change("return", scope, node, "return None")
            case ast.Expr() | ast.AugAssign() | ast.Delete():
                yield Change("step left out", scope, node, "pass")
            case ast.Assign() if scope != "<module>" and not isinstance(
                node.targets[0], ast.Name | ast.Tuple
            ):
                # A plain name left out is a NameError, which any test that runs it finds.
                yield Change("step left out", scope, node, "pass")
            case ast.Match():
                for case in node.cases:
                    if case.guard is not None:
                        yield from self.guard(case.guard, scope, may_be_true=True)
            case _:
                pass
        for child in children_of(node):
            if isinstance(child, ast.stmt):
                yield from self.statement(child, scope)
            elif isinstance(child, ast.expr):
                yield from self.expression(child, scope)

    def guard(self, test: ast.expr, scope: str, *, may_be_true: bool) -> Iterator[Change]:
        """The truth of a condition, and its parts. ``while True`` would only wait for the time limit."""
        if may_be_true and not is_constant(test, True):
            yield Change("guard", scope, test, "True")
        if not is_constant(test, False):
            yield Change("guard", scope, test, "False")
        yield from self.expression(test, scope)

    def expression(self, node: ast.expr, scope: str) -> Iterator[Change]:
        match node:
            case ast.JoinedStr() | ast.Lambda(body=ast.Constant(value=None)):
                return  # text for people; and 3.11 has no true positions inside f-strings
            case ast.Call(func=ast.Name(id=name)) if name in TYPE_CALLS:
                return
            case ast.Subscript(value=ast.Name(id=name)) if name in TYPE_CALLS or name in (
                "dict",
                "tuple",
                "list",
            ):
                return  # a type at run time
            case _:
                yield from own_changes(node, scope)
        match node:
            case ast.Dict():  # a wrong key is a cell removed
                for value in node.values:
                    yield from self.expression(value, scope)
            case ast.IfExp():
                yield from self.guard(node.test, scope, may_be_true=True)
                yield from self.expression(node.body, scope)
                yield from self.expression(node.orelse, scope)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for generator in node.generators:
                    yield from self.expression(generator.iter, scope)
                    for condition in generator.ifs:
                        yield from self.guard(condition, scope, may_be_true=True)
                parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
                for part in parts:
                    yield from self.expression(part, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        yield from self.expression(child, scope)
                    elif isinstance(child, ast.keyword):
                        yield from self.expression(child.value, scope)


def children_of(node: ast.stmt) -> Iterator[ast.AST]:
    """Direct statements and expressions, without annotations, guards already taken, and targets."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "target", "targets", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.match_case | ast.ExceptHandler):
                yield from child.body
            elif isinstance(child, ast.withitem):
                yield child.context_expr
            elif isinstance(child, ast.AST):
                yield child


def own_changes(node: ast.expr, scope: str) -> Iterator[Change]:
    """The changes of one expression node itself."""
    match node:
        case ast.Compare():
            yield from comparisons(node, scope)
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield Change("and/or", scope, node, written(ast.BoolOp(other, node.values)))
            for index in range(len(node.values)):
                rest = [value for at, value in enumerate(node.values) if at != index]
                left = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
                yield Change("condition left out", scope, node, written(left))
        case ast.UnaryOp(op=ast.Not()):
            yield Change("not", scope, node, written(node.operand))
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            yield Change(
                "arithmetic",
                scope,
                node,
                written(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)),
            )
        case ast.Constant():
            yield from constants(node, scope)
        case ast.Dict() if node.keys:
            for index in range(len(node.keys)):
                keys = [key for at, key in enumerate(node.keys) if at != index]
                values = [value for at, value in enumerate(node.values) if at != index]
                yield Change(
                    "table cell", scope, node, written(ast.Dict(keys, values)), cell_name(node, index)
                )
        case ast.Set() if len(node.elts) > 1:
            for index in range(len(node.elts)):
                rest = [element for at, element in enumerate(node.elts) if at != index]
                label = f"{one_line(ast.unparse(node.elts[index]))} removed"
                yield Change("member", scope, node, written(ast.Set(rest)), label)
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield Change("call", scope, node.func, CALLS[name])


def cell_name(node: ast.Dict, index: int) -> str:
    key = node.keys[index]
    value = one_line(ast.unparse(node.values[index]))
    return f"{one_line(ast.unparse(key))}: {value} removed" if key is not None else f"**{value} removed"


def comparisons(node: ast.Compare, scope: str) -> Iterator[Change]:
    for index, operator in enumerate(node.ops):
        for other in COMPARISONS[type(operator)]:
            changed = copy.copy(node)
            changed.ops = [other() if at == index else op for at, op in enumerate(node.ops)]
            yield Change("comparison", scope, node, written(changed))


def constants(node: ast.Constant, scope: str) -> Iterator[Change]:
    value = node.value
    if value is True or value is False:
        yield Change("constant", scope, node, str(not value))
    elif isinstance(value, int | float):
        yield Change("constant", scope, node, written(ast.Constant(value + 1)))
    elif isinstance(value, str):
        yield Change("constant", scope, node, repr(f"{value}~") if value else "'~'")


def written(node: ast.expr) -> str:
    """Source text, in parentheses where it could bind differently at its new place."""
    text = ast.unparse(ast.fix_missing_locations(node))
    return text if isinstance(node, ast.Constant | ast.Name | ast.Call | ast.Dict | ast.Set) else f"({text})"


def is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
