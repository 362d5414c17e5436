"""What the API server refuses is refused in its words, with file, line and field; what it accepts is evaluated."""

from __future__ import annotations

import pytest

from netsim.errors import InputError
from netsim_policies.algebra import ALL_PORTS, NO_PORTS
from tests.unit.test_policies_semantics import EVERYONE, Json, admin, allowed, build, policy


def expression(**fields: object) -> Json:
    return {"matchExpressions": [{"key": "a", **fields}]}


def ports(*items: Json) -> Json:
    return policy(ingress=[{"ports": list(items)}])


def block(cidr: str, *cut: str) -> Json:
    return policy(ingress=[{"from": [{"ipBlock": {"cidr": cidr, "except": list(cut)}}]}])


def cluster(**spec: object) -> Json:
    return admin("ClusterNetworkPolicy", **{"tier": "Admin", **spec})


NETWORK_POLICIES = [
    (policy(podSelector=expression(operator="Like", values=["x"])),
     'spec.podSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator'),
    (policy(podSelector=expression(operator="In")),
     "matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
    (policy(podSelector=expression(operator="Exists", values=["x"])),
     "matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
    (ports({"port": 70000}), "spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"),
    (ports({"port": 0}), "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    (ports({"port": 90, "endPort": 80}), "ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"),
    (ports({"port": "http", "endPort": 80}), "ports[0].endPort: Invalid value: 80: may not be specified when `port` is "),
    (ports({"endPort": 80}), "ports[0].endPort: Invalid value: 80: may not be specified when `port` is not specified"),
    (ports({"protocol": "ICMP"}), 'protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"'),
    (block("10.0.0.0/8", "11.0.0.0/16"), 'except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`'),
    (block("10.0.0.0/8", "10.0.0.0/8"), 'ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`'),
    (block("10.0.0.0/33"), 'ipBlock.cidr: Invalid value: "10.0.0.0/33": must be a valid CIDR value'),
    (policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]),
     "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"),
    (policy(ingress=[{"from": [{}]}]), "spec.ingress[0].from[0]: Required value: must specify a peer"),
    (policy(policyTypes=["Both"]), 'spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress"'),
]  # fmt: skip

ADMIN_POLICIES = [
    (cluster(tier="Middle"), 'spec.tier: Unsupported value: "Middle": supported values: "Admin", "Baseline"'),
    (admin(priority=-1), "spec.priority: Invalid value: -1: spec.priority in body should be greater than or equal to 0"),
    (admin(priority=None), "spec.priority: Required value"),
    (admin(subject=None), "spec.subject: Required value"),
    (admin(subject={"namespaces": {}, "pods": {}}), "spec.subject: Too many: 2: must have at most 1 items"),
    (admin(subject={"namespaces": expression(operator="Like", values=["x"])}),
     'spec.subject.namespaces.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator'),
    (admin(subject={"namespaces": {"matchExpressions": "x"}}),
     'matchExpressions: Invalid value: "string": spec.subject.namespaces.matchExpressions in body must be of type array'),
    (admin(subject={"namespaces": {"matchExpressions": ["x"]}}), '[0] in body must be of type object: "string"'),
    (admin(subject={"namespaces": {"matchExpressions": [{"operator": "Exists"}]}}), "Expressions[0].key: Required value"),
    (admin(subject={"namespaces": {"matchLabels": {"a": 3}}}), 'matchLabels.a in body must be of type string: "integer"'),
    (admin(subject={"pods": {"podSelector": {}}}), "spec.subject.pods.namespaceSelector: Required value"),
    (admin(ingress=["x"]), 'Invalid value: "string": spec.ingress[0] in body must be of type object: "string"'),
    (admin(unknown=3), 'spec.unknown: strict decoding error: unknown field "spec.unknown"'),
    (cluster(ingress=[{"action": "Deny", "from": EVERYONE, "ports": []}]), 'unknown field "spec.ingress[0].ports"'),
    (admin(egress=[{"action": "Allow", "to": [{"networks": ["10.0.0.0"]}]}]),
     'spec.egress[0].to[0].networks[0]: Invalid value: "10.0.0.0": Invalid CIDR format provided'),
    (admin(ingress=[{"action": "Allow", "from": EVERYONE, "ports": [{"portNumber": {"protocol": "TCP", "port": 0}}]}]),
     "portNumber.port: Invalid value: 0: spec.ingress[0].ports[0].portNumber.port in body should be greater than or equal"),
    (cluster(ingress=[{"action": "Accept", "from": EVERYONE,
                       "protocols": [{"tcp": {"destinationPort": {"range": {"start": 5, "end": 5}}}}]}]),
     "tcp.destinationPort.range: Invalid value: \"object\": Start port must be less than End port"),
    (cluster(egress=[{"action": "Accept", "to": [{"networks": ["0.0.0.0/0"]}],
                      "protocols": [{"destinationNamedPort": "http"}]}]),
     "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes"),
    (cluster(egress=[{"action": "Accept", "to": [{"domainNames": ["*"]}]}]), 'domainNames[0]: Invalid value: "*"'),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "words"), [*NETWORK_POLICIES, *ADMIN_POLICIES])
