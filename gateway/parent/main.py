"""The parent of a gateway machine: puts its parts together.

It loads no engine and answers no prediction: `gateway/main.py` does, in processes of its own.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from adapters.marks import ran
from gateway.config import GatewayConfig, ProcessConfig
from gateway.http_server import HttpServer
from gateway.observe.log_handler import BoundedLogHandler
from gateway.observe.metrics import Metrics
from gateway.parent import sockets
from gateway.parent.admin import AdminApp
from gateway.parent.control_client import ControlClient
from gateway.parent.control_process import ControlProcess
from gateway.parent.decision import Readiness
from gateway.parent.fetch import VersionFiles
from gateway.parent.fleet import Fleet, Heard
from gateway.parent.follow import Follow
from gateway.parent.guard import Guard
from gateway.parent.identity import gateway_name
from gateway.parent.machine import Machine
from gateway.parent.ports import Ports
from gateway.parent.process import GatewayProcess
from gateway.parent.reports import Reports
from gateway.parent.repository import RepositoryCalls
from gateway.parent.running import Parts, Signals, first_of, serve
from gateway.parent.slots import Slots
from gateway.parent.state_folder import StateFolder
from gateway.parent.table import print_table
from gateway.parent.workers import Workers

_SLOT: Final = "parent"


class Ready(msgspec.Struct, frozen=True):
    """What the ready line says: addresses as `HOST:PORT`, and how many models and routes are ready."""

    http: str
    grpc: str
    metrics: str
    control: str
    models: int
    routes: int


class Embedded(msgspec.Struct, frozen=True):
    """A control plane to run beside the gateway: `settings` makes its configuration for a port."""

    settings: Callable[[int], bytes]
    host: str
    port: int


def run(config: GatewayConfig, state: Path, control: Embedded | str, on_ready: Callable[[Ready], None]) -> int:
    """Run a gateway machine until a signal, with a control plane of its own or the one at a URL.

    Returns the exit status: 0 after a drain, 1 when a second signal forced it to end. Raises CannotStart.
    """
    return asyncio.run(_run(config, state, control, on_ready))


async def _run(config: GatewayConfig, folder: Path, control: Embedded | str, on_ready: Callable[[Ready], None]) -> int:
    signals = Signals()
    async with contextlib.AsyncExitStack() as stack:
        opening = asyncio.create_task(StateFolder.open(folder))
        if not await first_of(signals.stop, opening):
            opening.cancel()
            return 0
        state = await opening
        stack.callback(state.close)
        guard = await Guard.start(state.lock_fd)
        stack.push_async_callback(guard.close)
        ports = Ports(config)
        stack.callback(ports.close)
        control_process = None
        if isinstance(control, Embedded):
            control_process = ControlProcess(control.settings, control.host, control.port, state.lock_fd)
            stack.callback(control_process.kill)
            starting = asyncio.create_task(control_process.start())
            if not await first_of(signals.stop, starting):
                starting.cancel()
                return 0
            await starting
            control = f"http://{sockets.written(control_process.host, control_process.port)}"
        client = ControlClient(control)
        stack.push_async_callback(client.close)
        parts = _compose(stack, config, state, ports, client, control_process, guard, on_ready)
        await parts.admin.open(ports.metrics)
        return await serve(parts, signals)


def _compose(
    stack: contextlib.AsyncExitStack,
    config: GatewayConfig,
    state: StateFolder,
    ports: Ports,
    client: ControlClient,
    control_process: ControlProcess | None,
    guard: Guard,
    on_ready: Callable[[Ready], None],
) -> Parts:
    changed = asyncio.Event()
    metrics = Metrics(state.metrics, _SLOT)
    stack.callback(metrics.close)
    log = BoundedLogHandler.install(sys.stderr.fileno(), metrics, _SLOT)
    stack.callback(log.close)
    # What workers print belongs in the log (docs/worker-protocol.md).
    logging.getLogger("adapters.worker").setLevel(logging.INFO)
    files = VersionFiles(state.versions, client)
    fleet = Fleet(
        config.processes,
        Slots(state.metrics),
        lambda slot, replaces, heard: _start_process(config, state, ports, slot, heard, replaces=replaces),
        changed.set,
        RepositoryCalls(client, lambda process, model: _retry(machine, reports, process, model)).forward,
        config.drain_seconds,
        lambda pid: ran(state.scratch, pid),
    )
    stack.callback(fleet.kill, "the parent ends")
    workers = Workers(files, state.sockets, state.scratch, metrics, fleet.tell_gone, fleet.forget_gone)
    machine = Machine(
        gateway_name(state.root / "gateway"),
        state,
        files,
        workers,
        fleet,
        allow_empty=config.allow_empty,
        on_start=lambda now: _announce(now, machine, ports, client, on_ready),
    )
    reports = Reports(client, machine.report)
    follow = Follow(client, state.adopt, machine.take, machine.refuse)
    return Parts(
        config=config,
        state=state,
        ports=ports,
        control_process=control_process,
        client=client,
        workers=workers,
        fleet=fleet,
        machine=machine,
        reports=reports,
        follow=follow,
        admin=HttpServer(AdminApp(machine)),
        guard=guard,
        changed=changed,
        say=log.say,
    )


async def _start_process(
    config: GatewayConfig, state: StateFolder, ports: Ports, slot: int, heard: Heard, *, replaces: bool
) -> GatewayProcess:
    host, port = ports.grpc.getsockname()[:2]

    def settings(control_fd: int) -> bytes:
        return msgspec.json.encode(
            ProcessConfig(
                gateway=config,
                slot=slot,
                http_fd=ports.http.fileno(),
                control_fd=control_fd,
                grpc_host=host,
                grpc_port=port,
                metrics=str(state.metrics),
                scratch=str(state.scratch),
                replaces=replaces,
            )
        )

    return await GatewayProcess.start(slot, settings, (ports.http.fileno(), state.lock_fd), heard)


async def _retry(machine: Machine, reports: Reports, asked_by: GatewayProcess, model: str) -> str:
    """Have what is quarantined of a model loaded once more; tell control how it went before it is asked about it."""
    failure = await machine.retry(model, asked_by)
    await reports.send()
    return failure


def _announce(
    now: Readiness, machine: Machine, ports: Ports, client: ControlClient, on_ready: Callable[[Ready], None]
) -> None:
    """Say how the start went: the table, then that it is ready or why it is not."""
    if machine.serving is not None:
        print_table(machine.serving, machine.versions())
    if now.reason:
        sys.stderr.write(f"turnout is up, not ready: {now.reason}\n")
        return
    http, grpc, metrics = map(sockets.address, (ports.http, ports.grpc, ports.metrics))
    on_ready(Ready(http, grpc, metrics, client.address, now.models, now.routes))
