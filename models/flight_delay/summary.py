"""The tour's result: what the client saw, what the gateway counted, and whether the two are one."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from models.flight_delay.features import LABEL
from models.flight_delay.lineup import Part
from models.flight_delay.scrape import Seen
from models.flight_delay.tally import PROTOCOLS, Tally, auc, quantile, wilson

DIGITS: Final = 6
_BY: Final = "requests by "


class Check(NamedTuple):
    """One number, as the client counted it and as /metrics says it."""

    name: str
    client: int
    metrics: int

    @property
    def elsewhere(self) -> int:
        """Requests that /metrics counted and the client did not send."""
        return max(0, self.metrics - self.client)


class Same(NamedTuple):
    """Flights that every version was asked, past the split: their truth, and each version's probabilities."""

    truth: "np.typing.NDArray[np.int64]"
    late: Mapping[int, "np.typing.NDArray[np.float64]"]


def agreement(part: Part, tally: Tally, seen: Seen) -> dict[str, Any] | None:
    """Return with how many flights a version agreed with the champion; None for the champion itself."""
    if part.role == "champion":
        return None
    if part.role == "shadow":
        agree, disagree = seen.verdicts[part.version, "agree"], seen.verdicts[part.version, "disagree"]
        return {"flights": agree + disagree, "equal": agree, "source": "verdicts of the shadow in /metrics"}
    return {
        "flights": tally.repeated[part.version],
        "equal": tally.repeated_equal[part.version],
        "source": "the same flights asked of the champion",
    }


def checks(parts: tuple[Part, ...], tally: Tally, seen: Seen) -> list[Check]:
    """Return every count that client and gateway must agree on."""
    found = [
        Check(
            f"requests answered by version {part.version} ({part.role})",
            tally.requests[part.version],
            seen.ok(version=part.version, arm=part.role),
        )
        for part in parts
        if part.role != "shadow"
    ]
    found += [
        Check(
            f"requests pinned to version {part.version}",
            tally.pinned[part.version],
            seen.ok(version=part.version, arm="pinned"),
        )
        for part in parts
    ]
    for protocol in PROTOCOLS:
        split = seen.ok(protocol=protocol) - seen.ok(protocol=protocol, arm="pinned")
        found.append(Check(f"{_BY}{protocol}", len(tally.latencies_ms[protocol]), split))
    failed = sum(count for (_, _, _, outcome), count in seen.requests.items() if outcome != "ok")
    found.append(Check("failed requests", tally.failures.total(), failed))
    return found


def summarise(
    parts: tuple[Part, ...], frame: pd.DataFrame, tally: Tally, seen: Seen, same: Same, seconds: float
) -> dict[str, Any]:
    """Return the whole result as JSON-ready values.

    The tour has `failed` when a request failed or a comparison is missing; `problems` lists lost counts as well.
    """
    versions = [_version(part, frame, tally, seen, same) for part in parts]
    compared = checks(parts, tally, seen)
    faults = _faults(versions, tally)
    months = Counter(frame["month"][tally.version > 0].tolist())
    return {
        "seconds": round(seconds, 1),
        "requests": tally.total_requests,
        "flights": tally.total_rows,
        "flights_per_second": round(tally.total_rows / seconds, 1),
        "flights_by_month": {str(month): months[month] for month in sorted(months)},
        "protocols": {protocol: _protocol(tally, protocol) for protocol in PROTOCOLS},
        "versions": versions,
        "shadow_copies_dropped": seen.dropped_copies,
        "metrics": [{**check._asdict(), "equal": check.client == check.metrics} for check in compared],
        # Each answered request is in a count of a version and in one of a protocol.
        "requests_from_elsewhere": sum(check.elsewhere for check in compared if not check.name.startswith(_BY)),
        "failures": dict(tally.failures.most_common(10)),
        "failed": bool(faults),
        "problems": [*faults, *_lost(compared)],
    }


def _protocol(tally: Tally, protocol: str) -> dict[str, Any]:
    taken = tally.latencies_ms[protocol]
    return {
        "requests": len(taken),
        "share": round(len(taken) / max(1, tally.total_requests), DIGITS),
        "p50_ms": _rounded(quantile(taken, 0.5)),
        "p99_ms": _rounded(quantile(taken, 0.99)),
    }


