"""From a key to its bucket: the one hash that decides who gets which version and which requests are sampled."""

import hashlib

from turnout.core.snapshot import BUCKETS


def bucket(salt: str, key: str) -> int:
    r"""Return the bucket of a key, 0 to 9,999: sha256 of salt, `\0` and key, its first 8 bytes modulo 10,000."""
    text = f"{salt}\0{key}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % BUCKETS
