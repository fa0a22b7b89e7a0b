"""Speed on one core against other model servers: MLServer, KServe, BentoML and LitServe, one row, HTTP and gRPC.

Each peer runs in an environment of its own (build/peers, made on first use) with the settings in bench/peers. One that
does not start or answers wrongly fails the run. The gateway stands in the same rounds with all features on, and off.
`--quick` is one short round; it writes to build/bench.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

from bench import workload
from bench.campaign.harness import ROOT, Campaign, run
from bench.speed import page, workloads
from bench.speed.bars import hold_peers, hold_trust, tell_programs
from bench.speed.configs import OFF, ON
from bench.speed.cores import stay_beside
from bench.speed.peers import PEERS, native_rows, running, version
from bench.speed.requests import SET, Requests, grpc_rows, json_rows, of_onnx
from bench.speed.servers import Server, bare_grpc, bare_http, gateway
from bench.speed.table import GRPC, HTTP, Cell, Entry, measure


def check(campaign: Campaign, arguments: argparse.Namespace) -> None:
    """Measure every server with the same rows and hold the ratios against their bars."""
    stay_beside()
    tell_programs(campaign)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as started:
        folder = Path(temporary)
        model = workload.write_model(folder / "models")
        single = [row[None] for row in workload.rows()[:SET]]
        expected = of_onnx(model, single)
        one, raw, native = json_rows(single, expected), grpc_rows(single, expected), native_rows(single, expected)
        http: dict[str, Entry] = {}
        grpc: dict[str, Entry] = {}
        for peer in PEERS:
            asked = native if peer.native else one
            server = started.enter_context(running(peer, model, folder, asked))
            http[peer.name] = Entry(server, HTTP, asked, path=peer.path)
            if peer.grpc:
                grpc[peer.name] = Entry(server, GRPC, raw)
        campaign.note("versions of peers", {peer.name: version(peer) for peer in PEERS})
        ours, its = _ours(started, folder, model, one, raw)
        cells = [
            *_measure(workloads.HTTP_ROW, {**ours, **http}, arguments),
            *_measure(workloads.GRPC_ROW, {**its, **grpc}, arguments),
        ]
    campaign.note("table", cells)
    hold_trust(campaign, cells)
    hold_peers(campaign, cells)


def _ours(
    started: contextlib.ExitStack, folder: Path, model: Path, one: Requests, raw: Requests
) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Start the gateway, on and off, and the bare handlers; return their entries over HTTP and over gRPC."""
    gateways = [started.enter_context(gateway(name, folder / "models", folder / name)) for name in (ON, OFF)]
    settings = {"BARE_MODEL": str(model)}
    asgi = started.enter_context(bare_http(workloads.BARE_JSON, "bench.bare.asgi", settings, folder / "bare-http.log"))
    aio = started.enter_context(bare_grpc(workloads.BARE_GRPC, settings, folder / "bare-grpc.log"))
    http = {server.name: _entry(server, HTTP, one) for server in gateways} | {asgi.name: Entry(asgi, HTTP, one)}
    grpc = {server.name: _entry(server, GRPC, raw) for server in gateways} | {aio.name: Entry(aio, GRPC, raw)}
    return http, grpc


def _entry(server: Server, door: str, requests: Requests) -> Entry:
    path = f"/v2/models/{workloads.CANCER}/infer"
    return Entry(server, door, requests, path=path, route=workloads.CANCER)


def _measure(name: str, entries: dict[str, Entry], arguments: argparse.Namespace) -> list[Cell]:
    rounds = dict.fromkeys((32,) if arguments.quick else (1, 32), arguments.rounds)
    return measure(name, entries, rounds, seconds=arguments.seconds)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round with 32 clients")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of each run")
    quick = parser.parse_known_args()[0].quick
    if quick:
        parser.set_defaults(rounds=1, seconds=1)
        run("peers", check, parser, results=ROOT / "build" / "bench")
    else:
        run("peers", check, parser, after=page.write)


if __name__ == "__main__":
    main()