def _version(part: Part, frame: pd.DataFrame, tally: Tally, seen: Seen, same: Same) -> dict[str, Any]:
    requests = tally.requests[part.version]
    taken = tally.version_latencies_ms[part.version]
    answered = tally.version == part.version
    low, high = wilson(requests, tally.total_requests)
    result: dict[str, Any] = {"version": part.version, "runtime": part.runtime, "role": part.role}
    if part.role != "shadow":
        result |= {
            "requests": requests,
            "flights": tally.rows[part.version],
            "share": round(requests / max(1, tally.total_requests), DIGITS),
            "share_interval_95": [round(low, DIGITS), round(high, DIGITS)],
            "p50_ms": _rounded(quantile(taken, 0.5)),
            "p99_ms": _rounded(quantile(taken, 0.99)),
            "auc_of_its_flights": _rounded(auc(tally.late[answered], frame[LABEL].to_numpy()[answered])),
        }
    result["auc_of_same_flights"] = _rounded(auc(same.late[part.version], same.truth))
    result["same_flights"] = len(same.truth)
    result["agreement_with_champion"] = agreement(part, tally, seen)
    return result


def _lost(compared: list[Check]) -> list[str]:
    """Return the counts of which /metrics misses some; more than the client's are requests from elsewhere."""
    return [
        f"{check.name}: the client counted {check.client:,}, /metrics says {check.metrics:,}"
        for check in compared
        if check.metrics < check.client
    ]


def _faults(versions: list[dict[str, Any]], tally: Tally) -> list[str]:
    problems = [f"{count} x {what}" for what, count in tally.failures.most_common(10)]
    for version in versions:
        name = f"version {version['version']} ({version['runtime']})"
        found = version["agreement_with_champion"]
        if found is not None and not found["flights"]:
            problems.append(f"{name} was never compared with the champion")
        if version["auc_of_same_flights"] is None:
            problems.append(f"{name} has no AUC")
        if version["role"] != "shadow" and not version["requests"]:
            problems.append(f"{name} answered no request")
    return problems


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, DIGITS)


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Print the result."""
    months = ", ".join(f"{month}: {count:,}" for month, count in result["flights_by_month"].items())
    console.print(
        f"\n{result['flights']:,} flights in {result['requests']:,} requests, {result['seconds']} s; by month {months}"
    )
    for protocol, of in result["protocols"].items():
        console.print(
            f"{protocol}: {of['requests']:,} requests ({of['share']:.1%}), p50 {of['p50_ms']:.2f} ms, "
            f"p99 {of['p99_ms']:.2f} ms"
        )
    console.print(_table(result["versions"]))
    for of in result["versions"]:
        if of["role"] == "canary":
            low, high = of["share_interval_95"]
            console.print(f"the canary's share is {of['share']:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    equal = sum(check["equal"] for check in result["metrics"])
    console.print(f"/metrics says the same as the client in {equal} of {len(result['metrics'])} counts")
    strange = result["requests_from_elsewhere"]
    if strange:
        console.print(f"{strange:,} request{'s' if strange != 1 else ''} came from elsewhere; /metrics counts them too")
    if result["shadow_copies_dropped"]:
        console.print(f"copies for the shadow dropped at their bound: {result['shadow_copies_dropped']:,}")
    for problem in result["problems"]:
        console.print(f"PROBLEM: {problem}", style="red", markup=False, soft_wrap=True)


def _table(versions: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("version", "role", "share", "p50 / p99 ms", "AUC", "agrees"):
        table.add_column(name, justify="left" if name in {"version", "role"} else "right")
    for of in versions:
        routed = of["role"] != "shadow" and of["requests"]
        found = of["agreement_with_champion"]
        table.add_row(
            f"{of['version']} {of['runtime']}",
            of["role"],
            f"{of['share']:.2%}" if routed else "",
            f"{of['p50_ms']:.1f} / {of['p99_ms']:.1f}" if routed else "",
            f"{of['auc_of_same_flights']:.4f}" if of["auc_of_same_flights"] is not None else "none",
            f"{found['equal']:,} of {found['flights']:,}" if found else "",
        )
    return table
