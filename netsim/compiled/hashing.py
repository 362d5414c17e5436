"""Hashes of 32-bit numbers, made of products that fit in 64 bits: the same in numba, on NumPy arrays and in plain Python.

``fold`` is for tables; ``draw`` is for random numbers, and mixes better.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled.jit import inner, kernel

U = np.uint64
_LOW = U(0xFFFFFFFF)
_FOLD = U(0x9E3779B1)
_A, _B = U(0x85EBCA6B), U(0xC2B2AE35)
_ONE, _13, _16, _29, _32 = U(1), U(13), U(16), U(29), U(32)
_SERIAL, _NUMBER, _AGAIN = U(0x9E3779B9), U(0x7F4A7C15), U(0x632BE5AB)
START = U(0x2545F491)  # what a hash begins with


def fold_array(held: Any, value: Any) -> Any:
    """``fold`` for arrays of uint64."""
    product = ((held ^ value) + _ONE) * _FOLD
    return (product ^ (product >> _29)) & _LOW


fold = inner(fold_array)
"""(hash, value) → hash; all 32-bit numbers in uint64."""


@inner
def _mix(value: Any) -> Any:
    """The finaliser of MurmurHash3 (32 bits): each bit of the input changes each bit of the output half of the time."""
    value ^= value >> _16
    value = (value * _A) & _LOW
    value ^= value >> _13
    value = (value * _B) & _LOW
    return value ^ (value >> _16)


@kernel
def draw(seed: Any, serial: Any, number: Any) -> Any:
    """64 random bits, a function of the seed (64 bits), the packet's serial number and the number of its draw."""
    base = _mix((seed & _LOW) ^ _mix(serial ^ _SERIAL))
    base = _mix(base ^ (seed >> _32) ^ _mix(number ^ _NUMBER))
    return (base << _32) | _mix(base ^ _mix(serial ^ _AGAIN) ^ number)
