"""From declared routes to published ones, and what cannot stand behind a route."""

import msgspec
import pytest

from turnout.control.publish.compile import (
    compiled,
    declaration_fault,
    implicit,
    newly_needed,
    signature_faults,
    without,
)
from turnout.control.publish.routes_file import DeclaredRoute
from turnout.core.manifest import Runtime, ValueMetrics
from turnout.core.signature import Signature, TensorSpec
from turnout.core.snapshot import Comparison, Fallback, Match, Shadow, Variant, VersionEntry
from turnout.core.tensor import Datatype

X = TensorSpec("x", Datatype.FP32, (-1,))
W = TensorSpec("w", Datatype.BYTES, (-1,))
LABEL = TensorSpec("label", Datatype.INT64, (-1,))
PROBABILITIES = TensorSpec("probabilities", Datatype.FP64, (-1, 2))
WHOLE = Signature((X, W), (LABEL, PROBABILITIES))
SUBSET = Signature((X,), (LABEL, PROBABILITIES))
OTHER = Signature((X,), (LABEL,))


def entry(number: int, **changes) -> VersionEntry:
    """Return a version of model `m`."""
    plain = VersionEntry("m", number, f"sha256:{number}", Runtime.ONNX, "m.onnx", ())
    return msgspec.structs.replace(plain, **changes)


KNOWN = {f"m@{number}": entry(number) for number in (1, 2, 3)}


def declared(**changes) -> DeclaredRoute:
    """Return a route to m@2 with a canary m@1."""
    plain = DeclaredRoute("m", "m@2", {"m@2": 9_000, "m@1": 1_000})
    return msgspec.structs.replace(plain, **changes)


def faults(route: DeclaredRoute, **signatures: Signature) -> list[str]:
    """Return what does not fit, with signatures by number: `v1=…`."""
    named = {f"m@{name[1:]}": signature for name, signature in signatures.items()}
    return [str(fault) for fault in signature_faults(compiled(route, None), named)]


def test_a_route_keeps_its_previous_champion():
    """One step back stays warm through any change of weights, and follows changes of the champion."""
    first = compiled(declared(), None)
    assert first.previous is None
    promoted = compiled(declared(champion="m@1", weights={"m@1": 10_000}), first)
    assert promoted.previous == "m@2"
    shifted = compiled(declared(champion="m@1", weights={"m@1": 9_000, "m@3": 1_000}), promoted)
    assert shifted.previous == "m@2"
    assert compiled(declared(), shifted).previous == "m@1"
    assert implicit("m", "m@3", shifted).previous == "m@1"


def test_an_implicit_route_gives_everything_to_one_version():
    """Nothing of an explicit route of that name is left but its previous champion."""
    route = implicit("m", "m@2", compiled(declared(), None))
    assert route.variants == (Variant("m@2", 10_000, ((0, 10_000),)),)
    assert (route.explicit, route.previous) == (False, None)


def test_versions_that_nobody_knows_are_named():
    """With what is known of the model, or the nearest model's name."""
    fault = declaration_fault([declared(champion="m@7", weights={"m@7": 10_000})], KNOWN, {}, ())
    assert str(fault) == "route 'm': version m@7 is not known; known of m: 1, 2, 3"
    assert fault.version == "m@7"
    near = {"flight-delay@1": entry(1, model="flight-delay")}
    fault = declaration_fault([declared(champion="flihgt-delay@1", weights={})], near, {}, ())
    assert str(fault).endswith("; did you mean model 'flight-delay'?")
    assert declaration_fault([declared()], KNOWN, {}, ()) is None


def test_versions_behind_a_route_share_their_value_buckets():
    """Histograms of one route cannot be added up otherwise."""
    known = KNOWN | {"m@1": entry(1, metrics=ValueMetrics((0.5,)))}
    fault = declaration_fault([declared()], known, {}, ())
    assert str(fault) == "route 'm': m@1 and the champion m@2 declare different buckets of metrics.value"
    assert declaration_fault([declared(weights={"m@2": 10_000})], known, {}, ()) is None


def test_a_version_may_take_a_subset_of_the_champions_inputs():
    """And must answer exactly what the champion answers."""
    assert faults(declared(), v2=WHOLE, v1=SUBSET) == []
    assert faults(declared(), v2=SUBSET, v1=WHOLE) == [
        "route 'm': m@1 cannot stand behind it: input 'w' is not among the route's inputs"
    ]
    assert faults(declared(), v2=WHOLE, v1=OTHER) == [
        "route 'm': m@1 cannot stand behind it: output 'probabilities' is missing"
    ]


