"""A wish in STATE: it stands until it is settled, and a refusal is told once."""

from gateway.parent.wish import Wish


def test_a_wish_stands_until_it_is_settled(tmp_path):
    """Nothing is wanted before, and nothing after."""
    wish = Wish(tmp_path / "restart")
    assert not wish.is_wanted()
    wish.make()
    assert wish.is_wanted()
    assert wish.outcome() is None
    wish.settle("")
    assert not wish.is_wanted()
    assert wish.outcome() == ""


def test_a_refusal_is_told_to_who_wished(tmp_path):
    """It is no wish any more, and it is told once."""
    wish = Wish(tmp_path / "restart")
    wish.settle("nobody asked")
    assert wish.outcome() == ""
    wish.make()
    wish.settle("no memory")
    assert not wish.is_wanted()
    assert wish.outcome() == "no memory"
    assert wish.outcome() == ""


def test_a_folder_that_is_gone_holds_no_wish(tmp_path):
    """Neither side fails for it."""
    wish = Wish(tmp_path / "gone" / "restart")
    wish.settle("no memory")
    assert not wish.is_wanted()
    assert wish.outcome() == ""
