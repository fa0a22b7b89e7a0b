"""Who gets which version: sticky keys, matches, buckets."""

import hashlib

import pytest

from gateway.routing.split import Split, is_match, sticky_key
from tests.fakes import variants
from turnout.core.bucket import bucket
from turnout.core.snapshot import Match, Sticky, Variant


def test_bucket_is_the_documented_hash():
    """Anybody can compute a key's bucket: sha256 of salt, NUL and key, its first 8 bytes, modulo 10,000."""
    digest = hashlib.sha256(b"flight-delay\0caf\xc3\xa9").digest()
    assert bucket("flight-delay", "café") == int.from_bytes(digest[:8], "big") % 10_000
    assert bucket("a", "key") != bucket("b", "key")


def test_undecodable_keys_have_a_bucket():
    """A header that is no UTF-8 is a key like any other."""
    assert 0 <= bucket("salt", b"\xff".decode("utf-8", "surrogateescape")) < 10_000


@pytest.mark.parametrize(
    ("sticky", "headers", "parameters", "key"),
    [
        (Sticky("s", header="x-user"), {"x-user": "ann"}, {}, "ann"),
        (Sticky("s", header="x-user"), {"x-user": ""}, {}, None),
        (Sticky("s", header="x-user"), {}, {"x-user": "ann"}, None),
        (Sticky("s", parameter="user"), {}, {"user": "ann"}, "ann"),
        (Sticky("s", parameter="user"), {}, {"user": ""}, None),
        (Sticky("s", parameter="user"), {"user": "ann"}, {}, None),
        (Sticky("s", parameter="user"), {}, {"user": 7}, "7"),
        (Sticky("s", parameter="user"), {}, {"user": 7.5}, "7.5"),
        (Sticky("s", parameter="user"), {}, {"user": 0}, "0"),
        (Sticky("s", parameter="user"), {}, {"user": False}, "false"),
        (Sticky("s", parameter="user"), {}, {"user": True}, "true"),
    ],
)
def test_sticky_key(sticky, headers, parameters, key):
    """The key is the named header or parameter as text; an absent or empty one is none."""
    assert sticky_key(sticky, headers, parameters) == key


def test_match_wants_every_header():
    """A match takes requests that carry all of its headers with these very values."""
    match = Match({"x-cohort": "beta", "x-region": "eu"}, "m@2")
    assert is_match(match, {"x-cohort": "beta", "x-region": "eu", "other": "1"})
    assert not is_match(match, {"x-cohort": "beta"})
    assert not is_match(match, {"x-cohort": "Beta", "x-region": "eu"})


def test_owners_follow_the_ranges():
    """Each bucket belongs to the variant in whose range it lies, wherever the ranges lie; zero weight owns none."""
    split = Split(
        (
            Variant("m@1", 9_999, ((0, 5), (6, 10_000))),
            Variant("m@2", 1, ((5, 6),)),
            Variant("m@3", 0, ()),
        )
    )
    owners = [split.owner(number) for number in range(10_000)]
    assert [index for index, owner in enumerate(owners) if owner == 1] == [5]
    assert 2 not in owners


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (variants({"m@1": 9_000}), "ranges hold 9000 buckets of 10000"),
        ((*variants({"m@1": 10_000}), Variant("m@2", 1, ((7, 8),))), "m@2: range 7 to 8 does not follow bucket 9999"),
        ((Variant("m@1", 9_000, ((0, 10_000),)),), "m@1: ranges hold 10000 buckets, its weight is 9000"),
        ((Variant("m@1", 10_000, ((1, 10_001),)),), "m@1: range 1 to 10001 does not follow bucket -1"),
        ((Variant("m@1", 10_001, ((0, 10_001),)),), "ranges hold 10001 buckets of 10000"),
        ((Variant("m@1", 10_000, ((0, 10_000), (10_000, 10_000))),), "m@1: range 10000 to 10000"),
    ],
)
def test_ranges_that_are_no_split_are_refused(wrong, named):
    """Ranges with holes, overlaps or another size than the weight are a fault, named."""
    with pytest.raises(ValueError, match=named):
        Split(wrong)