def test_a_routes_own_signature_is_what_counts():
    """Then the champion too may take a subset, and must not take more."""
    route = declared(signature=(X, W))
    assert faults(route, v2=SUBSET, v1=WHOLE) == []
    assert faults(declared(signature=(X,)), v2=WHOLE) == [
        "route 'm': m@2 cannot stand behind it: input 'w' is not among the route's inputs"
    ]


@pytest.mark.parametrize(
    "extra",
    [
        {"shadows": (Shadow("m@3"),)},
        {"matches": (Match({"x": "y"}, "m@3"),)},
        {"weights": {"m@2": 10_000, "m@3": 0}},
    ],
)
def test_shadows_matches_and_zero_weights_are_checked_too(extra):
    """Everything that may be asked, compared or switched on must fit."""
    assert faults(declared(**extra), v2=WHOLE, v3=OTHER) == [
        "route 'm': m@3 cannot stand behind it: output 'probabilities' is missing"
    ]


def test_the_previous_champion_is_checked_where_it_is_fallen_back_to():
    """Otherwise a new champion may answer something new."""
    before = compiled(declared(champion="m@3", weights={"m@3": 10_000}), None)
    signatures = {"m@2": WHOLE, "m@3": OTHER}
    assert list(signature_faults(compiled(declared(), before), signatures)) == []
    falling = compiled(declared(fallback=(Fallback("previous"),)), before)
    assert [fault.version for fault in signature_faults(falling, signatures)] == ["m@3"]


def test_unknown_signatures_are_not_judged():
    """Without the champion's nothing can be said; without a variant's nothing of it."""
    assert faults(declared(), v1=OTHER) == []
    assert faults(declared(), v2=WHOLE) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"label": 0}, None),
        ({"label": 0, "probabilities": [0.5, 0.5]}, None),
        ({"lable": 0}, "output 'lable' is none of 'label', 'probabilities'"),
        ({"label": "late"}, "tensor 'label'"),
        ({"label": 0.5}, "tensor 'label'"),
        ({"label": [0, 1]}, "tensor 'label'"),
        ({"probabilities": 0.5}, "tensor 'probabilities'"),
        ({"probabilities": [0.1, 0.2, 0.7]}, "tensor 'probabilities'"),
        ({"probabilities": [[0.1], [0.2, 0.7]]}, "tensor 'probabilities'"),
    ],
)
def test_a_fallback_value_must_fit_the_outputs(value, reason):
    """One element a row, of the output's datatype and shape."""
    found = faults(declared(fallback=(Fallback("value", value),)), v2=WHOLE)
    assert [reason in text for text in found] == ([True] if reason else [])


def test_compared_outputs_must_exist():
    """A comparison of nothing would agree for ever."""
    route = declared(shadows=(Shadow("m@3", compare={"prediction": Comparison("exact")}),))
    assert faults(route, v2=WHOLE) == ["route 'm': compare: output 'prediction' is none of 'label', 'probabilities'"]


def test_what_must_be_ready_for_a_change():
    """New versions and those that get more; giving less never waits, so a broken canary can always be taken out."""
    before = compiled(declared(shadows=(Shadow("m@3"),)), None)
    assert newly_needed(None, before) == {"m@1", "m@2", "m@3"}
    assert newly_needed(before, before) == set()
    assert newly_needed(before, compiled(declared(weights={"m@2": 10_000}), before)) == {"m@2"}
    assert newly_needed(before, compiled(declared(weights={"m@2": 8_000, "m@1": 2_000}), before)) == {"m@1"}
    assert newly_needed(before, compiled(declared(champion="m@1"), before)) == {"m@1"}
    assert newly_needed(before, compiled(declared(matches=(Match({"a": "b"}, "m@3"),)), before)) == set()


def test_a_version_that_does_not_fit_is_taken_out_everywhere():
    """Its share goes back to the champion, its shadow and match go."""
    route = compiled(declared(shadows=(Shadow("m@1"),), matches=(Match({"a": "b"}, "m@1"),)), None)
    reduced = without(msgspec.structs.replace(route, previous="m@1"), "m@1")
    assert reduced.variants == (Variant("m@2", 10_000, ((0, 10_000),)),)
    assert (reduced.shadows, reduced.matches, reduced.previous) == ((), (), None)
