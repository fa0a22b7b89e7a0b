"""Tells from a request's heading alone that it would be shed, so that its body need not be read.

Asked only while something is pressed, then often: it must be cheap. Says nothing of a request that a fallback may
answer, or for which one of several versions still has room: those go the long way.
"""

import random
from collections.abc import Sequence

from gateway.doors.interface import Shed
from gateway.pressure import Pressure
from gateway.routing.router import Router
from gateway.routing.table import Choice, CompiledRoute, Table
from turnout.core.errors import NotFound, NotReady, Overloaded
from turnout.core.request import CallerHeaders
from turnout.core.snapshot import DEFAULT_DEADLINE_MS


class Shedding:
    """Looks at the version that a request would get, and records what it sheds as the router would."""

    def __init__(self, router: Router, pressure: Pressure) -> None:
        self._router = router
        self._pressure = pressure

    def shed(
        self,
        name: str,
        number: int | None,
        headers: CallerHeaders,
        protocol: str,
        request_id: str,
        received_s: float,
        left_s: float | None,
    ) -> Shed | None:
        """Return why a request is not taken, and by which version; None if it may be. What is returned is recorded."""
        table = self._router.table
        if table is None:
            return None
        if self._pressure.is_full:
            return self._full(name, protocol, request_id, received_s)
        route = table.routes.get(name)
        longest_s = route.deadline_s if route is not None else DEFAULT_DEADLINE_MS / 1000
        left_s = longest_s if left_s is None else min(left_s, longest_s)
        choices = _possible(table, route, name, number, headers)
        retry_s = 0
        for choice in reversed(choices):  # the first is the one to name
            served = choice.target.served
            retry_s = served.sheds(left_s) if served is not None else 0
            if not retry_s:
                return None
        if not choices:
            return None
        self._pressure.note_shed()
        choice = choices[0]
        shed = choice.shed(retry_s)
        self._router.shed(name, choice, protocol, shed.error, request_id, received_s)
        return shed

    def _full(self, name: str, protocol: str, request_id: str, received_s: float) -> Shed | None:
        try:
            self._pressure.check()
        except Overloaded as error:
            self._router.refused(name, protocol, error, request_id, received_s)
            return Shed(error, None)
        return None


def _possible(
    table: Table, route: CompiledRoute | None, name: str, number: int | None, headers: CallerHeaders
) -> Sequence[Choice]:
    """Return the versions of which one alone would answer the request; none where that cannot be told, or another may.

    First the one that would be picked.
    """
    if number is None:
        return route.possible(headers, random.random()) if route is not None and not route.rescues else ()  # noqa: S311
    try:
        return (table.pinned(name, number),)
    except (NotFound, NotReady):
        return ()
