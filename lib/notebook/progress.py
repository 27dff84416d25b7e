"""One progress line for a notebook: rewritten on a terminal, sparse plain lines elsewhere."""

import sys
import time
from typing import TextIO

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 30.0


class ProgressLine:
    """Shows name, cell i of n, elapsed time and memory of the notebook being run."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        """Start the line of a notebook of ``total`` cells; ``label`` names it."""
        self.label = label
        self.total = total
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self.interval = TERMINAL_SECONDS if self.terminal else PLAIN_SECONDS
        self.number = 0
        self.start = time.monotonic()
        self.shown = self.start
        if not self.terminal:
            self._write(f"{self.label}: {self.total} cells")

    def cell(self, number: int) -> None:
        """Note that cell ``number`` (from 1) has begun."""
        self.number = number

    def tick(self, used_bytes: int) -> None:
        """Show the line when the last one is old enough; call it as often as you like."""
        now = time.monotonic()
        if now - self.shown >= self.interval:
            self.shown = now
            gigabytes = used_bytes / 1e9
            self._write(f"{self.label}: {self._where()}, {gigabytes:.1f} GB", passing=True)

    def close(self, ending: str) -> None:
        """Write the last line of the notebook."""
        self._write(f"{self.label}: {ending}")

    def _where(self) -> str:
        return f"cell {self.number}/{self.total}, {clock(time.monotonic() - self.start)}"

    def _write(self, text: str, *, passing: bool = False) -> None:
        # On a terminal: back to the first column and clear to the end of the line (ANSI).
        before, after = ("\r\x1b[K", "" if passing else "\n") if self.terminal else ("", "\n")
        self.stream.write(f"{before}{text}{after}")
        self.stream.flush()


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, such as ``1:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
