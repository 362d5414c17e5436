"""How work gets into user-mode Linux and back: its process 1, tried as an ordinary process of this kernel."""

from __future__ import annotations

import fcntl
import os
import pickle
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from netsim.errors import NetsimError, PrivilegeError
from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.lab import build, uml
from netsim.lab.build import tool
from netsim.lab.handover import dumps
from netsim.topology.assemble import assemble


class Guest:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        words = [sys.executable, "-m", "netsim.lab.uml_guest", str(folder)]
        self.process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    def alive(self) -> bool:
        return self.process.poll() is None

    def call(self, work: Any) -> int:
        return uml.call(self.folder, self.alive, work)

    def run(self, *words: str) -> int:
        return uml.run(self.folder, self.alive, list(words))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    (tmp_path / "jobs").mkdir()
    made = Guest(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


def test_work_comes_back_with_its_code_and_its_words(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    assert guest.call(partial(subprocess.call, ["sh", "-c", "echo hello; echo oh >&2; exit 3"])) == 3
    said = capfd.readouterr()
    assert (said.out, said.err) == ("hello\n", "oh\n")
    assert list((guest.folder / "jobs").iterdir()) == []


def test_errors_of_netsims_come_back_as_themselves(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PrivilegeError, match=r"false: exit 1; `netsim lab doctor`"):
        guest.call(partial(tool, ["false"]))
    assert guest.call(partial(int, "no number")) == 70
    assert "ValueError: invalid literal" in capfd.readouterr().err
    with pytest.raises(NetsimError, match="cannot be handed over to another process"):
        guest.call(lambda: 0)


def test_a_command_has_our_streams(guest: Guest, capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    text = "".join(f"line {number}\n" for number in range(30000))
    feeder = subprocess.Popen(["seq", "-f", "line %.0f", "0", "29999"], stdout=writing)
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        assert guest.run("sh", "-c", "cat; echo end >&2; kill -9 $$") == 128 + 9
    finally:
        os.dup2(kept, 0)
        for descriptor in (kept, reading):
            os.close(descriptor)
        feeder.wait()
    said = capfd.readouterr()
    assert said.out == text
    assert said.err == "end\n"
    assert guest.run("no-such-command-anywhere") == 127
    assert "no-such-command-anywhere" in capfd.readouterr().err


_TALK = """
import sys
from pathlib import Path
from netsim.lab import uml
sys.exit(uml.run(Path(sys.argv[1]), lambda: True, ["sh", "-c", "stty size; read x; echo got $x; tty >/dev/null && exit 5"]))
"""


def test_a_terminal_is_passed_on(guest: Guest) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.execv(sys.executable, [sys.executable, "-c", _TALK, str(guest.folder)])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    said = b""
    while b"33 77" not in said:
        said += os.read(terminal, 999)
    os.write(terminal, b"word\r")
    with suppress(OSError):  # the other side is closed
        while data := os.read(terminal, 999):
            said += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert b"got word" in said


def test_the_end_of_the_guest_is_told(guest: Guest) -> None:
    with pytest.raises(NetsimError, match="has ended under the lab"):
        guest.call(partial(os.kill, guest.process.pid, 9))


def test_what_is_no_longer_wanted_is_ended(guest: Guest) -> None:
    """The caller is interrupted: the job goes too."""
    asked = iter([True, True, True, True, True])
    with pytest.raises(NetsimError):
        uml.call(guest.folder, lambda: next(asked, False), partial(subprocess.call, ["sleep", "300"]))
    (job,) = (guest.folder / "jobs").iterdir()
    while not (job / "code").exists():
        assert guest.alive()
    assert (job / "code").read_text() == "-9"


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "_MODULES", str(tmp_path / "none"))
    with pytest.raises(PrivilegeError, match="apt-get install user-mode-linux"):
        uml.prepare(tmp_path)
    assert uml.version() == ""


def test_the_first_process_is_told_every_path_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "missing", list)
    folder = tmp_path / "it's a lab; true"
    folder.mkdir()
    uml.prepare(folder)
    checked = subprocess.run(["sh", "-n", str(folder / "init")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert """it'"'"'s a lab; true""" in (folder / "init").read_text()


@pytest.mark.parametrize(
    "cni", ["flannel:vxlan", "flannel:ipip", "flannel:host-gw", "flannel:udp", "bridge", "ptp", "flat"]
)
def test_a_network_is_the_same_after_its_way_into_the_guest(cni: str) -> None:
    objects = load(["@example"], recursive=False, lenient=False, namespace=None, stdin=None)
    made = assemble(store(objects), Settings(cni=cni))
    network, _ = build.for_lab(made)
    names = build.names_of(made)
    held = {name: network.namespace(name) for name in names[:2]}  # with something in its caches
    there_made, there = pickle.loads(dumps((made, network)))
    assert build.names_of(there_made) == names
    for name in names:
        assert there.namespace(name) == (held.get(name) or network.namespace(name))
