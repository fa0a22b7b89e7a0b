"""The split is fair to its weights, and keeps keys where they are."""

import math
import random
from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.split import Split
from tests.fakes import variants
from turnout.core.bucket import bucket
from turnout.core.snapshot import BUCKETS

CUTS = st.lists(st.integers(0, BUCKETS), min_size=0, max_size=5)
# Six standard deviations, and a few draws more where a share is tiny: no false alarm in a lifetime of runs.
DEVIATIONS = 6
SLACK = 8


def weights(cuts):
    """Return weights that add up to 10,000, zeros among them."""
    edges = [0, *sorted(cuts), BUCKETS]
    return {f"m@{index + 1}": high - low for index, (low, high) in enumerate(pairwise(edges))}


def is_fair(count, share, draws):
    """Tell whether a count is what a share of the draws may give."""
    return abs(count - share * draws) <= DEVIATIONS * math.sqrt(draws * share * (1 - share)) + SLACK * (0 < share < 1)


@settings(deadline=None, max_examples=60)
@given(CUTS, st.integers())
def test_draws_follow_the_weights(cuts, seed):
    """Drawn shares lie where the weights say; zero is never drawn."""
    wanted = weights(cuts)
    split = Split(variants(wanted))
    draw = random.Random(seed).random
    found = Counter(split.owner(int(draw() * BUCKETS)) for _ in range(5_000))
    for index, weight in enumerate(wanted.values()):
        assert is_fair(found[index], weight / BUCKETS, 5_000)
        assert weight or not found[index]


@settings(deadline=None, max_examples=25)
@given(CUTS, st.text(max_size=10), st.text(max_size=10))
def test_keys_follow_the_weights_and_stay(cuts, salt, prefix):
    """Keys spread as the weights say, and a key has the same owner every time."""
    wanted = weights(cuts)
    split = Split(variants(wanted))
    keys = [f"{prefix}{index}" for index in range(3_000)]
    owners = [split.owner(bucket(salt, key)) for key in keys]
    assert owners == [split.owner(bucket(salt, key)) for key in keys]
    found = Counter(owners)
    assert all(is_fair(found[index], weight / BUCKETS, 3_000) for index, weight in enumerate(wanted.values()))


@given(st.lists(st.integers(0, BUCKETS - 1), min_size=1, max_size=50), st.integers(1, BUCKETS), st.integers(0, BUCKETS))
def test_growing_range_loses_no_key(numbers, before, more):
    """A variant whose range grows keeps every bucket that it had."""
    after = min(BUCKETS, before + more)
    small = Split(variants({"m@2": before, "m@1": BUCKETS - before}))
    large = Split(variants({"m@2": after, "m@1": BUCKETS - after}))
    assert all(large.owner(number) == 0 for number in numbers if small.owner(number) == 0)
