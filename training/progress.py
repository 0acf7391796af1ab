"""Show the progress of long work: bars on a terminal, plain lines elsewhere. It does not know what the work is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

Advance = Callable[[int, str], None]
"""Call it with the number of steps just done, and a note to show beside the bar."""

_PLAIN_LINE_EVERY_S = 30.0


class Reporter:
    """Writes to standard error, so that standard output stays for results."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Advance]:
        """Show one piece of work of `total` steps while the block runs."""
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(min_width=7)),
                TextColumn("left"),
                TextColumn("{task.fields[note]}", table_column=Column(ratio=1)),
            )
            with Progress(*columns, console=self._console) as bars:
                task = bars.add_task(title, total=total, note="")
                yield lambda steps, note: bars.update(task, advance=steps, note=note)
        else:
            yield self._plain(title, total)

    def _plain(self, title: str, total: int) -> Advance:
        done = 0
        started = said = time.monotonic()

        def advance(steps: int, note: str) -> None:
            nonlocal done, said
            done += steps
            now = time.monotonic()
            if done >= total or now - said >= _PLAIN_LINE_EVERY_S:
                said = now
                left = (now - started) / max(done, 1) * (total - done)
                rest = f", {left:.0f} s left" if done < total else f" in {now - started:.1f} s"
                # at the end, the next line of the program says more
                shown = f", {note}" if note and done < total else ""
                self.say(f"{title}: {done:,} of {total:,}{rest}{shown}")

        return advance
