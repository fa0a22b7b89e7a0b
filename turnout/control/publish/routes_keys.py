"""The keys of `routes.yaml` (DESIGN 5), each with what it means. Rules beyond their types: `routes_file`."""

import enum
from typing import Annotated, Any, Final

import msgspec

from turnout.core.manifest import About, Tolerance, check_specs
from turnout.core.signature import TensorSpec
from turnout.core.snapshot import BUCKETS, DEFAULT_DEADLINE_MS

MAX_DEADLINE_MS: Final = 24 * 3600 * 1000
MAX_ROUTES: Final = 10_000
MAX_ENTRIES: Final = 100  # of each list of a route: a request may look at every one

Parts = Annotated[int, msgspec.Meta(ge=0, le=BUCKETS)]
Ref = str | Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class CompareKind(enum.StrEnum):
    """How an output of a shadow is compared when no tolerance is written out."""

    EXACT = "exact"
    NUMERIC = "numeric"


class FallbackKind(enum.StrEnum):
    """A version to fall back to."""

    CHAMPION = "champion"
    PREVIOUS = "previous"


class ShadowKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `shadows`."""

    version: Annotated[Ref, About(description="The version that gets copies; its answers are compared and dropped.")]
    sample: Annotated[Parts, About(description="How many requests are copied, in parts of 10,000.")] = BUCKETS
    compare: Annotated[
        dict[str, CompareKind | Tolerance],
        About(
            description="Output to `exact`, `numeric` or `{abs: …, rel: …}`; else exact, and numeric for floats "
            "(1e-6 + 1e-5 of the champion's value)."
        ),
    ] = {}


class StickyKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sticky`: where a request's key is found."""

    header: Annotated[Text | None, About(description="Header, or gRPC metadata, that holds the key.")] = None
    parameter: Annotated[Text | None, About(description="Request parameter that holds the key, instead.")] = None
    salt: Annotated[str | None, About(description="Salt of the key's hash; the route's name when absent.")] = None


class MatchKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `match`."""

    header: Annotated[dict[str, str], About(description="Headers that a request must all carry, with these values.")]
    version: Annotated[Ref, About(description="The version that answers such requests, outside the split.")]


class ValueKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A constant to fall back to."""

    value: Annotated[dict[str, Any], About(description="Output to its constant: one element a row.")]


class SignatureKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`signature` of a route."""

    inputs: Annotated[
        tuple[TensorSpec, ...], About(description="Inputs that the route takes; its versions may take fewer.")
    ]

    def __post_init__(self) -> None:
        """Refuse nameless, repeated and shapeless inputs with a ValueError."""
        check_specs("input", self.inputs)


class RouteKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One route of `routes.yaml`. Versions are `model@number`; a bare number is one of the model named as the route."""

    champion: Annotated[Ref, About(description="The trusted version.")]
    weights: Annotated[
        Annotated[dict[str, Parts], msgspec.Meta(max_length=MAX_ENTRIES)] | None,
        About(description="Version to its share in parts of 10,000, together 10,000; all to the champion when absent."),
    ] = None
    shadows: Annotated[
        tuple[ShadowKeys, ...], msgspec.Meta(max_length=MAX_ENTRIES, description="Versions that get copies.")
    ] = ()
    sticky: Annotated[
        StickyKeys | None,
        About(description="Keeps a caller with a version; without it, or without a key, each request is drawn alone."),
    ] = None
    match: Annotated[
        tuple[MatchKeys, ...],
        msgspec.Meta(max_length=MAX_ENTRIES, description="Requests that go to a version by their headers."),
    ] = ()
    deadline_ms: Annotated[
        int, msgspec.Meta(ge=1, le=MAX_DEADLINE_MS, description="Longest time of a request, in milliseconds.")
    ] = DEFAULT_DEADLINE_MS
    fallback: Annotated[
        tuple[FallbackKind | ValueKeys, ...],
        msgspec.Meta(
            max_length=MAX_ENTRIES,
            description="Tried in order when the picked version fails: `champion`, `previous`, `{value: …}`.",
        ),
    ] = ()
    retry_safe: Annotated[
        bool,
        About(description="Says that a request may be run twice. Recorded and shown; nothing else reads it yet."),
    ] = False
    signature: Annotated[
        SignatureKeys | None, About(description="What the route takes; what its champion takes when absent.")
    ] = None


class RoutesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`routes.yaml`."""

    routes: Annotated[
        dict[str, RouteKeys], msgspec.Meta(max_length=MAX_ROUTES, description="Route name to route; `{}` for none.")
    ]
