"""Reads `routes.yaml` (DESIGN 5) into declared routes with the line of each. Knows nothing of versions that exist."""

import re
from typing import Final

import msgspec

from turnout.control.publish.routes_keys import CompareKind, FallbackKind, Ref, RouteKeys, RoutesFile
from turnout.core.document import Document, DocumentError, Path, parse
from turnout.core.ids import NAME_RULE, VersionRef, is_name
from turnout.core.manifest import Tolerance
from turnout.core.signature import TensorSpec
from turnout.core.snapshot import BUCKETS, DEFAULT_DEADLINE_MS, NUMERIC, Comparison, Fallback, Match, Shadow, Sticky

_PARTS: Final = re.compile(r"(\.weights\.[^:]*|\.sample): expected a whole number")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class DeclaredRoute(msgspec.Struct, frozen=True):
    """A route as asked for, versions in full. `line` is where it begins, `lines` where each version is named."""

    name: str
    champion: str
    weights: dict[str, int]
    shadows: tuple[Shadow, ...] = ()
    sticky: Sticky | None = None
    matches: tuple[Match, ...] = ()
    fallback: tuple[Fallback, ...] = ()
    deadline_ms: int = DEFAULT_DEADLINE_MS
    retry_safe: bool = False
    signature: tuple[TensorSpec, ...] | None = None
    line: int = 1
    lines: dict[str, int] = {}

    def versions(self) -> set[str]:
        """Return every version that it names."""
        named = {self.champion, *self.weights}
        return named | {shadow.version for shadow in self.shadows} | {match.version for match in self.matches}

    def line_of(self, version: str) -> int:
        """Return the line that names `version`, or on which the route begins."""
        return self.lines.get(version, self.line)


def read_routes(text: str, source: str) -> tuple[DeclaredRoute, ...]:
    """Return the routes of a file. Raises DocumentError with line and reason; none is taken from a faulty file."""
    document = parse(text, source)
    try:
        file = document.decode(RoutesFile)
    except DocumentError as error:
        if _PARTS.search(error.reason):
            raise DocumentError(error.source, error.line, f"{error.reason}; it is parts of {BUCKETS:,}") from error
        raise
    return tuple(_Route(document, name, keys).declared() for name, keys in file.routes.items())


class _Route:
    """One route on its way from keys to a declaration; complains with the line of what is at fault."""

    def __init__(self, document: Document, name: str, keys: RouteKeys) -> None:
        self._document = document
        self._at: Path = ("routes", name)
        self._name = name
        self._keys = keys
        self._lines: dict[str, int] = {}

    def declared(self) -> DeclaredRoute:
        """Return the declaration. Raises DocumentError."""
        if not is_name(self._name):
            raise self._error((), f"route name '{self._name}': {NAME_RULE}")
        champion = self._version(("champion",), self._keys.champion)
        return DeclaredRoute(
            name=self._name,
            champion=champion,
            weights=self._weights(champion),
            shadows=self._shadows(champion),
            sticky=self._sticky(),
            matches=self._matches(),
            fallback=self._fallback(),
            deadline_ms=self._keys.deadline_ms,
            retry_safe=self._keys.retry_safe,
            signature=self._keys.signature.inputs if self._keys.signature else None,
            line=self._document.line(self._at),
            lines=self._lines,
        )

    def _weights(self, champion: str) -> dict[str, int]:
        if self._keys.weights is None:
            return {champion: BUCKETS}
        weights: dict[str, int] = {}
        for text, parts in self._keys.weights.items():
            version = self._version(("weights", text), text)
            if version in weights:
                raise self._error(("weights", text), f"weights name {version} twice")
            weights[version] = parts
        total = sum(weights.values())
        if total != BUCKETS:
            raise self._error(("weights",), f"weights sum to {total:,} parts, not {BUCKETS:,}")
        return weights

    def _shadows(self, champion: str) -> tuple[Shadow, ...]:
        shadows: dict[str, Shadow] = {}
        for index, keys in enumerate(self._keys.shadows):
            at: Path = ("shadows", index)
            version = self._version((*at, "version"), keys.version)
            if version == champion:
                raise self._error((*at, "version"), f"{version} is the champion; a shadow is compared with another one")
            if version in shadows:
                raise self._error((*at, "version"), f"shadows name {version} twice")
            compare = {output: _comparison(how) for output, how in keys.compare.items()}
            shadows[version] = Shadow(version, keys.sample, compare)
        return tuple(shadows.values())

    def _sticky(self) -> Sticky | None:
        keys = self._keys.sticky
        if keys is None:
            return None
        if (keys.header is None) is (keys.parameter is None):
            raise self._error(("sticky",), "sticky takes either a header or a parameter")
        header = self._header(("sticky", "header"), keys.header) if keys.header else None
        return Sticky(self._name if keys.salt is None else keys.salt, header, keys.parameter)

    def _matches(self) -> tuple[Match, ...]:
        matches: list[Match] = []
        for index, keys in enumerate(self._keys.match):
            at: Path = ("match", index)
            if not keys.header:
                raise self._error((*at, "header"), "a match names at least one header")
            headers: dict[str, str] = {}
            for name, value in keys.header.items():
                header = self._header((*at, "header", name), name)
                if header in headers:
                    raise self._error((*at, "header", name), f"header '{header}' appears twice")
                headers[header] = value
            matches.append(Match(headers, self._version((*at, "version"), keys.version)))
        return tuple(matches)

    def _fallback(self) -> tuple[Fallback, ...]:
        tried: list[Fallback] = []
        for index, keys in enumerate(self._keys.fallback):
            if isinstance(keys, FallbackKind):
                tried.append(Fallback(keys.value))
                continue
            if not keys.value:
                raise self._error(("fallback", index), "a fallback value names at least one output")
            tried.append(Fallback("value", keys.value))
        return tuple(tried)

    def _version(self, path: Path, ref: Ref) -> str:
        try:
            version = str(VersionRef.parse(str(ref), default_model=self._name))
        except ValueError as error:
            raise self._error(path, str(error)) from error
        self._lines.setdefault(version, self._document.line((*self._at, *path)))
        return version

    def _header(self, path: Path, name: str) -> str:
        if not _HEADER.fullmatch(name):
            raise self._error(path, f"'{name}' is not a header name")
        return name.lower()

    def _error(self, path: Path, reason: str) -> DocumentError:
        return self._document.error((*self._at, *path), f"route '{self._name}': {reason}")


def _comparison(how: CompareKind | Tolerance) -> Comparison:
    if isinstance(how, Tolerance):
        return Comparison(CompareKind.NUMERIC.value, how.abs, how.rel)
    return NUMERIC if how is CompareKind.NUMERIC else Comparison(how.value)
