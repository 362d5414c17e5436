"""Loading: what is kept, converted, defaulted, supplied and noted; and on which line a complaint stands."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest

from netsim.errors import InputError
from netsim.kube.kinds import Skip, classify
from netsim.kube.load import Loaded, load, store
from netsim.kube.objects import EndpointSlice, Pod, Resource, Service, Workload


def read(text: str, **options: Any) -> Loaded:
    return load(["-"], stdin=io.BytesIO(text.encode()), **options)


def one(text: str, kind: str) -> Any:
    (found,) = (item for item in read(text).objects if item.kind == kind)
    return found


def refused(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: LoadBalancer\n  ports: [{port: 80}]\n"


def test_service_defaults() -> None:
    service: Service = one(SERVICE, "Service")
    port = service.spec.ports[0]
    assert (service.namespace, port.protocol, port.target_port) == ("default", "TCP", 80)
    assert (service.spec.external_traffic_policy, service.spec.internal_traffic_policy) == ("Cluster", "Cluster")
    assert service.spec.allocate_load_balancer_node_ports is True
    assert service.source is not None
    assert str(service.source) == "-:1"


def test_affinity_none_clears_its_configuration() -> None:
    text = SERVICE + "  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}\n"
    assert one(text, "Service").spec.session_affinity_config is None


def test_a_dump_keeps_its_state() -> None:
    pod: Pod = one(
        """
apiVersion: v1
kind: Pod
metadata: {name: a, uid: u-1, creationTimestamp: null, ownerReferences: [{apiVersion: v1, kind: X, name: x, uid: u}]}
spec: {nodeName: node-1, hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}], futureField: 1}
""",
        "Pod",
    )
    assert (pod.metadata.uid, pod.metadata.owner_references[0].uid, pod.ips, pod.ready) == (
        "u-1",
        "u",
        ["10.0.0.1"],
        True,
    )
    assert pod.spec.containers[0].ports is not None
    assert pod.spec.containers[0].ports[0].host_port == 80
    assert pod.metadata.creation_timestamp is None


def test_pod_templates_are_defaulted_in_full() -> None:
    deployment: Workload = one(
        """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - {name: c, image: "r:5000/i", readinessProbe: {httpGet: {port: 80}}, resources: {limits: {cpu: 1}}}
      volumes: [{name: v, configMap: {name: m}}]
""",
        "Deployment",
    )
    spec = deployment.spec["template"]["spec"]
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "Always"
    assert container["resources"] == {"limits": {"cpu": 1}}  # templates do not copy limits to requests
    assert container["readinessProbe"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert container["readinessProbe"]["failureThreshold"] == 3
    assert spec["volumes"][0]["configMap"]["defaultMode"] == 420
    assert (spec["schedulerName"], spec["securityContext"], "enableServiceLinks" in spec) == (
        "default-scheduler",
        {},
        False,
    )
    assert deployment.spec["strategy"]["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": "25%"}


@pytest.mark.parametrize(
    ("version", "strategy"),
    [("extensions/v1beta1", 1), ("apps/v1beta1", "25%"), ("apps/v1", None), ("apps/v1beta2", None)],
)
def test_old_deployments(version: str, strategy: int | str | None) -> None:
    text = f"""
apiVersion: {version}
kind: Deployment
metadata: {{name: d}}
spec: {{template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}
"""
    if strategy is None:
        assert len(refused(text)) == 2  # no selector: required, and a nil one matches nothing
        return
    found: Workload = one(text, "Deployment")
    assert (found.api_version, found.spec["selector"]) == ("apps/v1", {"matchLabels": {"a": "b"}})
    assert found.metadata.labels == {"a": "b"}
    assert found.spec["strategy"]["rollingUpdate"]["maxSurge"] == strategy
    assert read(text).notes == [f"{version} Deployment (removed in 1.16): read as apps/v1"]


def test_old_ingress() -> None:
    text = """
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: i}
spec:
  rules: [{http: {paths: [{path: , backend: {serviceName: s, servicePort: http}}]}}]
"""
    found: Resource = one(text, "Ingress")
    (path,) = found.spec["rules"][0]["http"]["paths"]
    assert path == {
        "pathType": "ImplementationSpecific",
        "backend": {"service": {"name": "s", "port": {"name": "http"}}},
    }


def test_old_endpoint_slice() -> None:
    found: EndpointSlice = one(
        """
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
metadata: {name: s}
addressType: IPv6
endpoints:
- addresses: ["2001:db8::1"]
  topology: {kubernetes.io/hostname: n1, topology.kubernetes.io/zone: z}
