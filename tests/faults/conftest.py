"""The real thing for the fault tests too: `turnout serve` on free ports, and nothing of it stays."""

from tests.integration.conftest import folder, serve, turnout

__all__ = ["folder", "serve", "turnout"]
