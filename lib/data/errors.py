"""The one error that this package raises for data it cannot use."""


class DataError(ValueError):
    """Data that cannot be used as it is; the message names the files and says what to do."""


def listing(items, *, limit: int = 20) -> str:
    """Return `items` one a line, indented; after `limit` lines only the number left out is told."""
    items = [str(item) for item in items]
    lines = [f"  - {item}" for item in items[:limit]]
    if len(items) > limit:
        lines.append(f"  ... and {len(items) - limit} more")
    return "\n".join(lines)
