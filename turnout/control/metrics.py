"""Every metric of the control process, in a registry of its own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class ControlMetrics:
    """What control counts and shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.generation = Gauge(
            "turnout_control_generation", "Generation that was last published.", registry=self.registry
        )
        self.routes_generation = Gauge(
            "turnout_control_routes_generation", "Generation that last changed routes.", registry=self.registry
        )
        self.refused = Counter(
            "turnout_control_refused_changes_total",
            "Changes that were not taken: of a routes file, of a model by repository load or unload.",
            ["what"],
            registry=self.registry,
        )
        self.taken_out = Counter(
            "turnout_control_taken_out_total",
            "Versions taken out of a route because they turned out not to fit it.",
            registry=self.registry,
        )
        self.import_problems = Gauge(
            "turnout_control_import_problems",
            "Folders and versions in FOLDER that cannot be served.",
            registry=self.registry,
        )
        self.pending = Gauge(
            "turnout_control_pending_changes", "Route changes that wait for versions.", registry=self.registry
        )
        self.gateways = Gauge("turnout_control_live_gateways", "Gateways that reported lately.", registry=self.registry)
        for what in ("routes_file", "load", "unload"):
            self.refused.labels(what)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self.registry)
