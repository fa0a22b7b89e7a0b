"""No property is timed: how long an example takes says more about the machine than about the code."""

from hypothesis import settings

settings.register_profile("turnout", deadline=None)
settings.load_profile("turnout")
