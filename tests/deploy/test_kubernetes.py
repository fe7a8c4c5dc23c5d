"""deploy/kubernetes: valid by Kubernetes' own schemas, whole in itself, and its settings are ones that the node takes."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from docs import markdown
from docs.checkout import ROOT
from keycache import config
from keycache.app import GRACE_SECONDS
from keycache.client import connect
from support.command import spawn
from support.scenario import Running, running

FOLDER = ROOT / "deploy" / "kubernetes"
GUIDE = (ROOT / "deploy" / "OPERATIONS.md").read_text("utf-8")
LABELS = {"app.kubernetes.io/name": "keycache"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
SECRETS = {"keycache-etcd", "keycache-authority"}
"""Made by hand, as the guide says: what is secret stands in no file here."""


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text("utf-8")) if one]


KUSTOMIZATION = documents("kustomization.yaml")[0]
OBJECTS = [one for name in KUSTOMIZATION["resources"] for one in documents(name)]


def one_of(kind: str, name: str = "keycache") -> dict[str, Any]:
    (found,) = [one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


POD = one_of("StatefulSet")["spec"]["template"]
CONTAINERS = [*POD["spec"]["initContainers"], *POD["spec"]["containers"]]
NODE = POD["spec"]["containers"][0]


def test_the_kustomization_names_every_file_and_nothing_else() -> None:
    generated = [file for maps in KUSTOMIZATION["configMapGenerator"] for file in maps["files"]]

    assert {"kustomization.yaml", *KUSTOMIZATION["resources"], *generated} == {path.name for path in FOLDER.iterdir()}
    assert KUSTOMIZATION["namespace"] == one_of("Namespace")["metadata"]["name"]
    assert [image["newTag"] for image in KUSTOMIZATION["images"]] == [VERSION]
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {container["image"] for container in CONTAINERS}


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("found", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_kubernetes_takes_every_object(found: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


def test_what_kubernetes_does_not_take_is_found() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(one_of("StatefulSet")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def selectors() -> Iterator[tuple[str, Any]]:
    for one in OBJECTS:
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            yield f"Service {one['metadata']['name']}", spec["selector"]
        elif one["kind"] == "NetworkPolicy":
            yield one["kind"], spec["podSelector"]["matchLabels"]
        elif "selector" in spec:
            yield one["kind"], spec["selector"]["matchLabels"]
    for constraint in POD["spec"]["topologySpreadConstraints"]:
        yield "topologySpreadConstraints", constraint["labelSelector"]["matchLabels"]


def test_every_selector_finds_the_pods() -> None:
    assert POD["metadata"]["labels"] == LABELS
    assert dict(selectors()) == dict.fromkeys(
        [
            "Service keycache",
            "Service keycache-nodes",
            "StatefulSet",
            "PodDisruptionBudget",
            "NetworkPolicy",
            "topologySpreadConstraints",
        ],
        LABELS,
    )
    headless = one_of("Service", one_of("StatefulSet")["spec"]["serviceName"])
    assert headless["spec"]["clusterIP"] == "None"


def test_every_port_that_is_named_is_one_of_the_node() -> None:
    loaded = tomllib.loads((FOLDER / "keycache.toml").read_text("utf-8"))["listen"]
    ports = {port["name"]: port["containerPort"] for port in NODE["ports"]}
    assert ports == {name: int(loaded[name].rpartition(":")[2]) for name in ("grpc", "metrics")}

    named = {port["targetPort"] for name in ("keycache", "keycache-nodes") for port in one_of("Service", name)["spec"]["ports"]}
    named |= {port["port"] for rule in one_of("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]}
    assert named == set(ports)
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])


def test_every_volume_is_there_and_comes_from_something_that_is() -> None:
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    claims = {claim["metadata"]["name"] for claim in one_of("StatefulSet")["spec"]["volumeClaimTemplates"]}
    mounted = {mount["name"] for container in CONTAINERS for mount in container["volumeMounts"]}

    assert mounted == set(volumes) | claims
    assert {volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume} == SECRETS
    assert [volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume] == [
        maps["name"] for maps in KUSTOMIZATION["configMapGenerator"]
    ]
    assert [name for name in SECRETS if name not in GUIDE] == []


def test_the_pods_are_restricted_as_the_namespace_demands() -> None:
    """The Pod Security Standards' level `restricted`."""
    labels = one_of("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    context = POD["spec"]["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["seccompProfile"]) == (
        True,
        10001,
        {"type": "RuntimeDefault"},
    )
    for container in CONTAINERS:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    allowed = {"configMap", "emptyDir", "secret"}
    assert {kind for volume in POD["spec"]["volumes"] for kind in volume if kind != "name"} <= allowed
    assert POD["spec"]["automountServiceAccountToken"] is False


