"""Bucket ranges, by example."""

from turnout.control.publish.ranges import spread


def ranges(variants) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the ranges by version."""
    return {variant.version: variant.ranges for variant in variants}


def test_a_new_route_gives_its_variants_the_lowest_buckets():
    """The champion, first in the list, keeps the rest."""
    variants = spread({"m@1": 9_000, "m@2": 500, "m@10": 500}, "m@1")
    assert [variant.version for variant in variants] == ["m@1", "m@2", "m@10"]
    assert ranges(variants) == {"m@2": ((0, 500),), "m@10": ((500, 1_000),), "m@1": ((1_000, 10_000),)}


def test_a_ramp_stays_in_few_ranges():
    """Growing in steps extends the last range; going down cuts it from its end."""
    variants = spread({"m@1": 10_000}, "m@1")
    for weight in (*range(100, 5_001, 100), *range(5_000, 99, -100)):
        variants = spread({"m@1": 10_000 - weight, "m@2": weight}, "m@1", variants)
        assert ranges(variants)["m@2"] == ((0, weight),)


def test_promotion_keeps_the_challengers_keys():
    """When the champion changes, the new one keeps what it had and takes over what the old one gives up."""
    before = spread({"m@1": 9_500, "m@2": 500}, "m@1")
    after = spread({"m@2": 9_000, "m@1": 1_000}, "m@2", before)
    assert ranges(after) == {"m@2": ((0, 500), (1_500, 10_000)), "m@1": ((500, 1_500),)}


def test_a_swap_between_two_variants_leaves_the_champion_alone():
    """What one gives back in the same change, the other takes."""
    before = spread({"m@1": 9_000, "m@2": 1_000}, "m@1")
    after = spread({"m@1": 9_000, "m@2": 0, "m@3": 1_000}, "m@1", before)
    assert ranges(after) == {"m@1": ((1_000, 10_000),), "m@2": (), "m@3": ((0, 1_000),)}
