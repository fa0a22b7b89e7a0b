"""Compiles declared routes over known versions into published ones, and says what cannot stand behind a route. Pure."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from turnout.control.publish.ranges import spread
from turnout.control.publish.routes_file import DeclaredRoute
from turnout.core import json_tensor
from turnout.core.errors import InvalidInput
from turnout.core.ids import VersionRef
from turnout.core.signature import Signature, TensorSpec, fit, incompatibility, names
from turnout.core.snapshot import BUCKETS, Route, VersionEntry

_PREVIOUS: Final = "previous"


class Fault(NamedTuple):
    """Why routes cannot be taken. `version` is the one at fault, if it is one."""

    route: str
    reason: str
    version: str | None = None

    def __str__(self) -> str:
        """Return the reason with its route."""
        return f"route '{self.route}': {self.reason}"


def declaration_fault(
    routes: Iterable[DeclaredRoute],
    known: Mapping[str, VersionEntry],
    problems: Mapping[str, str],
    excused: Collection[str] | None,
) -> Fault | None:
    """Return what can be told wrong before anything is loaded: versions that are not known, unequal value buckets.

    `problems` say why folders, or versions in them, were refused; `excused` versions (None: all) may be such ones.
    """
    for route in routes:
        versions = sorted(route.versions(), key=VersionRef.parse)
        for version in versions:
            if version in known:
                continue
            problem = problems.get(version) or problems.get(VersionRef.parse(version).model)
            if problem is None:
                return Fault(route.name, f"version {version} is not known{_known_versions(version, known)}", version)
            if excused is not None and version not in excused:
                return Fault(route.name, f"version {version} is refused: {problem}", version)
        wanted = known[route.champion].metrics if route.champion in known else None
        for version in versions:
            if wanted is not None and version in known and known[version].metrics != wanted:
                reason = f"{version} and the champion {route.champion} declare different buckets of metrics.value"
                return Fault(route.name, reason, version)
    return None


def compiled(declared: DeclaredRoute, before: Route | None) -> Route:
    """Return the route to publish; `before` is the one of this name that was in force."""
    return Route(
        name=declared.name,
        champion=declared.champion,
        variants=spread(declared.weights, declared.champion, before.variants if before else ()),
        explicit=True,
        previous=_previous(declared.champion, before),
        shadows=declared.shadows,
        sticky=declared.sticky,
        matches=declared.matches,
        fallback=declared.fallback,
        deadline_ms=declared.deadline_ms,
        retry_safe=declared.retry_safe,
        signature=declared.signature,
    )


def implicit(model: str, champion: str, before: Route | None) -> Route:
    """Return the route that a model has of its own: all traffic to one version."""
    variants = spread({champion: BUCKETS}, champion, before.variants if before else ())
    return Route(model, champion, variants, previous=_previous(champion, before))


def without(route: Route, version: str) -> Route:
    """Return the route without a version that cannot stand behind it; its share goes back to the champion."""
    weights = {variant.version: variant.weight for variant in route.variants if variant.version != version}
    weights[route.champion] = BUCKETS - sum(w for v, w in weights.items() if v != route.champion)
    return msgspec.structs.replace(
        route,
        variants=spread(weights, route.champion, route.variants),
        previous=None if route.previous == version else route.previous,
        shadows=tuple(shadow for shadow in route.shadows if shadow.version != version),
        matches=tuple(match for match in route.matches if match.version != version),
    )


def named(route: Route) -> set[str]:
    """Return the versions that somebody put behind the route, so without the previous champion that it only keeps."""
    return msgspec.structs.replace(route, previous=None).versions()


def newly_needed(before: Route | None, after: Route) -> set[str]:
    """Return the versions that must be ready before `after` may follow `before`: new ones, and those that get more."""
    if before is None:
        return named(after)
    weights = {variant.version: variant.weight for variant in before.variants}
    grown = {variant.version for variant in after.variants if variant.weight > weights.get(variant.version, 0)}
    promoted = {after.champion} if after.champion != before.champion else set[str]()
    return (named(after) - named(before)) | grown | promoted


def signature_faults(route: Route, signatures: Mapping[str, Signature]) -> Iterator[Fault]:
    """Yield what does not fit together behind a route, as far as signatures are known.

    All versions answer what the champion answers, and take a subset of the route's inputs: its own, or else the
    champion's (DESIGN 5).
    """
    champion = signatures.get(route.champion)
    if champion is None:
        return
    inputs = {spec.name: spec for spec in (champion.inputs if route.signature is None else route.signature)}
    checked = named(route)
    if route.previous and any(fallback.kind == _PREVIOUS for fallback in route.fallback):
        checked.add(route.previous)
    for version in sorted(checked, key=VersionRef.parse):
        signature = signatures.get(version)
        reason = incompatibility(inputs, signature, champion.outputs) if signature else None
        if reason:
            yield Fault(route.name, f"{version} cannot stand behind it: {reason}", version)
    yield from _output_faults(route, champion)


def _output_faults(route: Route, champion: Signature) -> Iterator[Fault]:
    for shadow in route.shadows:
        for output in shadow.compare:
            if champion.output(output) is None:
                yield Fault(route.name, f"compare: output '{output}' is none of {names(champion.outputs)}")
    for fallback in route.fallback:
        for output, value in fallback.value.items():
            spec = champion.output(output)
            reason = _value_fault(spec, value) if spec else f"output '{output}' is none of {names(champion.outputs)}"
            if reason:
                yield Fault(route.name, f"fallback value: {reason}")


def _value_fault(spec: TensorSpec, value: Any) -> str | None:
    """Say why one element a row of an output cannot be `value`."""
    try:
        shape = (1, *np.shape(value))
        fit(spec, json_tensor.decode(spec.name, spec.datatype, shape, msgspec.json.encode([value])))
    except InvalidInput as error:
        return error.message
    except ValueError:
        return f"tensor '{spec.name}': its lists are not of equal length"
    return None


def _previous(champion: str, before: Route | None) -> str | None:
    if before is None:
        return None
    return before.previous if before.champion == champion else before.champion


def _known_versions(version: str, known: Mapping[str, VersionEntry]) -> str:
    model = VersionRef.parse(version).model
    numbers = sorted(entry.number for entry in known.values() if entry.model == model)
    if numbers:
        return f"; known of {model}: {', '.join(map(str, numbers))}"
    near = difflib.get_close_matches(model, {entry.model for entry in known.values()}, 1)
    return f"; did you mean model '{near[0]}'?" if near else ""
