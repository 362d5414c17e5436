"""The corpus of bad inputs: every file is refused, or accepted with a note, as ``cases.toml`` says; nothing crashes."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import pytest

from netsim.errors import InputError
from netsim.kube.load import load

CORPUS = Path(__file__).parent.parent / "bad_input"
CASES = tomllib.loads((CORPUS / "cases.toml").read_text())
POD = b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"},"spec":{"containers":[{"name":"c","image":"i"}]}}'


def outcome(paths: list[str], stdin: bytes = b"") -> tuple[int, str]:
    loaded = load(paths, stdin=io.BytesIO(stdin), lenient=True)
    assert all(problem.source and problem.source.file for problem in loaded.refused)
    if loaded.refused:
        error = InputError(loaded.refused)
        return error.exit_code, str(error)
    return 0, "\n".join(loaded.notes)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", CASES)
def test_corpus(name: str) -> None:
    exit_code, message = outcome([str(CORPUS / name)])
    assert (exit_code, CASES[name]["message"] in message) == (CASES[name]["exit"], True), message


def test_every_file_is_a_case() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {*CASES, "cases.toml"}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (b"[" * 40_000, "nest"),
        (b"{a: " * 40_000, "error converting JSON"),
        (b"a: " + b"{a: " * 40_000, "nest"),
        (b"- " * 40_000 + b"x", "nested deeper than 100 levels"),
        (b'{"a":' * 40_000, "error converting JSON"),
        (b'{"a":' + b"[" * 40_000 + b"]" * 40_000 + b"}", "error converting JSON"),
        (b"a: " + b"x" * 20_000_000, "apiVersion not set"),
        (b'{"kind": "' + b"x" * 20_000_000 + b'"}', "apiVersion not set"),
        (b"a: " + b"9" * 1_000_000, "apiVersion not set"),
        (b"kind: Pod\n" + b"\n" * 2_000_000 + b"apiVersion: [", ":200000"),
        (b"&a " * 3, "error converting YAML"),
        (b"@x", "error converting YAML"),
        (b"\x1b[31mred\x07", "error converting YAML"),
    ],
    ids=range(13),
)
def test_hostile_text(text: bytes, fragment: str) -> None:
    exit_code, message = outcome(["-"], text)
    assert exit_code == 3
    assert fragment in message


def test_an_alias_bomb_inside_a_real_object() -> None:
    levels = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    exit_code, message = outcome(["-"], "\n".join(levels).encode())
    assert (exit_code, "excessive aliasing" in message) == (3, True)


def test_aliases_cannot_hide_depth() -> None:
    levels = [f"a{i}: &a{i} {'[' * 60}{f'*a{i - 1}' if i else 'x'}{']' * 60}" for i in range(9)]
    exit_code, message = outcome(["-"], "\n".join(levels).encode())
    assert (exit_code, "nested deeper than 100 levels" in message) == (3, True)


def test_every_prefix_of_a_manifest_is_judged() -> None:
    text = (CORPUS / "port-name-long.yaml").read_bytes()
    for end in range(len(text)):
        assert outcome(["-"], text[:end])[0] in (0, 3)


def test_all_problems_of_an_input_are_told() -> None:
    paths = [str(CORPUS / name) for name in ("no-ports.yaml", "empty.yaml", "truncated.json", "no-image.yaml")]
    with pytest.raises(InputError) as caught:
        load([*paths, "/does/not/exist.yaml"])
    assert len(caught.value.problems) == 4
    assert "no such file" in str(caught.value)


def test_lenient_keeps_what_is_right(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(POD % b"good" + b"\n" + POD % b"BAD")
    loaded = load([str(file)], lenient=True)
    assert [o.name for o in loaded.objects if o.kind == "Pod"] == ["good"]
    assert [(p.object, p.source.line if p.source else 0) for p in loaded.refused] == [('Pod "BAD"', 2)]


def test_a_directory_whose_links_go_round(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a.json").write_bytes(POD % b"a")
    (tmp_path / "ignored.txt").write_text("not for us")
    assert [o.name for o in load([str(tmp_path)], recursive=True).objects if o.kind == "Pod"] == ["a"]
