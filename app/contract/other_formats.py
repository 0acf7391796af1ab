"""Identify unsupported formats, so that the error can name them and say what to send instead.

It decides nothing: bytes of a format that it does not know are rejected as well.
"""

import re

# (position, the bytes there, what they are); the first that fits is taken.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"hevm", b"hevs")),  # the others are accepted
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"mif1", b"mif2", b"msf1", b"miaf")),
    (4, b"ftypavio", "AVIF"),
    (4, b"ftypcrx ", "a camera's raw file"),
    (4, b"ftypjp2 ", "JPEG 2000"),
    *((4, b"ftyp" + brand, "sound") for brand in (b"M4A ", b"M4B ")),
    (4, b"ftyp", "a video"),
    (4, b"moov", "a video"),
    (4, b"mdat", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"FLV\x01", "a video"),
    (0, b"OggS", "an Ogg file"),
    (0, b"\x00\x00\x01\xba", "a video"),
    (0, b"\x00\x00\x01\xb3", "a video"),
    (8, b"WAVE", "sound"),
    (0, b"ID3", "sound"),
    (0, b"fLaC", "sound"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x00\x00\x02\x00", "CUR"),
    (0, b"icns", "an Apple icon"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP's XCF"),
    (0, b"II\x2b\x00", "BigTIFF"),
    (0, b"MM\x00\x2b", "BigTIFF"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"IIU\x00", "a camera's raw file"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"\x8aMNG", "MNG"),
    *(
        (0, b"P" + kind + end, "PNM")
        for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"7")
        for end in (b"\n", b" ", b"\r")
    ),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    *(
        (0, start, "Base64 text, not the bytes that it stands for")
        for start in (b"/9j/", b"iVBORw0KGgo", b"R0lGOD", b"UklGR")
    ),
    (0, b"data:", "a data URL, not the bytes that it stands for"),
    (0, b"http://", "a URL, not a picture"),
    (0, b"https://", "a URL, not a picture"),
)
_TEXT_BYTES = 4096
_ELEMENT = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)")
_DOCTYPE = re.compile(r"<!doctype\s+(\w+)", re.IGNORECASE)


def name_of_other(data: bytes) -> str | None:
    """Return what the bytes are, in words that follow "This is "; None if they are not known."""
    for at, signature, name in _SIGNATURES:
        if data[at : at + len(signature)] == signature:
            return name
    return _markup(data[:_TEXT_BYTES])


def _markup(data: bytes) -> str | None:
    """Return the kind of a text, by its first element after blanks, declarations and comments."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, "ignore").lstrip()
    kind, is_xml = "", text.startswith("<?xml")
    while text.startswith(("<?", "<!")) and not kind:
        if text.startswith("<!--"):
            end = "-->"
        elif text.startswith("<?"):
            end = "?>"
        else:
            doctype = _DOCTYPE.match(text)
            kind = doctype[1].lower() if doctype else ""
            end = ">"
        text = text.partition(end)[2].lstrip()
    if not kind and (element := _ELEMENT.match(text)):
        kind = element[1].lower()
    if kind == "svg":
        return "SVG"
    if kind in ("html", "head", "body"):
        return "HTML"
    return "XML or SVG" if is_xml else None
