"""Reads the gateway's own metrics, for the live table and for the comparison at the end."""

from collections import Counter
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from bench.client import HttpClient
from models.flight_delay.features import MODEL


class Seen(NamedTuple):
    """What the gateway counted on the route.

    Requests by (version, arm, protocol, outcome); verdicts of shadows by (version, verdict), in rows.
    """

    requests: Counter[tuple[int, str, str, str]]
    verdicts: Counter[tuple[int, str]]
    dropped_copies: int

    def ok(self, **wanted: str | int) -> int:
        """Return the answered requests with these labels (`version`, `arm`, `protocol`)."""
        total = 0
        for (version, arm, protocol, outcome), count in self.requests.items():
            labels = {"version": version, "arm": arm, "protocol": protocol}
            if outcome == "ok" and all(labels[name] == value for name, value in wanted.items()):
                total += count
        return total


async def scrape(address: str) -> Seen:
    """Ask the metrics port. Raises OSError or TimeoutError."""
    async with HttpClient(address, 1) as client:
        answer = await client.call("GET", "/metrics", within_s=10)
    seen = Seen(Counter(), Counter(), 0)
    dropped = 0
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "turnout_requests_total" and labels["route"] == MODEL and labels["version"]:
                key = (int(labels["version"]), labels["arm"], labels["protocol"], labels["outcome"])
                seen.requests[key] += int(sample.value)
            elif sample.name == "turnout_shadow_comparisons_total" and labels["route"] == MODEL:
                version = int(labels["version"].rpartition("@")[2])
                seen.verdicts[version, labels["verdict"]] += int(sample.value)
            elif sample.name == "turnout_dropped_total" and labels["what"] == "shadow":
                dropped += int(sample.value)
    return seen._replace(dropped_copies=dropped)
