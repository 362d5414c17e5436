"""The lab's outermost namespaces, and the way into them.

One ``unshare`` per lab: a mount, a network and a pid namespace (and a user namespace for those who are not root). Its
process 1 only waits. The network namespaces of nodes and pods are bind mounts in a /run of the lab's own; every process
of the lab is in the pid namespace: when process 1 ends, the kernel ends and removes all of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from netsim.errors import NetsimError, PrivilegeError
from netsim.lab.state import STOP_AT, Holder, Lab

NETNS = "/run/netns"
_USER, _MOUNT, _NET, _PID = 0x10000000, 0x00020000, 0x40000000, 0x20000000

_NEEDED = 1 << 12 | 1 << 13 | 1 << 21  # CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN

# $1 is the lab's folder; if that is gone, somebody has taken the lab down meanwhile.
_OUTER = """
start=$(cut -d ' ' -f 22 /proc/$$/stat) && echo "$$ $start" > "$1/holder" || exit 1
folder=$1; shift
exec unshare "$@" --mount --net --pid --fork --kill-child --mount-proc sh -c "$INNER" netsim-lab "$folder"
"""
_INNER = """
mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/netns && ip link set lo up && touch "$1/held" || exit 1
trap '' CHLD
exec sleep infinity
"""


def own_user() -> list[str]:
    """unshare's words for a user namespace, where this process has not the privileges itself."""
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return [] if int(held.split()[1], 16) & _NEEDED == _NEEDED else ["--user", "--map-root-user"]


def start(lab: Lab) -> Holder:
    """PrivilegeError if the machine does not let us."""
    with (lab.folder / "holder.log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", _OUTER, "netsim-lab", str(lab.folder), *own_user()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "INNER": _INNER, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        )
    end = time.monotonic() + 20
    while not (lab.folder / "held").exists():
        if process.poll() is not None or time.monotonic() > end:
            said = (lab.folder / "holder.log").read_text().strip() or "no answer"
            raise PrivilegeError(
                f"this machine does not let netsim make namespaces ({said}); run it as root, or allow user namespaces "
                "(sysctl kernel.unprivileged_userns_clone=1); `netsim lab doctor` tells more"
            )
        time.sleep(0.005)
    process.returncode = 0  # it outlives us: nobody here waits for it
    held = lab.holder()
    assert held is not None
    return held


def enter(held: Holder) -> None:
    """Move this (single-threaded) process into the lab; children it starts are in the lab's pid namespace too."""
    inside = held.inside
    if inside is None:
        raise NetsimError("the lab is not running: its holder has ended; `netsim lab down` clears what is left")
    kinds = [("mnt", _MOUNT), ("net", _NET), ("pid", _PID)]
    if os.readlink(f"/proc/{inside}/ns/user") != os.readlink("/proc/self/ns/user"):
        kinds.insert(0, ("user", _USER))
    opened = [(os.open(f"/proc/{inside}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in kinds]
    for descriptor, kind in opened:
        _setns(descriptor, kind)
        os.close(descriptor)
    if kinds[0][0] == "user":
        os.setgid(0)
        os.setuid(0)
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    _die_with_parent()


def _die_with_parent() -> None:
    _libc().prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _setns(descriptor: int, kind: int) -> None:
    if _libc().setns(descriptor, kind):
        raise PrivilegeError(f"cannot enter the lab's namespaces: {os.strerror(ctypes.get_errno())}")


@contextmanager
def within(name: str) -> Iterator[None]:
    """Be in one of the lab's network namespaces for a while. Sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"{NETNS}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(there, _NET)
        try:
            yield
        finally:
            _setns(home, _NET)
    finally:
        os.close(there)
        os.close(home)


def in_lab(held: Holder, work: Callable[[], int]) -> int:
    """Run ``work`` in a child process inside the lab; its exit code. Errors of netsim's come back as themselves."""
    from netsim.errors import DisagreementError

    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.close(reading)
            enter(held)
            code = _as_member(work, writing)
        except NetsimError as error:
            code = error.exit_code
            os.write(writing, str(error).encode()[:60000])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if said:
        kinds: dict[int, type[NetsimError]] = {4: PrivilegeError, 5: DisagreementError}
        raise kinds.get(code, NetsimError)(said)
    if code < 0:
        raise NetsimError(f"the lab's worker was ended by signal {-code}")
    return code


def _as_member(work: Callable[[], int], writing: int) -> int:
    """A pid namespace takes in only children: one more of them does the work, so that /proc/self is its own."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            _die_with_parent()
            code = work()
        except NetsimError as error:
            code = error.exit_code
            os.write(writing, str(error).encode()[:60000])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGKILL and STOP_AT in os.environ:  # fault injection means the command, not only its worker
        os.kill(os.getppid(), signal.SIGKILL)
    return code if code >= 0 else 70


def command(held: Holder, name: str, words: list[str]) -> list[str]:
    """The command line that runs ``words`` in a namespace of the lab."""
    inside = held.inside
    if inside is None:
        raise NetsimError("the lab is not running: its holder has ended; `netsim lab down` clears what is left")
    other_user = os.readlink(f"/proc/{inside}/ns/user") != os.readlink("/proc/self/ns/user")
    user = ["--user", "--preserve-credentials"] if other_user else []
    return [
        "nsenter",
        f"--target={inside}",
        *user,
        "--mount",
        "--net",
        "--pid",
        "--",
        "ip",
        "netns",
        "exec",
        name,
        *words,
    ]
