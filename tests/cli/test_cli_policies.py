"""The policy commands from the command line's end, on the bundled example and on small changes of it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from pathlib import Path

import pytest

from netsim.cli import main

EXAMPLE = ["-q", "-f", "@example"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_examples_expectations_hold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    code, out, _ = run(capsys, "check", *EXAMPLE, "@expectations", "--junit", str(report))
    assert (code, out.splitlines()[-1]) == (0, "5 expectations, 5 hold, 0 fail")
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("5", "0")


def test_a_failed_expectation_tells_what_disproves_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("expectations:\n- {from: deploy/shop/checkout, to: 'svc/shop/cart:http', expect: allow}\n")
    code, out, _ = run(capsys, "check", *EXAMPLE, str(path))
    assert code == 1
    assert "FAIL" in out
    assert "NetworkPolicy shop/cart-from-web (@example/policies.yaml:" in out
    code, out, _ = run(capsys, "check", *EXAMPLE, str(path), "-o", "json")
    (one,) = json.loads(out)["expectations"]
    assert (one["actual"], one["holds"], one["source"]) == ("deny", False, f"{path}:2")
    assert "no rule allows it" in one["decided_by"][0]


def test_a_bad_expectation_file_lists_every_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("expectations:\n- {from: a, to: b, expect: maybe, port: 0}\n- {from: a, tto: b, expect: deny}\n")
    code, _, err = run(capsys, "check", *EXAMPLE, str(path))
    assert code == 3
    assert f'{path}:2: expectations[0].expect: Unsupported value: "maybe"' in err
    assert "expectations[0].port: Invalid value: 0" in err
    assert f"{path}:3: expectations[1].tto: unknown field" in err
    assert "expectations[1].to: Required value" in err


def test_an_unknown_place_is_named_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("expectations:\n- {from: pod/shop/webb-0, to: external, expect: deny}\n")
    code, _, err = run(capsys, "check", *EXAMPLE, str(path))
    assert code == 3
    assert f"{path}:2" in err
    assert "pod/shop/web-0" in err, "the nearest name is suggested"


def test_reach_formats_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    part = [*EXAMPLE, "--from", "namespace/shop", "--to", "namespace/data"]
    code, out, _ = run(capsys, "reach", *part, "-o", "json")
    document = json.loads(out)
    assert (code, document["kind"]) == (0, "Reachability")
    allowed = {(e["from"], e["to"], e["protocol"], *e["ports"]) for e in document["allowed"]}
    assert ("Deployment shop/checkout", "StatefulSet data/postgres", "TCP", "5432") in allowed
    assert not any(e["from"] == "Deployment shop/frontend" for e in document["allowed"])
    _, out, _ = run(capsys, "reach", *part, "-o", "csv")
    assert len(out.splitlines()) == 1 + len(document["allowed"])
    for form in ("text", "md", "dot", "html"):
        code, out, _ = run(capsys, "reach", *part, "-o", form)
        assert code == 0
        assert "postgres" in out
    _, out, _ = run(capsys, "reach", *part, "--port", "80", "-o", "json")
    assert json.loads(out)["allowed"] == []


def test_explain_names_the_rule_and_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "explain", *EXAMPLE, "deploy/shop/frontend", "pod/data/postgres-0", "--port", "5432")
    assert code == 0
    assert "DENIED" in out.splitlines()[-1]
    assert 'has app="frontend", not "cart" or "checkout"' in out
    _, out, _ = run(capsys, "explain", *EXAMPLE, "deploy/shop/frontend", "pod/data/postgres-0", "-o", "json")
    document = json.loads(out)
    assert (document["kind"], document["allowed"]) == ("Explanation", [])


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """The example with the cart opened to checkout."""
    for item in files("netsim").joinpath("data", "example").iterdir():
        if item.name.endswith(".yaml"):
            (tmp_path / item.name).write_text(item.read_text())
    path = tmp_path / "policies.yaml"
    path.write_text(path.read_text().replace("values: [web, frontend]", "values: [web, frontend, checkout]"))
    return tmp_path


def test_diff_names_the_change_and_its_cause(capsys: pytest.CaptureFixture[str], changed: Path) -> None:
    code, out, _ = run(capsys, "diff", "-q", "@example", str(changed))
    assert code == 1
    lines = out.splitlines()
    at = lines.index("  Deployment shop/checkout")
    assert "because NetworkPolicy shop/cart-from-web changed" in lines[at - 1]
    assert lines[at + 1] == "    + TCP:8080 -> Deployment shop/cart"
    assert lines[-1] == "1 connection added"
    _, out, _ = run(capsys, "diff", "-q", str(changed), "@example", "-o", "json")
    (change,) = json.loads(out)["changes"]
    assert (change["change"], change["removed"]) == ("removed", [{"protocol": "TCP", "ports": ["8080"]}])
    _, out, _ = run(capsys, "diff", "-q", "@example", str(changed), "-o", "md")
    assert "| Deployment shop/checkout | Deployment shop/cart | TCP:8080 |" in out


def test_nothing_differs_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "diff", "-q", "@example", "@example")[:2] == (0, "no connection changes\n")


def test_lint_finds_what_cannot_be_meant(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: nobody, namespace: shop}\n"
        "spec:\n  podSelector: {matchLabels: {app: typo}}\n  ingress: [{from: [{podSelector: {matchLabels: {a: b}}}]}]\n"
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: named, namespace: shop}\n"
        "spec:\n  podSelector: {matchLabels: {app: cart}}\n  ingress: [{ports: [{port: gone}]}]\n"
    )
    code, out, _ = run(capsys, "lint", *EXAMPLE, "-f", str(path), "-o", "json")
    assert code == 1
    found = {(f["code"], f["object"], f["source"]) for f in json.loads(out)["findings"]}
    assert ("NP001", "NetworkPolicy shop/nobody", f"{path}:1") in found
    assert ("NP002", "NetworkPolicy shop/nobody", f"{path}:1") in found
    assert ("NP005", "NetworkPolicy shop/named", f"{path}:8") in found
    _, out, _ = run(capsys, "lint", *EXAMPLE, "-f", str(path), "-o", "sarif")
    results = json.loads(out)["runs"][0]["results"]
    assert {r["ruleId"] for r in results} >= {"NP001", "NP002", "NP005"}
    assert all(r["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1 for r in results)
    assert run(capsys, "lint", *EXAMPLE, "-f", str(path), "--fail-on", "never")[0] == 0


def test_the_heat_map_stands_alone_and_escapes_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "reach", *EXAMPLE, "-o", "html")
    assert code == 0
    assert not re.search(r"https?:|<script|<link|<img|src=|@import", out)
    head, body = out.split("<tbody>")
    places = re.findall(r"<tr class=p><th>([^<]*)", body)
    assert places == ["data", "kube-system", "monitoring", "shop", "nodes", "outside"]
    columns = re.findall(r"<th[^>]*><span>([^<]+)", head.partition("<tr class=n>")[2])
    assert len(columns) == len(re.findall(r"<tr>", body)), "everybody sends and receives"
    assert "frontend" in columns, "its namespace stands above it"
    assert "Deployment shop/frontend → Deployment shop/cart: TCP:8080" in out
    (tmp_path / "w.yaml").write_text(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: w}\nspec:\n"
        "  {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{name: '<b>&\u001b[2J', action: Deny,\n"
        "  to: [{networks: [203.0.113.0/24]}]}]}\n"
    )
    _, out, _ = run(capsys, "explain", *EXAMPLE, "-f", str(tmp_path / "w.yaml"), "pod/shop/web-0", "203.0.113.9")
    assert "\x1b" not in out, "a rule's name cannot talk to the terminal"


def test_what_happens_is_another_answer_where_the_network_enforces_none(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "-f", "@example", "@expectations"]
    code, _, err = run(capsys, *words)
    assert (code, err.count("flannel enforces no policy: this is what the 3 policies say")) == (0, 1)
    code, out, err = run(capsys, *words, "--enforcement", "cni")
    assert (code, out.splitlines()[-1]) == (1, "5 expectations, 3 hold, 2 fail")
    assert "flannel enforces no policy: the 3 policies of the input have no effect" in err
    _, _, err = run(capsys, *words, "--cni", "calico")
    assert "enforces no policy" not in err


def test_a_way_that_is_expected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    one = "{{from: pod/shop/web-0, to: pod/shop/web-1, port: 8080, expect: allow, via: [{}]}}"
    for via, code, told in (
        ("flannel.1, node/n3, cni0", 0, ""),
        ("n3, flannel.1, eth0", 1, "a packet goes by n2"),
        ("n1", 1, "but goes another way"),
        ("n9", 3, "via: 'n9' is no node (n1, n2, n3) and no device of any node"),
    ):
        path.write_text(f"expectations:\n- {one.format(via)}\n")
        found, out, err = run(capsys, "check", *EXAMPLE, str(path))
        assert (found, told in out + err) == (code, True), (via, out, err)
    path.write_text(
        "expectations:\n- {from: a, to: b, expect: deny, via: [n1]}\n- {from: a, to: b, expect: allow, via: n1}\n"
    )
    code, _, err = run(capsys, "check", *EXAMPLE, str(path))
    assert code == 3
    assert "expectations[0].via: goes with expect: allow" in err
    assert "expectations[1].via: Invalid value: a list of nodes or devices" in err


def test_services_and_ingress_have_answers_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "reach",
        *EXAMPLE,
        "--services",
        "--to",
        "deploy/shop/cart",
        "--ingress-controller",
        "deploy/shop/frontend",
    ]
    _, out, _ = run(capsys, *words, "-o", "json")
    service, ingress = json.loads(out)["entrances"]
    assert (service["name"], service["address"]) == ("Service shop/cart:http", "10.96.3.7:80")
    assert service["behind"] == "TCP:8080 on Deployment shop/cart"
    reached = {w["sender"] for w in service["from"] if w["reaches"] == "all"}
    assert reached == {"Deployment shop/frontend", "StatefulSet shop/web"}
    assert (ingress["kind"], ingress["address"], ingress["from"][0]["reaches"]) == (
        "ingress",
        "shop.example/cart",
        "all",
    )
    _, out, _ = run(capsys, *words, "-o", "csv")
    assert len(out.splitlines()) == 1 + len(service["from"]) + len(ingress["from"])
    assert run(capsys, *words, "-o", "dot")[0] == 2
    _, out, _ = run(capsys, "explain", *EXAMPLE, "deploy/shop/frontend", "svc/shop/cart:http", "-o", "json")
    first = json.loads(out)["items"][0]
    assert first["through"] == {"service": "shop/cart", "protocol": "TCP", "port": 8080}


def test_reports_are_what_their_readers_require(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, report = tmp_path / "e.yaml", tmp_path / "junit.xml"
    path.write_text('expectations:\n- {name: "<a> & \\u001b[1m", from: external, to: pod/shop/web-0, expect: deny}\n')
    run(capsys, "check", *EXAMPLE, str(path), "--junit", str(report))
    suite = ElementTree.parse(report).getroot()
    assert [case.get("name") for case in suite.iter("testcase")] == ["<a> & \\x1b[1m"]
    assert suite.find("testcase/failure") is not None
    _, out, _ = run(capsys, "lint", *EXAMPLE, "-o", "sarif")
    document = json.loads(out)
    (one,) = document["runs"]
    known = {rule["id"] for rule in one["tool"]["driver"]["rules"]}
    assert document["version"] == "2.1.0"
    assert one["tool"]["driver"]["name"] == "netsim"
    for result in one["results"]:
        assert result["ruleId"] in known
        assert result["message"]["text"]
        assert result["level"] in ("error", "warning", "note")
        for location in result["locations"]:
            assert not re.search(r"[ \\]", location["physicalLocation"]["artifactLocation"]["uri"])
