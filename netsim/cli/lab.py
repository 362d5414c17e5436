"""``netsim lab``: the cluster's network in real kernel namespaces, and the comparison with the interpreter."""

from __future__ import annotations

import sys
from typing import Any


def add(commands: Any, program: str) -> None:
    from netsim.cli import lab_verify
    from netsim.cli.parser import Parser, input_options, output_options

    lab = commands.add_parser(
        "lab",
        help="the cluster's network in real Linux namespaces, and netsim checked against it",
        description="Build the network of a cluster from network namespaces of a real kernel, use it, compare it.",
        epilog=f"{program} lab VERB --help has examples; {program} lab doctor is where to begin.\n",
    )
    verbs = lab.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    up = verbs.add_parser(
        "up",
        help="build it",
        description="Build the lab of a cluster. It stays until `lab down`.",
        epilog=f"examples:\n  {program} lab up -f @example --id demo\n"
        f"  {program} lab up -f @example --id tunnels --cni flannel:ipip --kernel uml\n",
    )
    _lab_options(up)
    input_options(up)
    up.set_defaults(run=_up)

    down = verbs.add_parser("down", help="remove it", description="Remove labs, whole or half built.")
    down.add_argument("labs", metavar="ID", nargs="*", help="which (the only one there is)")
    down.add_argument("--all", action="store_true", help="every lab of this user")
    output_options(down)
    down.set_defaults(run=_down)

    listed = verbs.add_parser("list", help="what there is", description="List the labs of this user.")
    _format_option(listed)
    output_options(listed)
    listed.set_defaults(run=_list)

    prune = verbs.add_parser("prune", help="remove broken ones", description="Remove labs that are not whole.")
    output_options(prune)
    prune.set_defaults(run=_prune)

    run = verbs.add_parser(
        "exec",
        help="run a command in a pod or node",
        description="Run a command in one of the lab's namespaces.",
        epilog=f"example:\n  {program} lab exec --id demo pod/shop/web-0 -- ip route\n",
    )
    run.add_argument("place", metavar="PLACE", help="pod/NS/NAME, node/NAME, router/underlay or external")
    run.add_argument("words", metavar="COMMAND", nargs="+", help="after --")
    run.add_argument("--id", metavar="ID", help="the lab (the only one there is)")
    output_options(run)
    run.set_defaults(run=_exec)

    verify = verbs.add_parser(
        "verify",
        help="compare the kernel with netsim",
        description="Send packets of every path class through a lab and compare what the kernel does\n"
        "with what netsim says. Exit 5 when they disagree.",
        epilog=f"examples:\n  {program} lab verify -f @example\n"
        f"  {program} lab verify -f @example --cni flannel:host-gw -o json\n",
    )
    _lab_options(verify)
    lab_verify.add_options(verify)
    input_options(verify)
    verify.set_defaults(run=_verify)

    doctor = verbs.add_parser(
        "doctor", help="what this machine can do", description="Try what a lab needs; say what is missing."
    )
    _format_option(doctor)
    output_options(doctor)
    doctor.set_defaults(run=_doctor)


def _format_option(parser: Any) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(text)")


def _lab_options(parser: Any) -> None:
    parser.add_argument("--id", metavar="ID", help="the lab's name")
    parser.add_argument(
        "--kernel",
        choices=["host", "uml"],
        help="this machine's, or user-mode Linux (the machine's, unless it lacks what the network needs)",
    )
    parser.add_argument("--force", action="store_true", help="build it however many namespaces it has")


def _prepared(options: Any) -> Any:
    """The cluster, its network as the lab builds it, and the kernel to build it in."""
    from netsim.cli import inputs
    from netsim.lab import kernels
    from netsim.lab.build import for_lab, names_of
    from netsim.lab.plan import plan

    made = inputs.assembled(options)
    network, notes = for_lab(made)
    kernel, why = (options.kernel, "") if options.kernel else kernels.choose(plan(network, names_of(made)))
    for note in filter(None, (*notes, why)):
        inputs.talk(options).note(note)
    return made, network, kernel


def _up(options: Any) -> int:
    from netsim.cli import inputs
    from netsim.lab import build, state
    from netsim.lab.listeners import has_sctp

    made, network, kernel = _prepared(options)
    if kernel == state.HOST and build.speaks_sctp(made) and not has_sctp():
        inputs.talk(options).note("this machine's kernel has no SCTP: a raw socket answers for SCTP listeners")
    lab = build.up(made, network, state.check_id(options.id or "lab"), force=options.force, kernel=kernel)
    sys.stdout.write(f"lab {lab.id} is up: {len(build.names_of(made)) + 1} namespaces\n")
    return 0


