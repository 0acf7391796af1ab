"""One HTML page that needs nothing else: its frame, its look, and pictures inside it. It does not know what it shows.

File names and labels are a stranger's text: who writes a page escapes them. The page allows itself no script and no
address.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2

from app.contract.preprocessing import Image, PreprocessingSpec, decode, prepare
from app.errors import ImageError
from training.data.dataset import Picture
from training.errors import DataError

_SIDE = 128
_SMALL = 64

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; } p { margin: .25rem 0 .75rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
td, th { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.badge { border-radius: .3rem; padding: 0 .45rem; font-size: .8rem; color: #fff; }
.error { background: #b3261e; } .warning { background: #8a5a00; } .info { background: #38617d; }
.soft { opacity: .75; } .cards { display: flex; flex-wrap: wrap; gap: .75rem; align-items: stretch; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; max-width: 30rem; }
.card p { margin: .4rem 0 0; max-width: 28rem; } .pictures { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 128px; } figcaption { font-size: .78rem; overflow-wrap: anywhere; line-height: 1.3; }
img, .none { width: 128px; height: 128px; object-fit: contain; background: var(--soft); display: block; }
.none { display: grid; place-items: center; font-size: .8rem; } img.small { image-rendering: pixelated; }
"""


def document(title: str, body: str, *, style: str = "") -> str:
    """Return the page. `title` and `body` are HTML already; `style` adds to the shared look."""
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}{style}</style></head><body>\n{body}\n</body></html>\n"
    )


def figure(image: Image | None, caption: str) -> str:
    """Return a picture, or the place of one that cannot be shown, with its caption, which is HTML."""
    shown = "<div class=none>no picture</div>" if image is None else _img(image)
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column names its rows and whose other columns are numbers; cells are HTML."""
    first, *others = head
    body = "".join(
        f"<tr><th scope=row>{name}</th>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    named = f"<th>{first}</th>" + "".join(f"<th class=number>{name}</th>" for name in others)
    return f"<div class=wide><table><thead><tr>{named}</tr></thead><tbody>{body}</tbody></table></div>"


def thumbnail(picture: Picture) -> Image | None:
    """Return a picture, upright, of 128 pixels a side at most, and None where it cannot be read."""
    try:
        if isinstance(picture.content, Path):
            image = decode(picture.encoded(), PreprocessingSpec(height=1, width=1, colour="rgb"))
        else:
            image = picture.content
        scale = min(1.0, _SIDE / max(image.shape[:2]))
        height, width = (max(1, round(length * scale)) for length in image.shape[:2])
        return prepare(image, PreprocessingSpec(height=height, width=width, colour="rgb"))
    except (ImageError, DataError):
        return None


def _img(image: Image) -> str:
    small = max(image.shape[:2]) < _SMALL
    kind, options = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    _, encoded = cv2.imencode(f".{kind}", image[..., ::-1] if image.shape[2] == 3 else image, options)
    url = f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
    return f"<img{' class=small' if small else ''} alt='' src='{url}'>"
