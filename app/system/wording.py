"""Write counts as people do."""


def count_of(number: int, noun: str) -> str:
    """Return "1 picture" or "1,000 pictures" for the noun "picture"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"
