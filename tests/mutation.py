"""Damage to bytes, from a seed: bits and bytes change, and pieces go, come, double, or claim another size."""

import random

_LENGTHS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return the bytes with up to eight damages; `other` is where pieces come from."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _damage(out, other, rng)
    return bytes(out)


def _damage(out: bytearray, other: bytes, rng: random.Random) -> None:
    # Headers lie at the front, and are where most goes wrong.
    at = rng.randrange(min(len(out), 400 if rng.random() < 0.7 else len(out)) or 1)
    match rng.randrange(8):
        case 0 if out:
            out[at] ^= 1 << rng.randrange(8)
        case 1 if out:
            out[at] = rng.randrange(256)
        case 2:
            size = rng.choice((1, 2, 4))
            value = rng.choice(_LENGTHS) & ((1 << 8 * size) - 1)
            out[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))
        case 3:
            del out[at : at + rng.choice((1, 2, 4, 16, 256))]
        case 4:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        case 5:
            size = rng.choice((4, 16, 64, 512))
            out[at:at] = out[at : at + size] * rng.choice((1, 2, 8))
        case 6 if other:
            start = rng.randrange(len(other))
            out[at:at] = other[start : start + rng.choice((2, 4, 16, 64))]
        case 7:
            del out[rng.randrange(len(out) + 1) :]
