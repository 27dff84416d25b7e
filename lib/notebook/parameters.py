"""Values given with ``-p KEY VALUE``: which notebook takes them, and as which type.

The type is that of the default in the notebook. So ``1e-4`` is a number where a number is expected
and ``007`` stays text where text is expected, whatever YAML would make of either.
"""

import ast
import difflib
import math
import re
from collections.abc import Iterable, Mapping

from lib.notebook.file import NotebookError

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list such as '[1, 2]'",
    dict: "a dictionary such as \"{'a': 1}\"",
}


def parse_value(text: str, default: object, key: str) -> object:
    """Return ``text`` as a value of the type of ``default``.

    A default of ``None`` takes any Python literal, or else the text itself.

    Raises:
        NotebookError: when the text does not have the type of the default.
    """
    kind = type(default)
    if kind is str:
        return text
    if kind is type(None):
        return _literal(text, fallback=text)
    if kind is bool:
        value = {"true": True, "false": False}.get(text.lower())
    elif kind is int:
        # No leading zeros: 007 is a name rather than a number.
        value = int(text) if re.fullmatch(r"[+-]?(0|[1-9]\d*)", text) else None
    elif kind is float:
        value = _number(text)
    else:
        value = _literal(text, fallback=None)
        if not (isinstance(value, kind) and _same_elements(value, default)):
            value = None
    if value is None:
        raise NotebookError(
            f"parameter '{key}': {text!r} is not {KINDS[kind]} (the default is {default!r})"
        )
    return value


def assign(
    requests: Iterable[tuple[str, str]], notebooks: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    """Distribute requested values to the notebooks that know them.

    Args:
        requests: pairs of key and text, as typed.
        notebooks: for each notebook its parameters and their defaults.

    Returns:
        For each notebook the values to set. A value reaches every notebook that has such a
        parameter; those that have not run with their own.

    Raises:
        NotebookError: one message with every fault: a key given twice, a key that no notebook
            has (with close matches), a value of the wrong type.
    """
    assigned: dict[str, dict[str, object]] = {name: {} for name in notebooks}
    faults: list[str] = []
    seen: set[str] = set()
    for key, text in requests:
        if key in seen:
            faults.append(f"parameter '{key}' is given twice")
        seen.add(key)
        owners = [name for name, defaults in notebooks.items() if key in defaults]
        if not owners:
            faults.append(_unknown(key, notebooks))
        for name in owners:
            try:
                assigned[name][key] = parse_value(text, notebooks[name][key], key)
            except NotebookError as error:
                faults.append(f"{name}: {error}")
    if faults:
        raise NotebookError("\n".join(faults))
    return assigned


def _unknown(key: str, notebooks: Mapping[str, Mapping[str, object]]) -> str:
    known = sorted({name for defaults in notebooks.values() for name in defaults})
    close = difflib.get_close_matches(key, known)
    hint = (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known)}"
    )
    return f"no parameter '{key}' in {', '.join(notebooks)}; {hint}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _literal(text: str, fallback: object) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return fallback


def _same_elements(value: list | dict, default: list | dict) -> bool:
    """Tell whether all elements have the type of the default's first one (int may be float)."""
    if isinstance(default, dict) or not default:
        return True
    kind = type(default[0])
    accepted = (int, float) if kind is float else (kind,)
    return all(type(element) in accepted for element in value)
