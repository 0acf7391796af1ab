"""How commands print tables and logs."""

import sys

from rich.console import Console
from rich.table import Table

_WIDTH_IN_A_PIPE = 160


def log_errors_only() -> None:
    """Log warnings and errors only, to standard error."""
    import structlog  # not for --help

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or of a fixed width into a pipe."""
    Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE).print(table)
