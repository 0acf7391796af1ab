"""What the commands print, beside their results, and how."""

import sys

from rich.console import Console
from rich.table import Table

_WIDTH_IN_A_PIPE = 160


def log_errors_only() -> None:
    """Keep the log to what is wrong, and out of the output."""
    import structlog  # not for --help

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or as a pipe is taken to be."""
    Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE).print(table)
