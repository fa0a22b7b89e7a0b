"""Bucket ranges over any history of weights and champions."""

from hypothesis import given
from hypothesis import strategies as st

from turnout.control.publish.ranges import size, spread
from turnout.core.snapshot import BUCKETS, Variant

VERSIONS = [f"m@{number}" for number in range(1, 7)]


@st.composite
def plans(draw) -> tuple[str, dict[str, int]]:
    """Draw a champion and weights that sum to 10,000, zeros among them."""
    named = draw(st.lists(st.sampled_from(VERSIONS), min_size=1, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=len(named) - 1, max_size=len(named) - 1)))
    edges = [0, *cuts, BUCKETS]
    weights = {version: edges[i + 1] - edges[i] for i, version in enumerate(named)}
    return draw(st.sampled_from(named)), weights


def buckets(variants: tuple[Variant, ...]) -> dict[str, set[int]]:
    """Return each version's buckets."""
    return {
        variant.version: {bucket for start, end in variant.ranges for bucket in range(start, end)}
        for variant in variants
    }


@given(st.lists(plans(), min_size=1, max_size=6))
def test_every_bucket_has_one_owner_and_every_version_its_weight(history):
    """After any history the ranges are a partition of 10,000 in the proportions asked for; zero is zero."""
    variants: tuple[Variant, ...] = ()
    for champion, weights in history:
        variants = spread(weights, champion, variants)
        owned = buckets(variants)
        assert variants[0].version == champion
        assert {version: len(mine) for version, mine in owned.items()} == weights
        assert sum(size(variant.ranges) for variant in variants) == BUCKETS
        assert set().union(*owned.values()) == set(range(BUCKETS))


@given(st.lists(plans(), min_size=2, max_size=6))
def test_no_key_leaves_a_growing_version_and_none_joins_a_shrinking_one(history):
    """Whatever else changes, the champion too, versions that grow keep theirs and versions that shrink gain none."""
    champion, weights = history[0]
    variants = spread(weights, champion)
    for champion, weights in history[1:]:
        before = buckets(variants)
        variants = spread(weights, champion, variants)
        after = buckets(variants)
        for version in before.keys() | after.keys():
            old, new = before.get(version, set()), after.get(version, set())
            assert old <= new if len(new) >= len(old) else new < old


@given(plans(), st.data())
def test_shrinking_gives_back_what_was_taken_last(plan, data):
    """A version that grows and shrinks again has the buckets it had before, and in the order it had them."""
    champion, weights = plan
    weights = {champion: 0} | weights
    others = sorted(weights.keys() - {champion}) or ["m@9"]
    version = data.draw(st.sampled_from(others))
    more = data.draw(st.integers(0, weights[champion]))
    start = spread(weights, champion)
    grown = weights | {version: weights.get(version, 0) + more, champion: weights[champion] - more}
    back = spread(weights, champion, spread(grown, champion, start))
    assert buckets(back) == buckets(start)


@given(plans())
def test_asking_again_changes_nothing(plan):
    """The same weights give the same ranges, so a file that says the same is no change."""
    champion, weights = plan
    variants = spread(weights, champion)
    assert spread(weights, champion, variants) == variants
    assert spread(dict(reversed(weights.items())), champion) == variants
