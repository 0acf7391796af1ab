"""Words that this project does not use in prose, each with a better one, and a search for them.

Prose is what people read: the Markdown pages, and in code the comments, docstrings and string literals with a space.
Words in `backticks`, "quotation marks" and code blocks are names or quotations, and are not searched.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

# Patterns are of lower-case words. Each begins with a letter, which makes the search fast.
RULES = {
    r"where": "if, when",
    r"refus(?:e|es|ed|al|als|ing)": "reject",
    r"signs? of life": "heartbeat",
    r"turns? of the (?:event )?loop": "iteration of the event loop",
    r"ways in": "path of a request",
    r"so many(?! that)": "N, this many",
    r"told": "reported, logged, given",
    r"but for": "except, except for",
    r"anew": "again, new",
    r"mend(?:s|ed|ing)?": "fix",
    r"nothing of (?:it|them)(?= \|)": "ignored",
    r"is none(?! of| that| to)": "is not one",
    r"are none(?! of| that| to)": "are not",
    r"at the door": "on arrival",
    r"by turns": "alternately",
    r"at work on": "working on",
    r"in place of": "instead of",
    r"go(?:es|ing)? on with": "continue, resume",
    r"gives? (?:its|their) places? back": "release",
    r"what (?:is held(?! out)|waits)": "in flight, queued",
    r"bur(?:y|ies|ied)": "reap",
    r"obeys?": "handle",
    r"br(?:oken|oke|eaks?) off": "interrupted",
    r"surest": "most confident",
    r"work(?:s|ed|ing)? out": "compute",
    r"whence": "from which",
}

# "where" may stand for a place: after these words, or before these.
_PLACES = (
    r"\b(?:and|from|goes|in the sockets,|knows?|lie|lies|names|of|or|points?|return|returns|said|says?|see|show|tell|"
    r"that is|variable|which|with|point at|is) where\b"
    r"|\bwhere (?:a request's time|batches run|each series|every node|it departs|no admission sees|no bound sees|"
    r"preprocessed|the (?:first chunk|host listens|last whole line|lost one|next marker|numbers of|parts go|"
    r"preprocessed|rest is|results go|search for|time)|they (?:all meet|are|come|go|lie)|to (?:add|go on)|`)"
    r"|\(band: where\b|^\| where \||\bthey show where\b"
)
# What systems call so, and the names of log events.
_REFUSED = r"connections? (?:is |are )?refused|refuses connections|-refused|(?:requests?|version|engine) refused"
_NO_PROSE = re.compile(
    rf"`[^`]*`|\"[^\"]*\"|\]\([^)]*\)|\{{[^{{}}]*\}}|\b(?-i:None)\b|\bthere (?:is|are) none|{_REFUSED}|{_PLACES}",
    re.IGNORECASE,
)
_PATTERNS = {re.compile(rf"{pattern}\b"): better for pattern, better in RULES.items()}


def found(repository: Path) -> list[str]:
    """Return each place in the repository's prose that breaks a rule, with the rule's better words."""
    places = []
    for path in _files(repository):
        text = path.read_text(encoding="utf-8")
        in_lower_case = text.lower()
        suspects = {pattern: better for pattern, better in _PATTERNS.items() if pattern.search(in_lower_case)}
        if not suspects:
            continue
        for number, line in (_page if path.suffix == ".md" else _code)(text):
            prose = _NO_PROSE.sub("·", line).lower()
            for pattern, better in suspects.items():
                places += [
                    f"{path.relative_to(repository)}:{number}: '{match[0]}'; better: {better}"
                    for match in re.finditer(rf"\b(?:{pattern.pattern})", prose)
                ]
    return places


def _files(repository: Path) -> Iterator[Path]:
    yield from (repository / name for name in ("README.md", "CONTRIBUTING.md"))
    for folder in ("app", "benchmarks", "training", "docs"):
        for path in sorted((repository / folder).rglob("*")):
            if path.suffix in {".md", ".py"} and not path.name.endswith("_pb2.py") and ".work" not in path.parts:
                yield path


def _page(text: str) -> Iterator[tuple[int, str]]:
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, line


def _code(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first = token.start[0]
        if token.type == tokenize.COMMENT:
            yield first, token.string
        elif token.type == tokenize.STRING and " " in token.string:
            words = token.string.replace('"""', "") if '"""' in token.string else re.sub(r'^\w*"|"$', "", token.string)
            yield from enumerate((line.strip() for line in words.splitlines()), first)
