"""A request's headers as received: bytes, decoded only when somebody asks for one by name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

ACCEPT_ENCODING: Final = b"accept-encoding"
CONTENT_ENCODING: Final = b"content-encoding"
CONTENT_LENGTH: Final = b"content-length"
CONTENT_TYPE: Final = b"content-type"
DEADLINE_MS: Final = b"turnout-deadline-ms"
JSON_LENGTH: Final = b"inference-header-content-length"
REQUEST_ID: Final = b"turnout-request-id"
TRACEPARENT: Final = b"traceparent"

Pair = tuple[bytes, bytes]


class Headers(Mapping[str, str]):
    """Lower-case names to values; of a repeated header the last counts. `raw` are the bytes."""

    __slots__ = ("raw",)

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.raw: dict[bytes, bytes] = dict(pairs)

    def __getitem__(self, name: str) -> str:
        """Return the value of a header as text."""
        return self.raw[name.encode("latin-1", "replace")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return (name.decode("latin-1") for name in self.raw)

    def __len__(self) -> int:
        """Return how many headers there are."""
        return len(self.raw)

    def text(self, name: bytes) -> str | None:
        """Return one header's text, or None."""
        value = self.raw.get(name)
        return None if value is None else value.decode("latin-1")
