"""`turnout route`: shows what control has published, over its API."""

from typing import Annotated, Final

import httpx
import msgspec
import typer

from turnout.cli.output import (
    CONTROL_URL,
    HEADER_REQUEST_ID,
    CommandFailed,
    ControlUrlOption,
    ExitCode,
    Output,
    OutputOption,
    print_json,
    print_rows,
)
from turnout.control.api.answers import ErrorAnswer, RouteAnswer, RoutesAnswer
from turnout.core.snapshot import BUCKETS

_TIMEOUT_S: Final = 30.0


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    group = typer.Typer(no_args_is_help=True, help="Show routes.")
    group.command("list")(list_routes)
    group.command("show")(show)
    app.add_typer(group, name="route")


def list_routes(url: ControlUrlOption = CONTROL_URL, output: OutputOption = Output.TEXT) -> None:
    """List all routes, with what waits and what was refused."""
    data = _ask(url, "/v1/routes")
    if output is Output.JSON:
        print_json(msgspec.json.decode(data))
        return
    answer = msgspec.json.decode(data, type=RoutesAnswer)
    rows = [[route.name, route.champion, _shares(route), _shadows(route), _origin(route)] for route in answer.routes]
    print_rows(["route", "champion", "weights", "shadows", "from"], rows)
    typer.echo(f"generation {answer.generation}, routes of generation {answer.routes_generation}")
    if answer.pending is not None:
        waits_for = ", ".join(answer.pending.waiting_for) or "nothing"
        typer.echo(f"{answer.pending.source} waits for {waits_for} since {answer.pending.waiting_s:.0f} s")
    if answer.refused:
        typer.echo(f"refused: {answer.refused}")
    for name, reason in sorted(answer.problems.items()):
        typer.echo(f"cannot be served: {name}: {reason}")


def show(
    route: Annotated[str, typer.Argument(help="Name of the route.")],
    url: ControlUrlOption = CONTROL_URL,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show one route: weights, bucket ranges, states, shadows and matches."""
    data = _ask(url, f"/v1/routes/{route}")
    if output is Output.JSON:
        print_json(msgspec.json.decode(data))
        return
    answer = msgspec.json.decode(data, type=RouteAnswer)
    rows = [
        [variant.version, _share(variant.weight), _ranges(variant.ranges), answer.states[variant.version]]
        for variant in answer.variants
    ]
    typer.echo(f"route {answer.name}, champion {answer.champion}, {_origin(answer)}")
    print_rows(["version", "weight", f"buckets of {BUCKETS:,}", "state"], rows)
    for line in _details(answer):
        typer.echo(line)


def _details(route: RouteAnswer) -> list[str]:
    lines = [f"previous champion {route.previous}, {route.states[route.previous]}"] if route.previous else []
    lines += [
        f"shadow {shadow.version} of {_share(shadow.sample)}, {route.states[shadow.version]}"
        for shadow in route.shadows
    ]
    for match in route.matches:
        headers = ", ".join(f"{name}: {value}" for name, value in match.headers.items())
        lines.append(f"match {headers} to {match.version}, {route.states[match.version]}")
    if route.sticky is not None:
        source = f"header {route.sticky.header}" if route.sticky.header else f"parameter {route.sticky.parameter}"
        lines.append(f"sticky by {source}, salt {route.sticky.salt!r}")
    if route.fallback:
        lines.append(f"fallback {', then '.join(fallback.kind for fallback in route.fallback)}")
    lines.append(f"deadline {route.deadline_ms:,} ms, {'' if route.retry_safe else 'not '}retry safe")
    return lines


def _ask(url: str, path: str) -> bytes:
    try:
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as http:
            answer = http.get(path)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandFailed(f"control at {url} is out of reach: {error}", ExitCode.UNREACHABLE) from error
    if answer.is_success:
        return answer.content
    if HEADER_REQUEST_ID in answer.headers:  # the door's mark: control's answers have none
        raise CommandFailed(f"{url} is the HTTP door; route commands ask control's port, 8090 unless it was changed")
    try:
        raise CommandFailed(msgspec.json.decode(answer.content, type=ErrorAnswer).error)
    except msgspec.MsgspecError as error:
        raise CommandFailed(f"control at {url} answered {answer.status_code}") from error


def _shares(route: RouteAnswer) -> str:
    return ", ".join(f"{variant.version} {_share(variant.weight)}" for variant in route.variants)


def _shadows(route: RouteAnswer) -> str:
    return ", ".join(shadow.version for shadow in route.shadows)


def _share(parts: int) -> str:
    return f"{parts / 100:g} %"


def _ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{start}-{end - 1}" for start, end in sorted(ranges)) or "none"


def _origin(route: RouteAnswer) -> str:
    return "routes.yaml" if route.explicit else "its model"