""",
        "EndpointSlice",
    )
    assert (found.endpoints[0].node_name, found.endpoints[0].zone) == ("n1", "z")


def test_policy_types_get_egress_only_with_a_rule() -> None:
    base = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  podSelector: {}\n"
    for egress, types in (
        ("", ["Ingress"]),
        ("  egress: []\n", ["Ingress"]),
        ("  egress: [{}]\n", ["Ingress", "Egress"]),
    ):
        assert one(base + egress, "NetworkPolicy").spec["policyTypes"] == types


def test_an_empty_budget_selector_of_v1beta1_selects_nothing() -> None:
    text = "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: b}\nspec: {selector: {}}\n"
    assert one(text, "PodDisruptionBudget").spec["selector"]["matchExpressions"][0]["operator"] == "Exists"


def test_namespaces() -> None:
    loaded = read("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n", namespace="shop")
    assert [(item.kind, *item.key) for item in loaded.objects] == [
        ("ConfigMap", "shop", "c"),
        ("Namespace", "", "shop"),
    ]
    assert loaded.objects[1].metadata.labels == {"kubernetes.io/metadata.name": "shop"}
    assert loaded.notes == ['Namespace "shop" is not in the input: supplied']
    label = "{kubernetes.io/metadata.name: wrong}"
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: x, namespace: dropped, labels: {label}}}\n"
    found = one(text, "Namespace")
    assert (found.namespace, found.metadata.labels["kubernetes.io/metadata.name"]) == ("", "x")


def test_lists_and_their_lines() -> None:
    text = """apiVersion: v1
kind: ServiceList
items:
- metadata: {name: a}
  spec: {ports: [{port: 80}]}
- apiVersion: v1
  kind: Service
  metadata: {name: b}
  spec:
    ports:
    - port: 80
      protocol: ICMP
"""
    assert refused(text) == [
        '-:12: Service "b": spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'
    ]
    good = read(text.replace("ICMP", "SCTP"))
    assert [(item.name, item.source.line) for item in good.objects if item.source] == [("a", 4), ("b", 6)]


def test_json_lists_and_their_lines() -> None:
    items = ",\n".join(
        f'{{"kind": "Namespace", "apiVersion": "v1",\n "metadata": {{"name": "n{i}"}}}}' for i in range(3)
    )
    text = f'{{"kind": "List", "apiVersion": "v1", "items": [\n{items}]}}\n'
    big = text.replace("items", " " * (1 << 20) + "items")
    for document in (
        text,
        text + text.replace(': "n', ': "m'),
        big.replace(" " * (1 << 20) + "items", "items") + " " * (1 << 20),
    ):
        objects = read(document).objects
        assert [item.source.line for item in objects if item.source][:3] == [2, 4, 6]


def test_secrets_are_not_kept() -> None:
    loaded = read('{"kind":"List","apiVersion":"v1","items":[{"apiVersion":"v1","kind":"Secret","data":7}]}')
    assert (loaded.objects, loaded.notes) == ([], [])


def test_what_a_secret_owns_is_kept() -> None:
    owner = '"ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"s","uid":"u"}]'
    text = f'{{"apiVersion":"v1","metadata":{{{owner},"name":"c"}},"kind":"ConfigMap"}}'
    assert one(text, "ConfigMap").name == "c"


def test_bare_configuration_files() -> None:
    network = one('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}', "FlannelNetConf")
    assert network.body["Backend"] == {"Type": "vxlan"}
    text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n"
    assert one(text, "KubeProxyConfiguration").body["mode"] == "ipvs"


def test_policies_of_other_groups_keep_their_body() -> None:
    text = """
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {order: 1, whatever: [1]}
"""
    found = one(text, "NetworkPolicy.projectcalico.org")
    assert found.spec == {"order": 1, "whatever": [1]}


@pytest.mark.parametrize(
    ("name", "good"), [("2001:db8::1", True), ("10.0.0.1", True), ("10.0.0.01", False), ("x", False)]
)
def test_addresses_as_names(name: str, good: bool) -> None:
    head = f'apiVersion: networking.k8s.io/v1\nkind: IPAddress\nmetadata: {{name: "{name}"}}\n'
    text = head + "spec: {parentRef: {resource: services, name: a}}\n"
    assert bool(read(text, lenient=True).refused) is not good


def test_gzip_and_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.yaml.gz").write_bytes(gzip.compress(SERVICE.encode()))
    (tmp_path / "b.yml").write_text(SERVICE.replace("web", "api"))
    assert [o.name for o in load([str(tmp_path)]).objects if o.kind == "Service"] == ["web", "api"]


def test_the_later_object_wins_with_a_word() -> None:
    loaded = read(SERVICE + "---\n" + SERVICE.replace("80", "81"))
    assert store(loaded).get("Service", "default", "web").spec.ports[0].port == 81
    assert loaded.notes == ['Service "web" is given twice: -:8 replaces -:1']


def test_generated_names_are_distinct_and_repeatable() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\nspec: {containers: [{name: c, image: i}]}\n"
    names = [item.name for item in read(f"{text}---\n{text}").objects if item.kind == "Pod"]
    assert len(set(names)) == 2
    assert names == [item.name for item in read(f"{text}---\n{text}").objects if item.kind == "Pod"]


@pytest.mark.parametrize(
    ("version", "kind", "used"),
    [
        ("v1", "Secret", False),
        ("rbac.authorization.k8s.io/v1beta1", "Role", False),
        ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", True),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", True),
        ("projectcalico.org/v3", "IPPool", True),
        ("networking.k8s.io/v1beta2", "Ingress", None),
    ],
)
def test_kinds(version: str, kind: str, used: bool | None) -> None:
    found = classify(version, kind)
    assert (None if found is None else not isinstance(found, Skip)) is used
