"""A decoder of compact Theta sketches.

The host checks the component's sketches with this decoder. `guest/src/sketch/bytes.rs` describes the format. A sketch
retains the 16,384 smallest hashes of its ids. Theta is the smallest hash that the sketch does not retain, as a fraction
of the range of hashes. The module has no side effects.
"""

from dataclasses import dataclass
from struct import unpack

from .errors import RefusedError

RETAINED_MAX = 1 << 14
"""The largest number of retained hashes. Up to this number of ids, the count is exact."""

BYTES_MAX = 8 * (3 + RETAINED_MAX)
"""The length of the longest sketch that the contract allows."""

THETA_MAX = 2**63 - 1
"""The theta of a sketch that retains every hash."""

_SEED_HASH = b"\xcc\x93"
_EMPTY, _COMPACT = 1 << 2, 1 << 3


@dataclass(frozen=True)
class ThetaSketch:
    """The hashes of a sketch, in ascending order and below theta."""

    hashes: list[int]
    theta: int

    @property
    def count(self) -> int:
        """The estimated number of ids, rounded like the tracker's.

        The number is exact up to 16,384.
        """
        return int(len(self.hashes) / (self.theta / THETA_MAX) + 0.5)

    def below(self, theta: int) -> set[int]:
        """Returns the hashes below a theta."""
        return {number for number in self.hashes if number < theta}


def decode(data: bytes, what: str) -> ThetaSketch:
    """Decodes and validates a sketch. `what` names the sketch in a `RefusedError`."""
    preamble = data[0] & 0x3F if data else 0
    if (
        len(data) % 8
        or not 8 * preamble <= len(data) <= BYTES_MAX
        or data[1:3] != b"\x03\x03"
        or not 1 <= preamble <= 3
        or not data[5] & _COMPACT
    ):
        raise RefusedError(f"{what} is not a compact Theta sketch")
    if data[5] & _EMPTY:
        return ThetaSketch([], THETA_MAX)
    if data[6:8] != _SEED_HASH:
        raise RefusedError(f"{what} does not have the default seed")
    hashes = list(unpack(f"<{len(data) // 8 - preamble}Q", data[8 * preamble :]))
    count = 1 if preamble == 1 else int.from_bytes(data[8:12], "little")
    theta = int.from_bytes(data[16:24], "little") if preamble == 3 else THETA_MAX
    if count != len(hashes):
        raise RefusedError(f"{what} has {len(hashes)} hashes, and its header counts {count}")
    is_ascending = all(map(int.__lt__, hashes, hashes[1:]))
    if not 1 <= theta <= THETA_MAX or not is_ascending or (count and not 0 < hashes[0] <= hashes[-1] < theta):
        raise RefusedError(f"{what} has hashes that are out of order or out of range")
    if theta < THETA_MAX and count != RETAINED_MAX:
        raise RefusedError(f"{what} has a theta below 1 and {count} hashes; {RETAINED_MAX} are required")
    return ThetaSketch(hashes, theta)
