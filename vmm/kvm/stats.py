# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's binary statistics (KVM_GET_STATS_FD, Linux 5.14): a mapping of names to numbers, read with pread.

The layout (header, descriptors, data) is Documentation/virt/kvm/api.rst 4.133. Reading never stops a running vCPU.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

from vmm.base.record import Record
from vmm.errors import HostError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.handle import Handle

KINDS = {
    lib.KVM_STATS_TYPE_CUMULATIVE: "cumulative",
    lib.KVM_STATS_TYPE_INSTANT: "instant",
    lib.KVM_STATS_TYPE_PEAK: "peak",
    lib.KVM_STATS_TYPE_LINEAR_HIST: "linear histogram",
    lib.KVM_STATS_TYPE_LOG_HIST: "log histogram",
}
UNITS = {
    lib.KVM_STATS_UNIT_NONE: "",
    lib.KVM_STATS_UNIT_BYTES: "bytes",
    lib.KVM_STATS_UNIT_SECONDS: "seconds",
    lib.KVM_STATS_UNIT_CYCLES: "cycles",
    lib.KVM_STATS_UNIT_BOOLEAN: "boolean",
}

_SECONDS = {0: "s", -3: "ms", -6: "us", -9: "ns"}
_BYTES = {0: "bytes", 10: "KiB", 20: "MiB"}


class StatDescriptor(Record):
    """One statistic: a value times base ** exponent `unit`; `size` values of 64 bits at `offset` in the data."""

    name: str
    kind: str
    unit: str
    base: int
    exponent: int
    size: int
    offset: int
    bucket_size: int

    @property
    def label(self) -> str:
        """The unit as one writes it: `ns` for 10 ** -9 seconds, `KiB`, `bytes`; empty for a plain count."""
        if self.unit == "seconds" and self.base == 10:
            return _SECONDS.get(self.exponent, f"10^{self.exponent} s")
        if self.unit == "bytes" and self.base == 2:
            return _BYTES.get(self.exponent, f"2^{self.exponent} bytes")
        scale = f"{self.base}^{self.exponent} " if self.exponent else ""
        return (scale + self.unit).strip()


class Stats(Handle, Mapping[str, int]):
    """`stats["halt_exits"]` reads now; iterating gives the names. Histograms are read with `values_of`."""

    what = "the statistics"

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        try:
            self._read_layout()
        except BaseException:
            self.close()
            raise

    def _read_layout(self) -> None:
        header = ffi.new("struct kvm_stats_header *")
        ffi.memmove(
            header, self._pread(ffi.sizeof("struct kvm_stats_header"), 0), ffi.sizeof("struct kvm_stats_header")
        )
        self.id = self._pread(header.name_size, header.id_offset).split(b"\0")[0].decode()
        self._data = header.data_offset
        fixed = ffi.sizeof("struct kvm_stats_desc")
        step = fixed + header.name_size
        raw = self._pread(step * header.num_desc, header.desc_offset)
        self.descriptors: dict[str, StatDescriptor] = {}
        one = ffi.new("struct kvm_stats_desc *")
        for start in range(0, len(raw), step):
            ffi.memmove(one, raw[start : start + fixed], fixed)
            name = raw[start + fixed : start + step].split(b"\0")[0].decode()
            self.descriptors[name] = StatDescriptor(
                name,
                KINDS.get(one.flags & lib.KVM_STATS_TYPE_MASK, "unknown"),
                UNITS.get(one.flags & lib.KVM_STATS_UNIT_MASK, "unknown"),
                2 if one.flags & lib.KVM_STATS_BASE_MASK == lib.KVM_STATS_BASE_POW2 else 10,
                one.exponent,
                one.size,
                one.offset,
                one.bucket_size,
            )

    def _pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self.fd, size, offset)
        if len(data) != size:
            raise HostError(f"reading {self.what}: {len(data)} of {size} bytes at {offset}")
        return data

    def place_of(self, name: str) -> int:
        """Where the first value of one statistic lies in the file, in bytes. KeyError as `values_of`."""
        place: int = self._data + self.descriptors[name].offset
        return place

    def values_of(self, name: str) -> tuple[int, ...]:
        """All values of one statistic: one for a counter, `size` for a histogram.

        Raises:
            KeyError: this kernel has no statistic of that name.
        """
        row = self.descriptors[name]
        return struct.unpack(f"<{row.size}Q", self._pread(8 * row.size, self._data + row.offset))

    def __getitem__(self, name: str) -> int:
        return self.values_of(name)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.descriptors)

    def __len__(self) -> int:
        return len(self.descriptors)

    def rise(self, before: Mapping[str, int]) -> dict[str, int]:
        """What has changed since that `snapshot`: by how much for a cumulative one, the value now for any other."""
        now = self.snapshot()
        return {
            name: value - before[name] if self.descriptors[name].kind == "cumulative" else value
            for name, value in now.items()
            if value != before.get(name, 0) and name in before
        }

    def snapshot(self) -> dict[str, int]:
        """Every single-valued statistic at one moment (one read)."""
        end = max((row.offset + 8 * row.size for row in self.descriptors.values()), default=0)
        data = self._pread(end, self._data)
        return {
            row.name: struct.unpack_from("<Q", data, row.offset)[0]
            for row in self.descriptors.values()
            if row.size == 1
        }
