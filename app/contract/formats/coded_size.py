"""Read how large the pictures in AV1 and HEVC data are, and how many, from their headers, without decoding them.

The boxes of a file state a size of their own, which decoders use only to scale what they have decoded. AV1: the AV1
Bitstream & Decoding Process Specification, 5.3 to 5.9. HEVC: ITU-T H.265, 7.3.
"""

from dataclasses import dataclass

from app.contract.formats.pixels import unsupported

_SEQUENCE_HEADER, _FRAME_HEADERS = 1, (3, 6, 7)
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_SPS, _FIRST_NOT_OF_A_PICTURE = 33, 32
_HEADER_BYTES = 1024  # the longest header up to its size: 32 operating points of an AV1 sequence
_CHOSEN_BY_FRAME = 2


@dataclass(slots=True)
class CodedSize:
    """The largest width and height of the pictures in a piece of data, how many these are, and in how many units."""

    width: int = 0
    height: int = 0
    pictures: int = 0
    units: int = 0

    def add(self, width: int, height: int) -> None:
        self.width, self.height = max(self.width, width), max(self.height, height)


def add_av1(found: CodedSize, data: bytes, most_units: int) -> None:
    """Add the sizes in the open bitstream units of an AV1 picture, of every layer and frame.

    Raises IndexError if they end early or are more than `most_units`, and UnsupportedLayout for a frame with a size of
    its own: it may be far larger than its sequence header says, and no decoder compares the two.
    """
    sequence: _Sequence | None = None
    at = 0
    while at < len(data):
        found.units += 1
        if found.units > most_units:
            raise IndexError
        header = data[at]
        kind, at = header >> 3 & 15, at + 1 + (header >> 2 & 1)
        size = len(data) - at
        if header & 2:
            size, at = _leb128(data, at)
        if size < 0 or at + size > len(data):
            raise IndexError
        if kind == _SEQUENCE_HEADER:
            sequence = _Sequence(_Bits(data[at : at + min(size, _HEADER_BYTES)]))
            found.add(sequence.width, sequence.height)
        elif kind in _FRAME_HEADERS:
            if sequence is None:
                raise IndexError
            found.pictures += 1
            if sequence.is_overridden(_Bits(data[at : at + min(size, _HEADER_BYTES)])):
                raise unsupported("AVIF", "frames of different sizes", "a single picture")
        at += size


def add_hevc(found: CodedSize, data: bytes, most_units: int) -> None:
    """Add the sizes in the NAL units of an HEVC picture, each after its length in 4 bytes: libheif reads no other form.

    Raises IndexError if they end early or are more than `most_units`.
    """
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        at += 4
        if at + size > len(data):
            raise IndexError
        add_nal_unit(found, data[at : at + size], most_units)
        at += size


def add_nal_unit(found: CodedSize, unit: bytes, most_units: int) -> None:
    """Add the size in one NAL unit. Raises as `add_hevc`."""
    found.units += 1
    if found.units > most_units:
        raise IndexError
    kind, layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3
    if layer:  # of another view or depth, which libde265 leaves out
        return
    if kind == _SPS:
        found.add(*_sps_size(_Bits(unit[2:_HEADER_BYTES].replace(b"\0\0\3", b"\0\0"))))
    elif kind < _FIRST_NOT_OF_A_PICTURE:
        found.pictures += unit[2] >> 7  # a picture's first slice


class _Bits:
    """Reads bits, the highest first. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """Return ue(v) of HEVC, which AV1 calls uvlc()."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 31:
                raise IndexError
        return (1 << zeros) - 1 + self.read(zeros)


class _Sequence:
    """An AV1 sequence header, 5.5.1: its size, and the fields that are needed to read the beginning of a frame's
    header."""

    def __init__(self, bits: _Bits) -> None:
        bits.read(4)  # profile, still picture
        self._reduced = bits.read(1)
        self._time_bits = 0
        if self._reduced:
            bits.read(5)
        else:
            self._read_operating_points(bits)
        width_bits, height_bits = 1 + bits.read(4), 1 + bits.read(4)
        self.width, self.height = 1 + bits.read(width_bits), 1 + bits.read(height_bits)
        self._id_bits = 0
        if self._reduced:
            return
        if bits.read(1):
            self._id_bits = bits.read(4) + 2 + bits.read(3) + 1
        bits.read(7)  # tools
        if bits.read(1):  # order hints
            bits.read(2)
        self._screen = _CHOSEN_BY_FRAME if bits.read(1) else bits.read(1)
        self._integers = (_CHOSEN_BY_FRAME if bits.read(1) else bits.read(1)) if self._screen else 0

    def _read_operating_points(self, bits: _Bits) -> None:
        delay_bits = 0
        if bits.read(1):  # timing
            bits.read(64)
            is_even = bits.read(1)
            if is_even:
                bits.exp_golomb()
            if bits.read(1):  # decoder model
                delay_bits = 1 + bits.read(5)
                bits.read(37)
                time_bits = 1 + bits.read(5)
                self._time_bits = 0 if is_even else time_bits
        has_display_delays = bits.read(1)
        for _ in range(1 + bits.read(5)):
            bits.read(12)
            if bits.read(5) > 7:  # levels that have tiers
                bits.read(1)
            if delay_bits and bits.read(1):
                bits.read(2 * delay_bits + 1)
            if has_display_delays and bits.read(1):
                bits.read(4)

    def is_overridden(self, frame: _Bits) -> bool:
        """Return whether a frame has its own size, from the beginning of its header (section 5.9.2)."""
        if self._reduced or frame.read(1):  # or it shows one that was decoded before
            return False
        kind, is_shown = frame.read(2), frame.read(1)
        frame.read(self._time_bits if is_shown else 1)
        if kind == _SWITCH_FRAME:
            return True
        frame.read(1 if kind == _KEY_FRAME and is_shown else 2)  # error resilience, if it is not implied; CDF update
        screen = frame.read(1) if self._screen == _CHOSEN_BY_FRAME else self._screen
        if screen and self._integers == _CHOSEN_BY_FRAME:
            frame.read(1)
        frame.read(self._id_bits)
        return frame.read(1) == 1


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of AV1, and the position of the byte after it."""
    value = 0
    for index in range(8):
        value |= (data[at + index] & 127) << 7 * index
        if data[at + index] < 128:
            return value, at + index + 1
    raise IndexError


def _sps_size(bits: _Bits) -> tuple[int, int]:
    """Return the size of a sequence parameter set of HEVC, 7.3.2.2, before it is cropped."""
    bits.read(4)
    layers = bits.read(3)
    bits.read(97)  # nesting; profile, tier and level
    if layers:
        present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
        bits.read(2 * (8 - layers))
        for has_profile, has_level in present:
            bits.read(88 * has_profile + 8 * has_level)
    bits.exp_golomb()
    if bits.exp_golomb() == 3:  # 4:4:4
        bits.read(1)
    return bits.exp_golomb(), bits.exp_golomb()
