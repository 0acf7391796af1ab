"""Show progress on a terminal, and report problems, both on standard error."""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

_SAY_EVERY_S = 60.0


class Progress:
    """A progress bar on standard error, or a line a minute; a context manager.

    `total` is the number of pictures, if it is known. With `shown` the bar is drawn. Without it, `said` writes the
    lines instead, as for a log.
    """

    def __init__(self, *, total: int | None, shown: bool, said: bool = False) -> None:
        self._total = total
        self._said = said and not shown
        self._done = 0
        self._began = self._last_said = time.monotonic()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Bars(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            disable=not shown,
        )
        self._task = self._bars.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def advance(self, pictures: int) -> None:
        self._bars.update(self._task, advance=pictures)
        self._done += pictures
        if self._said and self._done and time.monotonic() - self._last_said >= _SAY_EVERY_S:
            self._last_said = time.monotonic()
            self.say(self._line())

    def _line(self) -> str:
        rate = self._done / (time.monotonic() - self._began)
        line = f"{self._done:,} pictures, {rate:,.0f}/s"
        if self._total is None:
            return line
        left = timedelta(seconds=round((self._total - self._done) / rate))
        return f"{self._done:,} of {self._total:,} pictures, {rate:,.0f}/s, {left} left"

    def say(self, line: str) -> None:
        """Write one line, whatever is in it."""
        if self._bars.disable:
            sys.stderr.write(one_line(line) + "\n")
        else:
            self._console.print(one_line(line), markup=False)


def one_line(text: str) -> str:
    """Return the text without line breaks and terminal control sequences."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} pictures/s")
