"""A replay packet by packet: as pcapng (the packets as received, verdicts as comments) or Parquet (one row each)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, BinaryIO, Final

import numpy as np

from netsim.datapath.columns import IPV6
from netsim.datapath.readdress import readdressed
from netsim.datapath.replay import Engine, Part
from netsim.errors import UsageError
from netsim.interpreter.outcome import Disposition
from netsim.packet.codec import to_bytes
from netsim.packet.pcapng import LINK_RAW, PcapngWriter

_DISPOSITIONS: Final = tuple(Disposition)
_HOW: Final = ("fast", "slow", "interpreter")
_SCHEMA: Final = {
    "packet": "int64", "time": "time", "answer": "bool",
    "src": "text", "dst": "text", "sport": "uint16", "dport": "uint16", "proto": "uint8", "length": "uint16",
    "verdict": "text", "receiver": "text",
    "received_src": "text", "received_dst": "text", "received_sport": "uint16", "received_dport": "uint16", "ttl": "uint8",
    "rules": "uint32", "how": "text",
}  # fmt: skip
_ROWS = 65536  # of a row group


class PcapngResults:
    """One interface for each receiver, and one for packets that did not arrive; times as captured."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = PcapngWriter(file)
        self._interfaces: dict[str, int] = {}

    def add(self, part: Part, engine: Engine) -> None:
        batch, result = part.batch, part.result
        for number in range(len(batch)):
            verdict = _DISPOSITIONS[int(result.verdict[number])]
            receiver = engine.namespace_name(int(result.receiver[number])) or "did not arrive"
            told = readdressed(batch.packet(number), result, number, batch.addresses, int(result.ttl[number]))
            sent = "answer" if part.answers[number] else "sent"
            words = f"packet {part.numbers[number]}, {sent}: {verdict.value}, {result.rules[number]} rules evaluated"
            self._writer.packet(self._interface(receiver), to_bytes(told), int(part.times[number]), words)

    def close(self) -> None:
        """Nothing is outstanding: every packet was written when it was added."""

    def _interface(self, name: str) -> int:
        if name not in self._interfaces:
            self._interfaces[name] = self._writer.add_interface(name, LINK_RAW)
        return self._interfaces[name]


class ParquetResults:
    """Columns: ``packet`` (number in the capture), ``time`` (ns), ``answer``; ``src dst sport dport proto length`` as sent;
    ``verdict``, ``receiver``, ``received_src received_dst received_sport received_dport ttl`` as received (or as it was when
    it died); ``rules`` evaluated and ``how`` it was run. Names and addresses are text, dictionary-encoded.

    UsageError without pyarrow."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._arrow: Any = import_module("pyarrow")
            parquet: Any = import_module("pyarrow.parquet")
        except ImportError:
            raise UsageError("--parquet needs pyarrow: pip install 'kube-netsim[parquet]'") from None
        self._schema = self._arrow.schema([(name, self._type(kind)) for name, kind in _SCHEMA.items()])
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, part: Part, engine: Engine) -> None:
        batch, result = part.batch, part.result
        six = (batch.flags & IPV6) != 0

        def addresses(column: Any) -> Any:
            known, back = np.unique(column.astype(np.int64) << 1 | six, return_inverse=True)
            texts = [str(engine.addresses.address(one >> 1, 6 if one & 1 else 4)) for one in known.tolist()]
            return self._words(texts, back)

        receivers, back = np.unique(result.receiver, return_inverse=True)
        columns = {
            "packet": part.numbers,
            "time": part.times,
            "answer": part.answers,
            "src": addresses(batch.src),
            "dst": addresses(batch.dst),
            "sport": batch.sport,
            "dport": batch.dport,
            "proto": batch.proto,
            "length": batch.length,
            "verdict": self._words([end.value for end in _DISPOSITIONS], result.verdict),
            "receiver": self._words([engine.namespace_name(one) or "" for one in receivers.tolist()], back),
            "received_src": addresses(result.src),
            "received_dst": addresses(result.dst),
            "received_sport": result.sport,
            "received_dport": result.dport,
            "ttl": result.ttl,
            "rules": result.rules,
            "how": self._words(list(_HOW), result.how),
        }
        arrays = [self._arrow.array(columns[name]).cast(self._type(kind)) for name, kind in _SCHEMA.items()]
        self._waiting.append(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows += len(batch)
        if self._rows >= _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        """Parts may be of a few packets only: they are written many together."""
        if self._waiting:
            self._writer.write_table(self._arrow.concat_tables(self._waiting).unify_dictionaries())
        self._waiting, self._rows = [], 0

    def _type(self, kind: str) -> Any:
        if kind == "time":
            return self._arrow.timestamp("ns")
        if kind == "text":
            return self._arrow.dictionary(self._arrow.int32(), self._arrow.string())
        return self._arrow.type_for_alias(kind)

    def _words(self, texts: list[str], which: Any) -> Any:
        indices = self._arrow.array(np.asarray(which, np.int32).reshape(-1))
        return self._arrow.DictionaryArray.from_arrays(indices, self._arrow.array(texts, self._arrow.string()))
