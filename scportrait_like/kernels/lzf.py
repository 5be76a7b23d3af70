"""An LZF encoder for planes of small cells on a black ground.

The stream is that of liblzf, the format of HDF5's filter 32000: a control byte below 32 is followed
by that many literals plus one; else its upper three bits are a length (7: the next byte is added)
and its lower five, with the byte that follows, a distance: copy length + 2 bytes from distance + 1
bytes back. Only repetitions of a pixel of two bytes are looked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Int64, checked_output, frozen
from ._jit import jit

Bytes = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
UInt64 = npt.NDArray[np.uint64]

_MAX_LITERALS = 32
_MAX_MATCH = 264  # 2 + 7 + 255


@jit
def _literals(plane: Bytes, begin: int, end: int, out: Bytes, at: int) -> int:
    """Write plane[begin:end] as literals; -1 if they do not fit."""
    while begin < end:
        n = min(end - begin, _MAX_LITERALS)
        if at + 1 + n > out.size:
            return -1
        out[at] = n - 1
        source = plane[begin : begin + n]
        to = out[at + 1 : at + 1 + n]
        for i in range(n):
            to[i] = source[i]
        at += n + 1
        begin += n
    return at


@jit
def _match(length: int, out: Bytes, at: int) -> int:
    """Write copies of the pixel before, ``length`` bytes in all; -1 if they do not fit."""
    while length > 0:
        n = min(length, _MAX_MATCH)
        if 0 < length - n < 3:
            n -= 4  # leave enough for one more match
        if at + 3 > out.size:
            return -1
        if n < 9:
            out[at] = (n - 2) << 5
            out[at + 1] = 1
            at += 2
        else:
            out[at] = 7 << 5
            out[at + 1] = n - 9
            out[at + 2] = 1
            at += 3
        length -= n
    return at


@jit
def _run_end(words: UInt64, pixel: int, begin: int, count: int) -> int:
    """Where the run of ``pixel`` that starts at ``begin`` ends: four pixels are compared at once.

    In the first word that differs, the equal pixels are those below its lowest bit that does
    (bytes lie in the order of a little-endian machine).
    """
    word = np.uint64(pixel) * np.uint64(0x0001000100010001)
    at = begin >> 2
    differ = words[at] ^ word
    differ &= np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64((begin & 3) << 4)
    while differ == 0:
        at += 1
        while at + 4 <= words.size:  # the ground is long: sixteen at once
            unlike = (words[at] ^ word) | (words[at + 1] ^ word)
            if unlike | (words[at + 2] ^ word) | (words[at + 3] ^ word):
                break
            at += 4
        if at == words.size:
            return count
        differ = words[at] ^ word
    end = at << 2
    end += (differ & np.uint64(0xFFFF)) == 0
    end += (differ & np.uint64(0xFFFFFFFF)) == 0
    end += (differ & np.uint64(0xFFFFFFFFFFFF)) == 0
    return int(min(end, count))


@jit
def _encode(plane: Bytes, pixels: UInt16, words: UInt64, out: Bytes) -> int:
    """Encode one plane; return the bytes written, 0 where that is not less than the plane."""
    size = plane.size
    count = size // 2
    at = 0
    pending = 0  # first byte that is not yet written
    i = 0
    while i + 2 < count:
        if (pixels[i] ^ pixels[i + 1]) | (pixels[i] ^ pixels[i + 2]):  # one branch, not two
            i += 1
            continue
        end = _run_end(words, pixels[i], i, count)
        at = _literals(plane, pending, 2 * i + 2, out, at)
        if at < 0:
            return 0
        at = _match(2 * (end - i - 1), out, at)
        if at < 0:
            return 0
        i = end
        pending = 2 * i
    at = _literals(plane, pending, size, out, at)
    return at if 0 < at < size else 0


@jit
def _encode_all(planes: Bytes, pixels: UInt16, words: UInt64, out: Bytes, sizes: Int64) -> None:
    for i in range(planes.shape[0]):
        sizes[i] = _encode(planes[i], pixels[i], words[i], out[i])


def lzf_encode(planes: Bytes, out: Bytes, sizes: Int64) -> None:
    """Compress planes, each one chunk of HDF5, to LZF streams.

    Parameters
    ----------
    planes : (n, nbytes) uint8
        The bytes of each plane; pixels of two bytes compress best.
    out : (n, nbytes) uint8
        Overwritten; plane i is ``out[i, :sizes[i]]``.
    sizes : (n,) int64
        Overwritten with the length of each stream, 0 where the plane does not shrink: store it as
        it is, with ``filter_mask=1``.
    """
    if planes.ndim != 2 or out.shape != planes.shape or sizes.shape != planes.shape[:1]:
        raise ValueError("planes and out must be (n, nbytes), sizes (n,)")
    source = frozen(planes, np.uint8)
    count, size = source.shape
    if size % 8 or source.ctypes.data % 8:
        padded = np.zeros((count, -(-size // 8) * 8), np.uint8)
        padded[:, :size] = source
    else:
        padded = source
    pixels = frozen(padded.view(np.uint16), np.uint16)
    words = frozen(padded.view(np.uint64), np.uint64)
    target, lengths = checked_output(out, np.uint8), checked_output(sizes, np.int64)
    _encode_all(source, pixels, words, target, lengths)
