"""A live cluster through ``kubectl get``: every way to log in works, and nothing but reading verbs is ever used."""

from __future__ import annotations

import shlex
import subprocess

from netsim.errors import InputError, PrivilegeError

_KINDS = (
    "nodes", "namespaces", "pods", "services", "endpointslices.discovery.k8s.io", "deployments.apps", "replicasets.apps",
    "statefulsets.apps", "daemonsets.apps", "jobs.batch", "networkpolicies.networking.k8s.io",
)  # fmt: skip
_CONFIG_MAPS = (
    ("kube-system", "kube-proxy"),
    ("kube-flannel", "kube-flannel-cfg"),
    ("kube-system", "kube-flannel-cfg"),
)


def commands(context: str) -> list[list[str]]:
    """The kubectl calls, in order. ConfigMaps are asked for by name: no others are anyone's business."""
    base = ["kubectl", f"--context={context}", "get"]
    return [
        [*base, ",".join(_KINDS), "--all-namespaces", "--output=json"],
        *(
            [*base, f"configmap/{name}", f"--namespace={namespace}", "--ignore-not-found", "--output=json"]
            for namespace, name in _CONFIG_MAPS
        ),
    ]


def shown(context: str) -> str:
    return "\n".join(shlex.join(command) for command in commands(context))


def fetch(context: str) -> bytes:
    """JSON documents, one after the other. InputError says what kubectl said."""
    found: list[bytes] = []
    for command in commands(context):
        try:
            done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise InputError("--context needs kubectl, which is not in PATH; `kubectl get … -o json` output can be "
                             "given with -f instead") from None  # fmt: skip
        except PermissionError as error:
            raise PrivilegeError(f"kubectl cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            raise InputError(f"{shlex.join(command)}: {said}")
        found.append(done.stdout)
    return b"\n".join(found)
