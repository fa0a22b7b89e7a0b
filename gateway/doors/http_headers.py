"""A request's headers as received: bytes, decoded only when somebody asks for one by name."""

from typing import Final

import msgspec

ACCEPT_ENCODING: Final = b"accept-encoding"
CONTENT_ENCODING: Final = b"content-encoding"
CONTENT_LENGTH: Final = b"content-length"
CONTENT_TYPE: Final = b"content-type"
DEADLINE_MS: Final = b"turnout-deadline-ms"
JSON_LENGTH: Final = b"inference-header-content-length"
REQUEST_ID: Final = b"turnout-request-id"
TRACEPARENT: Final = b"traceparent"

Pair = tuple[bytes, bytes]


class Headers(msgspec.Struct, gc=False, frozen=True):
    """A request's headers as received: `raw` maps lower-case names to values; of a repeated header the last counts."""

    raw: dict[bytes, bytes]

    def get(self, name: str) -> str | None:
        """Return the value of a header by its name as text, or None."""
        value = self.raw.get(name.encode("latin-1", "replace"))
        return None if value is None else value.decode("latin-1")

    def text(self, name: bytes) -> str | None:
        """Return one header's text, or None."""
        value = self.raw.get(name)
        return None if value is None else value.decode("latin-1")
