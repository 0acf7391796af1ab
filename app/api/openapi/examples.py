"""The examples in the OpenAPI document. Each can be sent as it is, and is answered (a test sends all)."""

PICTURE_IN_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAfUlEQVQoFX3BMQEDIBAEsJwzqqyPMuqMbvATSTzEQzzEQ3T1/X1c"
    "0a3h83NEt5nliG4TV3SbuKKrr1mO6DazHNFtZjmi28xyRLeZ5YhuE1d0m7ii28QV3Sau6NYwyxHdGmY5ohmLWY5o1mCWI66x+Pxc"
    "cY01SxcP8RAP8fAHkowiHY8EVuEAAAAASUVORK5CYII="
)
"""A handwritten digit, a PNG of 28 × 28 pixels."""

TOP_K = 3
REQUEST_ID = "order-42"
REQUEST_TIMEOUT_S = 5.0
