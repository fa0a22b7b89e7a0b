"""Prometheus' own checker reads the exposition."""

import subprocess

from gateway.observe.exposition import render
from gateway.observe.metrics import DROPPED_SHADOW, Metrics
from turnout.core.ids import VersionRef
from turnout.core.signature import TensorSpec
from turnout.core.status import Outcome
from turnout.core.tensor import Datatype, Tensor

REF = VersionRef("m", 1)


def everything(directory):
    """Write each of the gateway's metrics once."""
    metrics = Metrics(directory, 0)
    arm = metrics.arm("m", REF, "champion")
    arm.requests("http", Outcome.OK).add()
    arm.duration.observe(0.1)
    metrics.route("m").overhead.observe(0.001)
    metrics.version(REF).predict.observe(0.1)
    metrics.snapshot_generation().set(3)
    metrics.worker_restarts(REF).add()
    metrics.dropped(DROPPED_SHADOW).add()
    metrics.fallbacks("m", REF, "value", Outcome.FAULT, Outcome.OK).add()
    metrics.shadow_requests("m", REF, Outcome.OK).add()
    metrics.shadow_rows("m", REF, "agree").add()
    outputs = (TensorSpec("label", Datatype.BYTES, (-1,)), TensorSpec("score", Datatype.FP64, (-1,)))
    ugly = b'a "quoted"\\ \n class'
    metrics.predicted(REF, outputs, (0.5,)).count(
        {
            "label": Tensor.from_raw("label", Datatype.BYTES, (1,), len(ugly).to_bytes(4, "little") + ugly),
            "score": Tensor.from_raw("score", Datatype.FP64, (1,), bytes(8)),
        }
    )


def test_promtool_finds_nothing_to_say(tmp_path):
    """`promtool check metrics` is silent about every metric of the gateway, and each of DESIGN 7 is there."""
    everything(tmp_path)
    text = render(tmp_path, frozenset({"m@1"}), frozenset({"m"}))
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    names = {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")}
    assert names == {
        "turnout_requests_total",
        "turnout_fallbacks_total",
        "turnout_request_duration_seconds",
        "turnout_predict_duration_seconds",
        "turnout_overhead_seconds",
        "turnout_batch_rows",
        "turnout_queue_rows",
        "turnout_in_flight",
        "turnout_predicted_class_total",
        "turnout_predicted_value",
        "turnout_shadow_requests_total",
        "turnout_shadow_comparisons_total",
        "turnout_dropped_total",
        "turnout_worker_restarts_total",
        "turnout_snapshot_generation",
        "turnout_model_load_seconds",
        "turnout_statistics_seconds_total",
        "turnout_last_answer_timestamp_seconds",
        "turnout_resting",
    }
