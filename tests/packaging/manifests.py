#!/usr/bin/env python3
"""Checks the manifests for Kubernetes and Compose, and that ACE accepts the configurations in them: manifests.py ACE"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"


def check(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")
    print(f"ok: {what}", flush=True)


def accepted(ace, text, name):
    """ACE accepts a configuration, with its folders replaced by those of the repository."""
    with tempfile.TemporaryDirectory(prefix="ace-manifests-") as folder:
        for path in ("/var/lib/ace", "/etc/ace-tokens"):
            text = text.replace(path, folder)
        (Path(folder) / "ace.toml").write_text(text)
        done = subprocess.run([Path(ace).resolve(), "check"], cwd=folder, text=True, capture_output=True)
        check(done.returncode == 0, f"{name} has no problems\n{done.stderr if done.returncode else ''}".rstrip())


def kubernetes(ace):
    documents = list(yaml.safe_load_all((PACKAGING / "kubernetes/ace.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    expected = {"ConfigMap", "PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"}
    check(set(kinds) == expected and len(documents) == 5, "Kubernetes: five objects")
    accepted(ace, kinds["ConfigMap"]["data"]["ace.toml"], "the ConfigMap")
    spec = kinds["Deployment"]["spec"]
    check(spec["replicas"] == 1 and spec["strategy"] == {"type": "Recreate"}, "one process at a time has the queue")
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    check(volumes == {mount["name"] for mount in container["volumeMounts"]}, "every volume is mounted")
    check(not any("subPath" in mount for mount in container["volumeMounts"]), "a changed ConfigMap reaches the pod")
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    check([probe["path"] for probe in probes] == ["/healthz", "/healthz", "/readyz"], "its probes")
    port = tomllib.loads(kinds["ConfigMap"]["data"]["ace.toml"])["server"]["listen"].split(":")[1]
    ports = {container["ports"][0]["containerPort"], kinds["Service"]["spec"]["ports"][0]["port"],
             kinds["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"]}
    check(ports == {int(port)}, "one port everywhere")


def main():
    ace = sys.argv[1]
    kubernetes(ace)
    services = yaml.safe_load((PACKAGING / "compose.yml").read_text())["services"]
    relay = tomllib.loads((PACKAGING / "container.toml").read_text())["relays"]["main"]
    check(relay["host"] in services, "the relay of the image is a service of compose.yml")
    accepted(ace, (PACKAGING / "container.toml").read_text(), "the image's configuration")


main()
