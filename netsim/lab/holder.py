"""The lab's outermost namespaces, and the way into them.

One ``unshare`` per lab: a mount, a network and a pid namespace (and a user namespace for those who are not root). Its
process 1 only waits, or runs user-mode Linux and is the way to its kernel. The network namespaces of nodes and pods are bind
mounts in a /run of the lab's own; every process of the lab is in the pid namespace: when process 1 ends, the kernel ends and
removes all of it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from netsim.errors import NetsimError, PrivilegeError
from netsim.lab import uml
from netsim.lab.handover import dumps
from netsim.lab.state import HOST, MARK, STOP_AT, UML, Holder, Lab

T = TypeVar("T")

NETNS = "/run/netns"
_USER, _MOUNT, _NET, _PID = 0x10000000, 0x00020000, 0x40000000, 0x20000000

_NEEDED = 1 << 12 | 1 << 13 | 1 << 21  # CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN

# $1 is the lab's folder; if that is gone, somebody has taken the lab down meanwhile.
_OUTER = f"""
start=$(cut -d ' ' -f 22 /proc/$$/stat) && echo "$$ $start $KERNEL" > "$1/holder" || exit 1
folder=$1; shift
exec unshare "$@" --mount --net --pid --fork --kill-child --mount-proc sh -c "$INNER" {MARK} "$folder"
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


def start(lab: Lab, kernel: str = HOST) -> Holder:
    """PrivilegeError if the machine does not let us."""
    inner = _INNER
    if kernel == UML:
        uml.prepare(lab.folder)
        inner = uml.INNER
    with (lab.folder / "holder.log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", _OUTER, MARK, str(lab.folder), *own_user()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={
                **os.environ,
                "KERNEL": kernel,
                "INNER": inner,
                "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            },
        )
    end = time.monotonic() + (60 if kernel == UML else 20)
    while not (lab.folder / "held").exists():
        if process.poll() is not None or time.monotonic() > end:
            said = (lab.folder / "holder.log").read_text(errors="replace").strip() or "no answer"
            if kernel == UML:
                raise PrivilegeError(f"user-mode Linux does not start here; what it said last:\n{_last(said)}")
            raise PrivilegeError(
                f"this machine does not let netsim make namespaces ({said}); run it as root, or allow user namespaces "
                "(sysctl kernel.unprivileged_userns_clone=1); `netsim lab doctor` tells more"
            )
        time.sleep(0.005)
    process.returncode = 0  # it outlives us: nobody here waits for it
    held = lab.holder()
    assert held is not None
    return held


def _last(said: str, lines: int = 6) -> str:
    return "\n".join(line for line in said.splitlines()[-lines:])


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
    """Run ``work`` in a child process inside the lab; its exit code. Errors of netsim's come back as themselves.

    Another kernel cannot take in a process: under user-mode Linux ``work`` must be picklable, a ``partial`` of a function of
    a module say."""
    from netsim.errors import DisagreementError

    if held.kernel == UML:
        code = uml.call(held.folder, lambda: held.alive, work)
        _stop_too(code, os.getpid())
        return code
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


def ask(held: Holder, work: Callable[[], T]) -> T:
    """What ``work`` gives inside the lab; it and its result must be picklable. Errors come back as with ``in_lab``."""
    path = held.folder / f"answer-{time.time_ns()}"
    try:
        if code := in_lab(held, partial(_write_answer, path, work)):
            raise NetsimError(f"the lab's worker failed (exit {code}), see above")
        answer: T = pickle.loads(path.read_bytes())
        return answer
    finally:
        path.unlink(missing_ok=True)


def _write_answer(path: Path, work: Callable[[], object]) -> int:
    path.write_bytes(dumps(work()))
    return 0


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
    _stop_too(code, os.getppid())
    return code if code >= 0 else 70


def _stop_too(code: int, pid: int) -> None:
    """Fault injection means the command, not only its worker."""
    if code == -signal.SIGKILL and STOP_AT in os.environ:
        os.kill(pid, signal.SIGKILL)


def run(held: Holder, name: str, words: list[str]) -> int:
    """Run a command in a namespace of the lab, with this process's standard streams. On the host's kernel it takes this
    process's place; its exit code otherwise."""
    inside = held.inside
    if inside is None:
        raise NetsimError("the lab is not running: its holder has ended; `netsim lab down` clears what is left")
    there = ["ip", "netns", "exec", name, *words]
    if held.kernel == UML:
        return uml.run(held.folder, lambda: held.alive, there)
    other_user = os.readlink(f"/proc/{inside}/ns/user") != os.readlink("/proc/self/ns/user")
    user = ["--user", "--preserve-credentials"] if other_user else []
    sys.stdout.flush()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    os.execvp("nsenter", ["nsenter", f"--target={inside}", *user, "--mount", "--net", "--pid", "--", *there])
