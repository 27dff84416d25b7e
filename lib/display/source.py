"""Code shown in a notebook comes from the library itself, so that it cannot drift from it."""

import ast
import html
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

BOX = "background:#f6f8fa;color:#1f2328;padding:0.6em 0.9em;border-radius:4px;overflow-x:auto"


@dataclass(frozen=True)
class Source:
    """Source text that a notebook shows highlighted, and every other reader as plain text.

    The colours are written into the tags, not into a style sheet, so that they survive where
    style sheets are removed; where colours are removed too, the text remains.
    """

    name: str
    text: str

    def _repr_html_(self) -> str:
        code = highlight(self.text, PythonLexer(), HtmlFormatter(noclasses=True, nowrap=True))
        return (
            f"<div><small><code>{html.escape(self.name)}</code></small>"
            f'<pre style="{BOX}">{code.rstrip()}</pre></div>'
        )

    def __repr__(self) -> str:
        """Plain text: the name as a comment, then the code."""
        return f"# {self.name}\n{self.text}"


def show_source(thing: Callable | type, *, docstring: bool = True) -> Source:
    """The source of a function, method or class, to be the last expression of a cell.

    Args:
        thing: the object itself, e.g. ``tight_box``.
        docstring: False leaves the docstrings out, where the text around the cell explains.

    Raises:
        TypeError: the object has no Python source (an instance, a builtin).
    """
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        raise TypeError(
            f"{type(thing).__name__} is neither function nor class: give the object whose "
            "definition is to be shown, not a result of it"
        )
    try:
        text = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    except (OSError, TypeError) as error:
        raise TypeError(f"{thing!r} has no Python source to show") from error
    if not docstring:
        text = without_docstrings(text)
    return Source(name=f"{thing.__module__}.{thing.__qualname__}", text=text.rstrip() + "\n")


def without_docstrings(text: str) -> str:
    """The same source without docstrings; comments and formatting stay.

    A docstring that is the whole body stays, because nothing may not be a body.
    """
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is None or len(node.body) == 1:
            continue
        first, last = node.body[0].lineno - 1, node.body[0].end_lineno
        while last < len(lines) and not lines[last].strip():
            last += 1  # and the blank lines that follow it
        lines[first:last] = [""] * (last - first)
    return "".join(lines)
