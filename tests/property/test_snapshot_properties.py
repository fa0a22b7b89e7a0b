"""Snapshots survive their encoding whole, and their bytes are canonical."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.snapshot import Route, Snapshot, VersionEntry, blob_path, decode, digest, encode
from turnout.core.tensor import Datatype

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
refs = st.builds("{}@{}".format, names, st.integers(1, 99))
texts = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
specs = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z]{1,6}", fullmatch=True),
        "datatype": st.sampled_from(sorted(Datatype)),
        "shape": st.lists(st.integers(-1, 5), max_size=3),
        "nullable": st.booleans(),
    }
)
halves = st.none() | st.lists(specs, max_size=3, unique_by=lambda spec: spec["name"])
versions = st.fixed_dictionaries(
    {
        "model": names,
        "number": st.integers(1, 99),
        "digest": texts,
        "runtime": st.sampled_from(["onnx", "sklearn", "jvm", "python"]),
        "artifact": texts,
        "files": st.lists(st.fixed_dictionaries({"path": texts, "sha256": texts, "size": st.integers(0)}), max_size=2),
        "signature": st.fixed_dictionaries({"inputs": halves, "outputs": halves}),
        "batching": st.just(False) | st.fixed_dictionaries({"max_rows": st.integers(1, 9)}),
        "golden": st.none() | texts,
        "options": st.dictionaries(texts, plain, max_size=3),
        "trusted": st.booleans(),
    }
)
routes = st.fixed_dictionaries(
    {
        "name": names,
        "champion": refs,
        "variants": st.lists(
            st.fixed_dictionaries(
                {
                    "version": refs,
                    "weight": st.integers(0, 10_000),
                    "ranges": st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
                }
            ),
            max_size=3,
        ),
        "explicit": st.booleans(),
        "previous": st.none() | refs,
        "sticky": st.none() | st.fixed_dictionaries({"salt": texts, "header": st.none() | texts}),
        "matches": st.lists(
            st.fixed_dictionaries({"headers": st.dictionaries(texts, texts, max_size=2), "version": refs}), max_size=2
        ),
        "fallback": st.lists(
            st.fixed_dictionaries({"kind": st.just("value"), "value": st.dictionaries(texts, plain, max_size=2)}),
            max_size=2,
        ),
    }
)
snapshots = st.fixed_dictionaries(
    {
        "registry_id": texts,
        "generation": st.integers(1),
        "routes_generation": st.integers(0),
        "versions": st.lists(versions, max_size=3),
        "routes": st.lists(routes, max_size=3),
        "catalogue": st.lists(refs, max_size=3),
        "problems": st.dictionaries(texts, texts, max_size=3),
    }
).map(lambda plain: msgspec.convert(plain, Snapshot))


@given(snapshots)
def test_decode_undoes_encode(snapshot):
    """What a gateway reads is what control wrote."""
    assert decode(encode(snapshot)) == snapshot


@given(snapshots)
def test_encoding_is_canonical(snapshot):
    """Reading and writing again gives the same bytes, hence the same digest."""
    data = encode(snapshot)
    assert digest(encode(decode(data))) == digest(data)


@given(st.dictionaries(texts, texts, min_size=2))
def test_the_order_of_a_mapping_does_not_change_the_bytes(problems):
    """Two mappings with equal content have one encoding."""
    reordered = dict(reversed(problems.items()))
    assert encode(Snapshot("r", 1, 0, problems=problems)) == encode(Snapshot("r", 1, 0, problems=reordered))


@given(snapshots)
def test_required_versions_are_among_the_named_ones(snapshot):
    """A route never requires a version that it does not name."""
    assert all(route.required() <= route.versions() for route in snapshot.routes)


def test_blobs_lie_in_folders_of_their_first_two_digits():
    """The path below a blob folder is fixed, since gateways link from there."""
    assert blob_path("ab12") == "ab/ab12"


def test_structs_of_a_snapshot_are_frozen():
    """A published picture cannot be changed by whoever holds it."""
    assert Snapshot.__struct_config__.frozen
    assert Route.__struct_config__.frozen
    assert VersionEntry.__struct_config__.frozen
