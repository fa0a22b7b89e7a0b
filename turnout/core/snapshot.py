"""The immutable picture that control publishes and gateways follow: versions to hold, and routes over them.

`hold` is apart from `routes`: a gateway loads and warms what is held, then routes change (DESIGN 1).
Versions are written `model@number`. Encoding is canonical JSON; `digest` covers it.
"""

import hashlib
from typing import Any, Final

import msgspec

from turnout.core.ids import VersionRef
from turnout.core.manifest import Batching, Cast, DeclaredSignature, Rename, Runtime, ValueMetrics, VersionLimits
from turnout.core.signature import TensorSpec

BUCKETS: Final = 10_000
DEFAULT_DEADLINE_MS: Final = 30_000


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a version: path relative to the version's folder, sha256 of its bytes, size in bytes."""

    path: str
    sha256: str
    size: int


class VersionEntry(msgspec.Struct, frozen=True):
    """A version: what it declares and which bytes it is. `artifact` and `golden` are paths among `files`."""

    model: str
    number: int
    digest: str
    runtime: Runtime
    artifact: str
    files: tuple[FileEntry, ...]
    signature: DeclaredSignature = DeclaredSignature()
    rename: Rename = Rename()
    cast: Cast = Cast()
    batching: Batching | bool = True
    limits: VersionLimits = VersionLimits()
    golden: str | None = None
    metrics: ValueMetrics = ValueMetrics()
    options: dict[str, Any] = {}
    trusted: bool = False

    @property
    def ref(self) -> VersionRef:
        """The version's name and number."""
        return VersionRef(self.model, self.number)


class Sticky(msgspec.Struct, frozen=True):
    """Where the sticky key is found (exactly one of `header`, `parameter`), and the salt of its hash."""

    salt: str
    header: str | None = None
    parameter: str | None = None


class Variant(msgspec.Struct, frozen=True):
    """A version behind a route; `ranges` are half-open bucket ranges that add up to `weight` parts of 10,000.

    The ranges stand in the order in which they were taken, not sorted: shrinking gives back the end of the last one.
    """

    version: str
    weight: int
    ranges: tuple[tuple[int, int], ...]


class Match(msgspec.Struct, frozen=True):
    """Requests that carry all of these headers (lower-case names) go to `version`, outside the split."""

    headers: dict[str, str]
    version: str


class Comparison(msgspec.Struct, frozen=True):
    """How one output of a shadow is compared: `kind` is `exact` or `numeric` (abs + rel * |champion|)."""

    kind: str
    abs: float = 0.0
    rel: float = 0.0


EXACT: Final = Comparison("exact")
NUMERIC: Final = Comparison("numeric", abs=1e-6, rel=1e-5)  # what numbers get where nothing is said


class Shadow(msgspec.Struct, frozen=True):
    """A version that gets copies of `sample` in 10,000 requests and whose answers are compared, then dropped."""

    version: str
    sample: int = BUCKETS
    compare: dict[str, Comparison] = {}


class Fallback(msgspec.Struct, frozen=True):
    """One thing to try: `kind` is `champion`, `previous` or `value`; `value` gives each output one element a row."""

    kind: str
    value: dict[str, Any] = {}


class Route(msgspec.Struct, frozen=True):
    """A name that clients call. `explicit` routes come from a file or the API; others are implied by a model."""

    name: str
    champion: str
    variants: tuple[Variant, ...]
    explicit: bool = False
    previous: str | None = None
    shadows: tuple[Shadow, ...] = ()
    sticky: Sticky | None = None
    matches: tuple[Match, ...] = ()
    fallback: tuple[Fallback, ...] = ()
    deadline_ms: int = DEFAULT_DEADLINE_MS
    retry_safe: bool = False
    signature: tuple[TensorSpec, ...] | None = None

    def versions(self) -> set[str]:
        """Return every version that the route names."""
        named = {self.champion, *(variant.version for variant in self.variants)}
        named |= {shadow.version for shadow in self.shadows} | {match.version for match in self.matches}
        return named | ({self.previous} if self.previous else set())

    def required(self) -> set[str]:
        """Return the versions without which the route is not whole: its champion and the weighted ones."""
        return {self.champion, *(variant.version for variant in self.variants if variant.weight)}


class Snapshot(msgspec.Struct, frozen=True):
    """One publication. `routes_generation` is the generation that last changed routes: answers carry it.

    `catalogue` lists versions that exist but are not held, so that the repository index can name them. `refused` is
    why a first start has no routes yet: the routes file was not taken, and there are none of before.
    """

    registry_id: str
    generation: int
    routes_generation: int
    versions: tuple[VersionEntry, ...] = ()
    routes: tuple[Route, ...] = ()
    catalogue: tuple[str, ...] = ()
    problems: dict[str, str] = {}
    refused: str = ""


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_DECODER: Final = msgspec.json.Decoder(Snapshot)


def blob_path(sha256: str) -> str:
    """Return where bytes lie below a blob folder (`STATE/blobs/sha256`, header `turnout-blobs`)."""
    return f"{sha256[:2]}/{sha256}"


def encode(snapshot: Snapshot) -> bytes:
    """Return the canonical bytes of a snapshot."""
    return _ENCODER.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """Read a snapshot's bytes. Raises msgspec.DecodeError or msgspec.ValidationError when they are none."""
    return _DECODER.decode(data)


def digest(data: bytes) -> str:
    """Return the digest of a snapshot's canonical bytes, as `sha256:…`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