def test_it_is_refused_in_the_servers_words(bad: Json, words: str) -> None:
    with pytest.raises(InputError) as caught:
        build(bad)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f'-:1: {bad["kind"]} "{bad["metadata"]["name"]}": ')


def test_every_problem_is_told_and_not_the_first_alone() -> None:
    rules = [{"action": "Drop", "from": EVERYONE}, {"action": "Deny"}]
    with pytest.raises(InputError) as caught:
        build(admin(priority=2000, ingress=rules), cluster(tier="Middle"))
    assert len(caught.value.problems) == 4


def test_of_two_policies_with_one_name_the_last_counts_as_when_they_are_applied() -> None:
    """The loader says which one is left out."""
    shut, opened = policy("same", policyTypes=["Ingress"]), policy("same", ingress=[{}])
    assert len(build(shut, shut).policies) == 1
    assert allowed(build(opened, shut), "batch/job", "shop/db") == NO_PORTS
    assert allowed(build(shut, opened), "batch/job", "shop/db") == ALL_PORTS


def test_what_a_server_would_accept_is_evaluated() -> None:
    """Host bits are masked; a policy for a namespace without pods selects nobody; a range from 9 to 8 holds no port."""
    assert allowed(build(block("10.0.2.99/24")), "shop/web", "shop/db") == NO_PORTS
    for all_v6 in (("::/0",), ("::/0", "fd00::/8"), ("::/96", "::1/128")):
        assert allowed(build(block(*all_v6)), "batch/job", "shop/db") == NO_PORTS, f"{all_v6} say nothing about IPv4"
    for sloppy in ("010.000.002.000/24", "::ffff:10.0.2.0/120"):
        assert allowed(build(block(sloppy)), "batch/job", "shop/db") == ALL_PORTS, sloppy
        assert allowed(build(block(sloppy)), "shop/web", "shop/db") == NO_PORTS, sloppy
        assert allowed(build(block("10.0.0.0/16", sloppy)), "batch/job", "shop/db") == NO_PORTS, sloppy
    assert allowed(build(policy("p", "missing", policyTypes=["Ingress"])), "shop/web", "shop/db")
    backwards = {"portRange": {"protocol": "TCP", "start": 9, "end": 8}}
    shut = policy("shut", policyTypes=["Ingress"])
    of = build(admin(ingress=[{"action": "Allow", "from": EVERYONE, "ports": [backwards]}]), shut)
    assert allowed(of, "batch/job", "shop/db") == NO_PORTS
    anywhere = cluster(subject={"pods": {"podSelector": {"matchLabels": {"app": "db"}}}}, ingress=[
        {"action": "Deny", "from": EVERYONE}])  # fmt: skip
    assert allowed(build(anywhere), "batch/job", "shop/db") == NO_PORTS