def test_a_pod_has_time_to_finish_calls_in_flight() -> None:
    assert POD["spec"]["terminationGracePeriodSeconds"] >= GRACE_SECONDS + 20


def environment(pod: str) -> dict[str, str]:
    """As the kubelet makes it: a value may name variables that stand before it."""
    found: dict[str, str] = {}
    fields = {"metadata.name": pod, "metadata.namespace": KUSTOMIZATION["namespace"]}
    for one in NODE["env"]:
        text = one.get("value") or fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], text)
    return found


def test_the_configuration_is_one_that_the_node_takes(tmp_path: Path) -> None:
    """With the files of the Secret where they are here: the node looks whether they are there."""
    text, secret = (FOLDER / "keycache.toml").read_text("utf-8"), tmp_path / "etcd"
    (mount,) = [mount["mountPath"] for mount in NODE["volumeMounts"] if mount["name"] == "etcd"]
    secret.mkdir()
    for name in re.findall(rf'"{mount}/([\w.]+)"', text):
        (secret / name).touch()
    (tmp_path / "keycache.toml").write_text(text.replace(mount, str(secret)), "utf-8")

    loaded = config.load(data_dir=tmp_path, file=tmp_path / "keycache.toml", environ=environment("keycache-1"))

    assert {path.name for path in secret.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    assert str(loaded.cluster.address) == "keycache-1.keycache-nodes.keycache.svc:7640"
    assert "keycache.keycache.svc.cluster.local" in loaded.listen.names
    assert loaded.listen.join is None
    assert "/etc/keycache/config/keycache.toml" in NODE["args"]


def give_authority(place: Path, folders: list[Path]) -> None:
    """Made in `place` as the guide makes it, put where the init container puts it."""
    (make,) = re.findall(r"^\$ (openssl (?:.*\\\n)*.*)$", "\n".join(markdown.blocks(GUIDE, "console")), re.MULTILINE)
    subprocess.run(["sh", "-euc", make], cwd=place, capture_output=True, timeout=60, check=True)
    put = POD["spec"]["initContainers"][0]["command"]
    for folder in folders:
        folder.mkdir()
        here = put[-1].replace("/var/lib/keycache", str(folder)).replace("/authority", str(place))
        subprocess.run([*put[:-1], here], timeout=60, check=True)


async def test_one_certificate_opens_all_nodes_that_were_given_one_authority(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    give_authority(tmp_path, folders)
    async with running(folders[0]) as one, running(folders[1]) as two:
        out = tmp_path / "client"
        issued = spawn("client", "issue", "--role", "admin", "--name", "ann", "--out", out, "--data-dir", folders[0])
        assert issued.returncode == 0, issued.stderr
        for node in (one, two):
            target = node.node.run_file["grpc"]
            async with connect(target, ca=out / "ca.pem", certificate=out / "ann.pem", key=out / "ann.key") as connection:
                assert (await Running(node.node, connection).status()).entries.live == 0
    for folder in folders:
        assert not [line for line in (folder / "log").read_text().splitlines() if "was open to other users" in line]
