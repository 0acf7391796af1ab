"""Format Markdown tables and the figures in them."""

from collections.abc import Sequence

NONE = "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column is left-aligned, the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def number(figure: float | None) -> str:
    return NONE if figure is None else f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"


def milliseconds(figure: float | None) -> str:
    return NONE if figure is None else f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def ratio(figure: float | None) -> str:
    return NONE if figure is None else f"{figure:.2f}"


def percent(figure: float | None) -> str:
    return NONE if figure is None else f"{figure:.0%}"
