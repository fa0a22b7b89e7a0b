"""The manifests of k8s/base: strictly of Kubernetes' schemas, and of one mind with the image and the command."""

import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import typer.main
import yaml

from gateway.config import GatewayConfig
from turnout.cli import main as command

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
KUBERNETES = "1.33"
SERVICE_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "endpoints"],
            "properties": {
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["matchLabels"],
                    "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                            "scrapeTimeout": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        },
    },
}


def documents():
    """Return the manifests by kind."""
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    found = [yaml.safe_load((BASE / name).read_text()) for name in listed]
    return {document["kind"]: document for document in found}


ALL = documents()
DEPLOYMENT = ALL["Deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
GATEWAY = next(container for container in POD["containers"] if container["name"] == "gateway")
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]


def test_every_file_is_listed():
    """The kustomization names each file of its folder, once."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    assert set(kustomization) == {"apiVersion", "kind", "labels", "resources"}
    files = sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
    assert sorted(kustomization["resources"]) == files


@pytest.mark.parametrize("kind", sorted(set(ALL) - {"ServiceMonitor"}))
def test_manifest_is_of_its_schema(kind):
    """Each manifest has only fields that Kubernetes knows, of the right types."""
    kubernetes_validate.validate(ALL[kind], KUBERNETES, strict=True)


def test_service_monitor_is_of_its_schema():
    """The one kind that Kubernetes itself does not know is held against the part of its schema that is used."""
    jsonschema.validate(ALL["ServiceMonitor"], SERVICE_MONITOR)


def test_schema_check_sees_unknown_fields():
    """A misspelt field does not pass."""
    broken = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget", "Service", "NetworkPolicy", "ServiceMonitor"])
def test_selector_finds_the_pods(kind):
    """Everything that selects pods, or the Service, selects ours."""
    spec = ALL[kind]["spec"]
    selector = spec.get("podSelector") or spec["selector"]
    wanted = selector.get("matchLabels", selector)
    target = ALL["Service"]["metadata"]["labels"] if kind == "ServiceMonitor" else LABELS
    assert wanted
    assert wanted.items() <= target.items()


def test_ports_are_those_of_the_command():
    """The container's ports are the command's defaults, and every name in use is one of them."""
    ports = {port["name"]: port["containerPort"] for port in GATEWAY["ports"]}
    config = GatewayConfig()
    assert ports == {"http": config.http_port, "grpc": config.grpc_port, "metrics": config.metrics_port}
    used = {port["targetPort"] for port in ALL["Service"]["spec"]["ports"]}
    used |= {rule["port"] for ingress in ALL["NetworkPolicy"]["spec"]["ingress"] for rule in ingress["ports"]}
    assert used == set(ports)
    service = {port["name"] for port in ALL["Service"]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in ALL["ServiceMonitor"]["spec"]["endpoints"]} <= service


@pytest.mark.parametrize(("probe", "path"), [("startup", "/live"), ("liveness", "/live"), ("readiness", "/ready")])
def test_probes_ask_the_machine(probe, path):
    """Probes ask the metrics port, which answers for all processes of the machine."""
    assert GATEWAY[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "metrics"}


def test_command_line_is_known():
    """Each flag of the container is one of `turnout serve`."""
    serve = typer.main.get_command(command.build("serve")).commands["serve"]
    flags = {option for parameter in serve.params for option in parameter.opts}
    assert GATEWAY["command"] == ["turnout"]
    assert GATEWAY["args"][0] == "serve"
    given = {argument.partition("=")[0] for argument in GATEWAY["args"] if argument.startswith("--")}
    assert given <= flags


def test_grace_period_outlasts_the_drain():
    """The pod is given more time to leave than it waits and drains."""
    drain = next(float(found[1]) for a in GATEWAY["args"] if (found := re.fullmatch(r"--drain-seconds=(.+)", a)))
    waits = GATEWAY["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] >= waits + drain + 10


def test_pod_is_confined():
    """No container runs as root, gains privileges, or writes to its own image; the user is the image's."""
    users = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == [(str(POD["securityContext"]["runAsUser"]), str(POD["securityContext"]["runAsGroup"]))]
    assert POD["securityContext"]["runAsNonRoot"] is True
    for container in (*POD["initContainers"], *POD["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_state_is_a_writable_volume():
    """The state folder of the command is a mounted volume of its own, and writable."""
    state = next(a.partition("=")[2] for a in GATEWAY["args"] if a.startswith("--state="))
    mount = next(mount for mount in GATEWAY["volumeMounts"] if mount["mountPath"] == state)
    volume = next(volume for volume in POD["volumes"] if volume["name"] == mount["name"])
    assert not mount.get("readOnly")
    assert "emptyDir" in volume


def test_volumes_are_all_defined_and_used():
    """Each mount has its volume, each volume a mount, and each named object stands in the base."""
    mounted = {m["name"] for c in (*POD["initContainers"], *POD["containers"]) for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in POD["volumes"]}
    maps = {volume["configMap"]["name"] for volume in POD["volumes"] if "configMap" in volume}
    claims = {v["persistentVolumeClaim"]["claimName"] for v in POD["volumes"] if "persistentVolumeClaim" in v}
    assert maps == {ALL["ConfigMap"]["metadata"]["name"]}
    assert claims == {ALL["PersistentVolumeClaim"]["metadata"]["name"]}
    assert POD["serviceAccountName"] == ALL["ServiceAccount"]["metadata"]["name"]
    assert ALL["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
