"""Changes bytes at random: the one place where inputs are bent. Deterministic for a given `random.Random`."""

from random import Random
from typing import Final

_MOST_CHANGES: Final = 4
_LONGEST_PIECE: Final = 64
# Numbers, signs and ends at which readers go wrong.
TOKENS: Final = (
    *(
        b"\x00",
        b"\xff",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b":",
        b",",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b"\\u0000",
        b"%00",
    ),
    *(b"0", b"-1", b"-0", b"1e999", b"NaN", b"Infinity", b"9223372036854775808", b"18446744073709551616", b"null"),
    *(
        b"chunked",
        b"gzip",
        b"content-length: 1\r\n",
        b"transfer-encoding: chunked\r\n",
        b"\xc3\x28",
        b"../",
        b"a" * 300,
    ),
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
)


def mutated(random: Random, data: bytes) -> bytes:
    """Return `data` after one to four changes: bits, tokens, cuts, copies, swaps."""
    bent = bytearray(data)
    for _ in range(random.randint(1, _MOST_CHANGES)):
        _change(random, bent)
    return bytes(bent)


def noise(random: Random, longest: int) -> bytes:
    """Return random bytes."""
    return random.randbytes(random.randint(0, longest))


def _change(random: Random, bent: bytearray) -> None:
    at = random.randrange(len(bent) + 1)
    end = min(len(bent), at + random.randint(1, _LONGEST_PIECE))
    match random.randrange(7):
        case 0 if at < len(bent):
            bent[at] ^= 1 << random.randrange(8)
        case 1:
            bent[at:at] = random.choice(TOKENS)
        case 2:
            bent[at : at + 1] = random.choice(TOKENS)
        case 3:
            del bent[at:end]
        case 4:
            bent[at:at] = bent[at:end]
        case 5:
            del bent[at:]
        case _:
            bent[at:at] = noise(random, 8)