def _chosen(name: str | None) -> Any:
    from netsim.errors import UsageError
    from netsim.lab import state

    if name is not None:
        return state.find(name)
    there = state.labs()
    if len(there) != 1:
        raise UsageError(
            "there is no lab: `netsim lab up` builds one" if not there else "several labs: give the id of one"
        )
    return there[0]


def _down(options: Any) -> int:
    from netsim.errors import UsageError
    from netsim.lab import state

    if options.labs and options.all:
        raise UsageError("--all or names, not both")
    for lab in state.leftovers():
        state.down(lab)
    there = state.labs()
    if options.labs:
        wanted = set(map(state.check_id, options.labs))
        there = [lab for lab in there if lab.id in wanted]
    elif not options.all and len(there) > 1:
        raise UsageError(f"several labs: name them, or --all: {', '.join(lab.id for lab in there)}")
    for lab in there:
        state.down(lab)
        sys.stdout.write(f"lab {lab.id} is down\n")
    return 0


def _state(lab: Any) -> str:
    held = lab.holder()
    if held is None or not held.alive:
        return "ended"
    return "up" if lab.ready else "unfinished"


def _list(options: Any) -> int:
    from netsim.lab import state

    labs = [(lab.id, _state(lab), lab.holder()) for lab in state.labs()]
    rows = [{"id": name, "state": its, "kernel": held and held.kernel} for name, its, held in labs]
    if options.output == "json":
        return _json("Labs", labs=rows)
    for row in rows:
        sys.stdout.write(f"{row['id']:<32}  {row['state']:<10}  {row['kernel'] or ''}".rstrip() + "\n")
    return 0


def _json(kind: str, **held: Any) -> int:
    import json

    document = {"apiVersion": "netsim/v1alpha1", "kind": kind, **held}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0


def _prune(options: Any) -> int:
    from netsim.lab import state

    for lab in [*state.leftovers(), *(one for one in state.labs() if _state(one) != "up")]:
        state.down(lab)
        sys.stdout.write(f"removed {lab.id}\n")
    for stray in state.strays():
        state.end(stray)
        sys.stdout.write(f"removed {stray.folder.name}, whose folder was gone\n")
    return 0


def _exec(options: Any) -> int:
    from netsim.cli.places import missing
    from netsim.errors import NetsimError, UsageError
    from netsim.lab import holder
    from netsim.lab.plan import netns

    lab = _chosen(options.id)
    held = lab.holder()
    if held is None:
        raise NetsimError("the lab is not running; `netsim lab prune` clears what is left")
    if not lab.ready:
        raise NetsimError(f"lab {lab.id} is not whole; `netsim lab prune` removes it")
    if options.place not in lab.places:
        raise UsageError(missing(options.place, options.place, lab.places, f"is not in lab {lab.id}"))
    return holder.run(held, netns(options.place), options.words)


def _verify(options: Any) -> int:
    import os
    from functools import partial

    from netsim.cli import lab_verify
    from netsim.lab import build, holder, state

    made, network, kernel = _prepared(options)
    wanted = lab_verify.asked(made, network, options)
    name = state.check_id(options.id or f"verify-{os.getpid()}")
    lab = build.up(made, network, name, force=options.force, kernel=kernel, listening=False)
    try:
        held = lab.holder()
        assert held is not None
        recorded = lab.folder / "recorded"
        code = holder.in_lab(held, partial(lab_verify.compare, made, network, wanted, options, recorded))
        lab_verify.keep(recorded, options)
        return code
    finally:
        state.down(lab)


def _doctor(options: Any) -> int:
    from netsim.errors import NetsimError
    from netsim.lab import doctor, uml
    from netsim.lab.kernels import EVERYTHING

    sections: list[dict[str, Any]] = []

    def told(heading: str, findings: Any, why: str | None = None) -> int:
        findings = list(findings)
        sections.append({"of": heading, "findings": list(map(vars, findings)), **({"missing": why} if why else {})})
        if options.output == "text":
            sys.stdout.write(f"{heading}\n" + (f"no   {why}\n" if why else ""))
            for found in findings:
                sys.stdout.write(f"{'ok ' if found.good else 'no '}  {found.name:<20} {found.text}\n")
            sys.stdout.flush()
        return sum(not found.good and found.needed == EVERYTHING for found in findings)

    bad = told("tools", doctor.tools()) + told(*doctor.host())
    if packages := uml.missing():
        told("user-mode Linux", (), f"not installed: apt-get install {' '.join(packages)}")
    else:
        try:
            told(*doctor.user_mode())
        except NetsimError as error:
            told("user-mode Linux", (), str(error))
    if options.output == "json":
        _json("Doctor", sections=sections)
    return 4 if bad else 0
