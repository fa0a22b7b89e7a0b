"""What the flight-delay model takes and answers, by name. Both training programs and the tour's client read it."""

from typing import Final

MODEL: Final = "flight-delay"
LABEL: Final = "label"
PROBABILITIES: Final = "probabilities"

# A flight is late when it arrives more than this many minutes after its schedule.
LATE_MINUTES: Final = 15

TEXTS: Final = ("carrier", "origin", "dest")
# Some planes are in no register and some hours have no weather report: these numbers may be missing.
NUMBERS: Final = (
    "dep_delay",
    "distance",
    "hour",
    "plane_year",
    "plane_seats",
    "temp",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
)
COLUMNS: Final = (*TEXTS, *NUMBERS)

# Months are 1 to 12 of 2013: earlier flights train, later ones are driven through the gateway.
TRAINING_MONTHS: Final = range(1, 7)
LATER_MONTHS: Final = range(7, 13)
