"""Tells from a request's heading alone that it would be shed, so that its body need not be read.

Asked only while something is pressed, then often: it must be cheap. Says nothing of a request that a fallback may
answer, or whose version is yet to be drawn: those go the long way.
"""

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
        choice = _certain(table, route, name, number, headers)
        if choice is None or choice.target.served is None:
            return None
        longest_s = route.deadline_s if route is not None else DEFAULT_DEADLINE_MS / 1000
        retry_s = choice.target.served.sheds(longest_s if left_s is None else min(left_s, longest_s))
        if not retry_s:
            return None
        self._pressure.note_shed()
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


def _certain(
    table: Table, route: CompiledRoute | None, name: str, number: int | None, headers: CallerHeaders
) -> Choice | None:
    """Return the version that the request gets for sure and that alone can answer it, else None."""
    if number is None:
        return route.certain(headers) if route is not None and not route.rescues else None
    try:
        return table.pinned(name, number)
    except (NotFound, NotReady):
        return None
