"""Units: kernels that are compiled once and called through a symbol, like the object files of a C program.

numba links what a kernel calls into the kernel and optimises all of it again, at every level of the call tree: an engine of
a hundred kernels would take minutes to compile. A ``unit`` stands alone: a caller's code holds no more than the name of its
symbol. ``ready`` compiles units, or loads them from the cache, in the order in which they call each other; ``compile_only``
does so in any order, for a process that fills the cache and calls nothing.

A unit takes references (``ref``), arrays and 64-bit integers, and answers with a 64-bit integer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
from llvmlite import binding
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate
from numba.extending import lower_builtin, typeof_impl

from netsim.compiled.jit import bare


class Unit:
    """Callable from Python like the kernel it wraps, if it wraps one."""

    def __init__(self, dispatcher: Any, symbol: str, exact: frozenset[int]) -> None:
        self.dispatcher = dispatcher
        self.exact = exact
        self.symbol = symbol
        self.signature: tuple[Any, ...] | None = None
        self.type = types.Function(_template(self))

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    def compile(self, arguments: tuple[Any, ...]) -> None:
        """Optimised as little as possible: units branch and look up, and were no faster for the eighth of the time that more
        takes; loops over packets are kernels."""
        with _briefly():
            self.dispatcher.compile(arguments)

    def ready(self, arguments: tuple[Any, ...]) -> None:
        """See that the symbol is there. A unit has one signature."""
        if self.signature is not None:
            if self.signature != arguments:
                raise TypeError(f"{self.symbol} takes {self.signature}, not {arguments}")
            return
        self.compile(arguments)
        made = self.dispatcher.overloads[arguments]
        if types.unliteral(made.signature.return_type) != types.int64:
            raise TypeError(f"{self.symbol} answers with {made.signature.return_type}, not int64")
        self.signature = arguments
        binding.add_symbol(self.symbol, made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


def unit(function: Callable[..., Any], exact: Iterable[int] = ()) -> Any:
    """Make a unit of a function, or of a kernel that exists already. Only a unit of a kernel can be called from Python too:
    entry points take a third of the time to compile. ``exact``: places of arguments that are not widened to int64."""
    if numba.config.DISABLE_JIT:
        return function
    dispatcher: Any = function if hasattr(function, "py_func") else bare(function)
    return Unit(dispatcher, f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}", frozenset(exact))


def compile_only(units: Iterable[tuple[Any, tuple[Any, ...]]]) -> None:
    """Fill the cache with these kernels, in any order. What they call is nowhere: nothing of this process may be called."""
    held = list(units)
    for one, arguments in held:
        if isinstance(one, Unit):
            one.signature = arguments
            binding.add_symbol(one.symbol, 1)
    for one, arguments in held:
        one.compile(arguments)


def ready(units: Iterable[tuple[Any, tuple[Any, ...]]], told: Callable[[str], None] | None = None) -> None:
    """Compile or load each unit for its argument types, callees first. ``told`` hears the symbol of each."""
    for one, arguments in units:
        if isinstance(one, Unit) and one.signature is None:
            if told is not None:
                told(one.symbol)
            one.ready(arguments)
        elif not isinstance(one, Unit) and arguments not in one.overloads:
            if told is not None:
                told(f"{one.py_func.__module__}.{one.py_func.__qualname__}")
            one.compile(arguments)


@contextmanager
def _briefly() -> Iterator[None]:
    cpu_target.target_context.codegen()  # it is made for the level that it finds
    level: Any = numba.config.OPT
    numba.config.OPT = type(level)(min(int(level), 1))
    try:
        yield
    finally:
        numba.config.OPT = level


def _wide(kind: Any) -> Any:
    return types.int64 if isinstance(kind, types.Integer | types.Boolean) else kind


def _template(one: Unit) -> type:
    class Template(AbstractTemplate):  # type: ignore[misc]
        key = one

        def generic(self, args: Any, kws: Any) -> Any:
            arguments = tuple([kind if place in one.exact else _wide(kind) for place, kind in enumerate(args)])
            one.ready(arguments)
            return signature(types.int64, *arguments)

    return Template


@typeof_impl.register(Unit)
def _type_of(value: Unit, context: Any) -> Any:
    _lower(value)
    return value.type


_lowered: set[str] = set()


def _lower(one: Unit) -> None:
    if one.symbol in _lowered:
        return
    _lowered.add(one.symbol)

    @lower_builtin(one, types.VarArg(types.Any))  # type: ignore[untyped-decorator]
    def call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(sig.return_type, sig.args)
        function = cgutils.get_or_insert_function(builder.module, kind, one.symbol)
        status, answer = convention.call_function(builder, function, sig.return_type, sig.args, args)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return answer
