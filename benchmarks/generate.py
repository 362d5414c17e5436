"""Write a cluster of any size as the JSON that ``kubectl get -o json`` would print.

    python benchmarks/generate.py --nodes 5000 --pods 150000 --services 10000 --endpoints 10 > cluster.json

Pods look like real ones (containers, volumes, tolerations, conditions: about 3 kB each), so that loading is measured
honestly. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
STAMP = "2026-01-01T00:00:00Z"


def uid(kind: int, index: int) -> str:
    return f"00000000-0000-4000-8{kind:03x}-{index:012x}"


def node(index: int, pod_cidrs: list[str]) -> Json:
    address = str(ipaddress.IPv4Address("172.16.0.0") + index + 10)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"node-{index}",
            "uid": uid(1, index),
            "creationTimestamp": STAMP,
            "labels": {
                "kubernetes.io/hostname": f"node-{index}",
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": f"zone-{index % 3}",
            },
            "annotations": {
                "flannel.alpha.coreos.com/backend-data": json.dumps({"VNI": 1, "VtepMAC": mac(index)}),
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/public-ip": address,
            },
        },
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "Hostname", "address": f"node-{index}"},
            ],
            "allocatable": {"cpu": "16", "memory": "65536Mi", "pods": "110"},
            "capacity": {"cpu": "16", "memory": "65536Mi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": STAMP}],
        },
    }


def mac(index: int) -> str:
    return "0e:00:" + ":".join(f"{(index >> shift) & 0xFF:02x}" for shift in (24, 16, 8, 0))


def pod(index: int, nodes: int, address: str, service: int) -> Json:
    name, namespace, on = f"app-{service}-{index}", f"team-{service % 50}", f"node-{index % nodes}"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"app-{service}-6d4cf56db6", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generateName": f"app-{service}-6d4cf56db6-",
            "uid": uid(2, index),
            "creationTimestamp": STAMP,
            "labels": {"app": f"app-{service}", "pod-template-hash": "6d4cf56db6", "tier": f"tier-{service % 5}"},
            "ownerReferences": [owner | {"uid": uid(4, service), "blockOwnerDeletion": True}],
        },
        "spec": {
            "nodeName": on,
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "enableServiceLinks": True,
            "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
            "containers": [
                {
                    "name": "server",
                    "image": f"registry.example/app-{service}:v1.2.3",
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [
                        {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                        {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
                    ],
                    "env": [{"name": "PORT", "value": "8080"}, {"name": "LEVEL", "value": "info"}],
                    "resources": {
                        "limits": {"cpu": "200m", "memory": "128Mi"},
                        "requests": {"cpu": "100m", "memory": "64Mi"},
                    },
                    "readinessProbe": {
                        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
                        "timeoutSeconds": 1,
                        "periodSeconds": 10,
                        "successThreshold": 1,
                        "failureThreshold": 3,
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [
                        {
                            "name": "kube-api-access",
                            "readOnly": True,
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                        }
                    ],
                }
            ],
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{key}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for key in ("not-ready", "unreachable")
            ],
            "volumes": [
                {
                    "name": "kube-api-access",
                    "projected": {
                        "defaultMode": 420,
                        "sources": [
                            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        ],
                    },
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": str(ipaddress.IPv4Address("172.16.0.0") + index % nodes + 10),
            "startTime": STAMP,
            "qosClass": "Burstable",
            "conditions": [
                {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": STAMP}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {
                    "name": "server",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "image": f"registry.example/app-{service}:v1.2.3",
                    "imageID": f"registry.example/app-{service}@sha256:{service:064x}",
                    "containerID": f"containerd://{index:064x}",
                    "state": {"running": {"startedAt": STAMP}},
                }
            ],
        },
    }


def service(index: int) -> Json:
    address = str(ipaddress.IPv4Address("10.96.0.0") + index + 257)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"app-{index}",
            "namespace": f"team-{index % 50}",
            "uid": uid(3, index),
            "creationTimestamp": STAMP,
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "selector": {"app": f"app-{index}"},
            "sessionAffinity": "None",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    }


def endpoint_slice(index: int, members: list[Json]) -> Json:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"app-{index}-abcde",
            "namespace": f"team-{index % 50}",
            "uid": uid(5, index),
            "creationTimestamp": STAMP,
            "labels": {
                "kubernetes.io/service-name": f"app-{index}",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [member["status"]["podIP"]],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": member["spec"]["nodeName"],
                "targetRef": {
                    "kind": "Pod",
                    "namespace": member["metadata"]["namespace"],
                    "name": member["metadata"]["name"],
                    "uid": member["metadata"]["uid"],
                },
            }
            for member in members
        ],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    }


def objects(nodes: int, pods: int, services: int, endpoints: int) -> Iterator[Json]:
    """Nodes, then pods (spread over nodes, dealt to Services in turn), then Services with their slices."""
    base = int(ipaddress.IPv4Address("10.128.0.0"))
    for index in range(nodes):
        yield node(index, [f"{ipaddress.IPv4Address(base + index * 256)}/24"])
    for index in range(max((s % 50 for s in range(max(services, 1))), default=0) + 1):
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": f"team-{index}", "creationTimestamp": STAMP},
        }
    members: dict[int, list[Json]] = {}
    for index in range(pods):
        owner = index % services if services else 0
        address = str(ipaddress.IPv4Address(base + (index % nodes) * 256 + index // nodes + 2))
        made = pod(index, nodes, address, owner)
        held = members.setdefault(owner, [])
        if len(held) < endpoints:
            held.append(
                {"metadata": made["metadata"], "spec": {"nodeName": made["spec"]["nodeName"]}, "status": made["status"]}
            )
        yield made
    for index in range(services):
        yield service(index)
        yield endpoint_slice(index, members.get(index, []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--endpoints", type=int, default=10)
    given = parser.parse_args()
    out = sys.stdout
    out.write('{"apiVersion": "v1", "kind": "List", "items": [\n')
    for number, item in enumerate(objects(given.nodes, given.pods, given.services, given.endpoints)):
        out.write((",\n" if number else "") + json.dumps(item))
    out.write("\n]}\n")


if __name__ == "__main__":
    main()
