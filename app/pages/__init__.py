"""The page at `/`: HTML, CSS, ES modules and an icon, sent unchanged. No framework is used.

`app.api.routes.page` serves them. Text that comes from outside is put into the page as text, never as markup: the page
assigns no HTML, and its content security policy lets no script do so.
"""

from pathlib import Path

_MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}

INDEX = "index.html"
MEDIA_TYPES = {
    file.name: _MEDIA_TYPES[file.suffix]
    for file in sorted(Path(__file__).parent.iterdir())
    if file.suffix in _MEDIA_TYPES
}
"""By file name."""


def read(name: str) -> bytes:
    """Return the content of one of MEDIA_TYPES' files."""
    return (Path(__file__).parent / name).read_bytes()
