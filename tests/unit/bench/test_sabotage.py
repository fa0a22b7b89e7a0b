"""The table of planted faults follows the code: each line to be changed stands where the table says, once."""

import pytest

from bench.campaign.harness import ROOT
from bench.campaign.sabotage import AT_LEAST, faults


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_a_planted_line_stands_once(fault):
    """Else the fault would not be planted, or in a place that nobody chose."""
    assert (ROOT / fault.file).read_text().count(fault.find) == 1
    assert fault.find != fault.replace


def test_there_are_enough_faults():
    """The bar of the campaign is in reach."""
    assert len(faults()) >= AT_LEAST
