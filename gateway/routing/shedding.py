"""Tells from a request's heading alone that it would be shed, so that its body need not be read.

Asked only while something is pressed. Says nothing of a request that a fallback may answer, or whose version is yet
to be drawn among some that have room: those go the long way.
"""

from gateway.doors.interface import Shed
from gateway.pressure import Pressure
from gateway.routing.router import Router
from gateway.routing.table import Choice, CompiledRoute, Table
from turnout.core.clock import Deadline
from turnout.core.errors import NotFound, NotReady, Overloaded
from turnout.core.request import CallerHeaders
from turnout.core.snapshot import DEFAULT_DEADLINE_MS


class Shedding:
    """Looks at the versions that a request may get, and records what it sheds as the router would."""

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
        deadline: Deadline | None,
    ) -> Shed | None:
        """Return why a request is not taken, and by which version; None if it may be. What is returned is recorded."""
        table = self._router.table
        if table is None:
            return None
        try:
            self._pressure.check()
        except Overloaded as error:
            self._router.refused(name, protocol, error, request_id, received_s)
            return Shed(error, None)
        route = table.routes.get(name)
        try:
            choice = self._choice(table, route, name, number, headers)
        except (NotFound, NotReady):
            return None
        if choice is None or choice.target.served is None or (number is None and route is not None and route.rescues):
            return None
        longest_s = route.deadline_s if route is not None else DEFAULT_DEADLINE_MS / 1000
        try:
            choice.target.served.check(Deadline(received_s + longest_s).earlier(deadline))
        except Overloaded as error:
            self._router.shed(name, choice, protocol, error, request_id, received_s)
            return Shed(error, choice.target.ref)
        return None

    @staticmethod
    def _choice(
        table: Table, route: CompiledRoute | None, name: str, number: int | None, headers: CallerHeaders
    ) -> Choice | None:
        """Return the version that the request gets for sure, None where that is open."""
        if number is not None:
            return table.pinned(name, number)
        return route.certain(headers) if route is not None else None
