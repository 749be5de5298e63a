"""The calculator tool: the value of one short expression, worked out without running any code.

Numbers with `+ - * /` and parentheses are allowed (commas in numbers are ignored), and `"text".count("x")`.
The expression is parsed and walked; what is not on the list has no value (nor has `**`), so work and result
are bounded by the length of the expression and no time limit is needed. Numbers are kept exact, and whole
results are written without a fraction (`10`, where upstream writes `10.0`), as the training data has them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from fractions import Fraction
from operator import add, mul, sub, truediv

_MAX_CHARS = 200
_ARITHMETIC = re.compile(r"[0-9+\-*/.() ]+")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add,
    ast.Sub: sub,
    ast.Mult: mul,
    ast.Div: truediv,
}


class _NoValueError(Exception):
    """The expression holds something that is not allowed."""


def calculate(expression: str) -> str | None:
    """Return the value of an expression as text, or None where it has none."""
    if len(expression) > _MAX_CHARS:
        return None
    try:
        counted = _count(expression)
        return str(counted) if counted is not None else _arithmetic(expression)
    except (_NoValueError, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _arithmetic(expression: str) -> str:
    plain = expression.replace(",", "")
    if not _ARITHMETIC.fullmatch(plain):
        raise _NoValueError
    value = _value(ast.parse(plain.strip(), mode="eval").body)
    return str(value.numerator) if value.denominator == 1 else str(float(value))


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(repr(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise _NoValueError


def _count(expression: str) -> int | None:
    """Return the value of `"text".count("part")`, or None where the expression is something else."""
    if ".count(" not in expression:
        return None
    match ast.parse(expression.strip(), mode="eval").body:
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str() as text), attr="count"),
            args=[ast.Constant(value=str() as part)],
            keywords=[],
        ):
            return text.count(part)
    raise _NoValueError
