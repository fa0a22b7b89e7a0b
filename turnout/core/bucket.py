"""From a key to its bucket: the one hash that decides who gets which version."""

import hashlib
from functools import lru_cache
from typing import Final

from turnout.core.snapshot import BUCKETS

# The same users come again: so many short keys are remembered, since a hash costs as much as ten other steps.
_KNOWN: Final = 8192
_SHORT: Final = 64


def bucket(salt: str, key: str) -> int:
    r"""Return the bucket of a key, 0 to 9,999: sha256 of salt, `\0` and key, its first 8 bytes modulo 10,000."""
    return _known(salt, key) if len(key) <= _SHORT else _hashed(salt, key)


def _hashed(salt: str, key: str) -> int:
    text = f"{salt}\0{key}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % BUCKETS


_known = lru_cache(_KNOWN)(_hashed)
