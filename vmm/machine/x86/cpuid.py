# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's CPUID as a model: KVM's list of entries, read and edited by feature name. It makes no ioctl.

It starts from what KVM offers (KVM_GET_SUPPORTED_CPUID) and ends as what the VMM exposes (KVM_SET_CPUID2). What the
guest then sees is the guest's to tell. Facts: Documentation/virt/kvm/api.rst 4.46 and 4.20, x86/cpuid.rst.
"""

from __future__ import annotations

from vmm.abi.cpuid import (
    AMD_REPEATED_1_EDX,
    APIC_ID_AT,
    FLAG_SIGNIFCANT_INDEX,
    REGISTERS,
    SIGNATURE,
    SIGNATURE_BASES,
    SIGNATURE_LEAF,
    CpuidEntry,
    CpuidFeature,
    describe,
    find,
    unknown,
)
from vmm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_AMD_VENDORS = ("AuthenticAMD", "HygonGenuine")
# Leaves whose answer depends on ECX, for entries that the model has to make itself.
_INDEXED_LEAVES = frozenset(
    (0x4, 0x7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1D, 0x1E, 0x1F, 0x24, 0x8000001D, 0x80000026)
)


class CpuidModel:
    """Editable CPUID of one vCPU (KVM_SET_CPUID2). Entries keep KVM's order; two models are equal if their entries are.

    `function` is a leaf's number, EAX of CPUID, and `index` that of a subleaf, ECX; registers are "eax" to "edx", of 32
    bits, and `apic_id` has 32 bits too.
    """

    def __init__(self, entries: Iterable[CpuidEntry] = ()) -> None:
        self._entries: list[CpuidEntry] = [_fitting(entry) for entry in entries]
        self.wanted: dict[str, bool] = {}
        """Features that `enable` and `disable` were asked for by name, changed by it or not; the last word counts."""

    def __iter__(self) -> Iterator[CpuidEntry]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return self.entries() == other.entries() if isinstance(other, CpuidModel) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can be edited

    def __repr__(self) -> str:
        return f"CpuidModel({len(self)} entries, vendor {self.vendor!r})"

    def copy(self) -> CpuidModel:
        """A model of its own with the same entries."""
        copy = CpuidModel()
        copy._entries = list(self._entries)  # they have been checked
        copy.wanted = dict(self.wanted)
        return copy

    def entries(self) -> list[CpuidEntry]:
        """The entries, for KVM_SET_CPUID2."""
        return list(self)

    # Whole entries and registers

    def get(self, function: int, index: int = 0) -> CpuidEntry | None:
        """The entry that answers CPUID with EAX=function, ECX=index; None if the list has none.

        A leaf whose entry does not carry KVM_CPUID_FLAG_SIGNIFCANT_INDEX answers for every index, as in KVM.
        """
        for entry in self._entries:
            if entry.function == function and (not entry.indexed or entry.index == index):
                return entry
        return None

    def put(self, entry: CpuidEntry) -> None:
        """Add an entry in place of all that it answers for. UsageError for a value wider than 32 bits."""
        entry = _fitting(entry)
        both_indexed = [entry.indexed and old.indexed and old.index != entry.index for old in self._entries]
        places = [n for n, old in enumerate(self._entries) if old.function == entry.function and not both_indexed[n]]
        if not places:
            self._entries.append(entry)
            return
        self._entries[places[0]] = entry
        for place in reversed(places[1:]):
            del self._entries[place]

    def remove(self, function: int, index: int | None = None) -> None:
        """Take away one entry, or all of a leaf; nothing happens if there is none."""
        self._entries = [old for old in self if old.function != function or index not in (None, old.index)]

    def register(self, function: int, index: int, register: str) -> int:
        """One register's value; 0 where the list has no entry. UsageError for a register that CPUID does not have."""
        entry = self.get(function, index)
        value: int = getattr(entry, _checked(register)) if entry else 0
        return value

    def set_register(self, function: int, index: int, register: str, value: int) -> None:
        """Set one register, in a new entry of zeros if the list has none. UsageError for a bad register or value."""
        register = _checked(register)
        entry = self.get(function, index)
        if entry is None:
            siblings = any(old.function == function and old.indexed for old in self)
            indexed = bool(index or siblings or function in _INDEXED_LEAVES)
            entry = CpuidEntry(function, index, FLAG_SIGNIFCANT_INDEX if indexed else 0)
        self.put(entry._replace(**{register: value}))

    # Features by name

    def has(self, name: str) -> bool:
        """Whether a feature's bit is set. UsageError with the nearest names for one that nobody knows."""
        feature = feature_named(name)
        if feature.is_kvm and self.kvm_base() is None:
            return False
        return bool(self.register(self._leaf_of(feature), feature.index, feature.register) & feature.mask)

    def enable(self, *features: str) -> None:
        """Set features' bits, also where KVM does not offer them: that the guest can use them is the caller's word.

        UsageError for an unknown name (nothing is changed then), and for a feature of KVM without KVM's leaves.
        """
        for feature, leaf in [(row, self._leaf_of(row)) for row in map(feature_named, features)]:
            self._set(feature, leaf, True)
            self.wanted[feature.name] = True

    def disable(self, *features: str) -> None:
        """Clear features' bits. UsageError for an unknown name; nothing is changed then."""
        for feature in [*map(feature_named, features)]:
            if self.has(feature.name):
                self._set(feature, self._leaf_of(feature), False)
            self.wanted[feature.name] = False

    @property
    def vendor(self) -> str:
        """The twelve letters of leaf 0, such as `GenuineIntel`; empty without that leaf."""
        entry = self.get(0)
        if entry is None:
            return ""
        text = b"".join(value.to_bytes(4, "little") for value in (entry.ebx, entry.edx, entry.ecx))
        return text.decode("ascii", "replace").rstrip("\0")

    # KVM's own leaves

    def kvm_base(self) -> int | None:
        """The number of the leaf that holds KVM's signature, found as a guest does it: the first of 0x40000000,
        0x40000100, ...; None without one.
        """
        for base in SIGNATURE_BASES:
            entry = self.get(base)
            if entry and (entry.ebx, entry.ecx, entry.edx) == SIGNATURE:
                return base
        return None

    def kvm_features_leaf(self) -> int | None:
        """The number of the leaf of KVM's feature bits, or None without a signature."""
        base = self.kvm_base()
        return None if base is None else base + 1

    def set_kvm_signature(self, base: int = SIGNATURE_LEAF) -> None:
        """Put KVM's signature at `base`; feature leaves that stood elsewhere move along. UsageError for a bad base."""
        if base not in SIGNATURE_BASES:
            raise UsageError(f"a hypervisor's leaves start at 0x40000000, 0x40000100 ... 0x4000ff00, not at {base:#x}")
        old = self.kvm_base()
        features = self.get(old + 1) if old is not None else None
        if old is not None:
            self.remove_kvm_leaves()
        ebx, ecx, edx = SIGNATURE
        self.put(CpuidEntry(base, eax=base + 1, ebx=ebx, ecx=ecx, edx=edx))
        self.put((features or CpuidEntry(base + 1))._replace(function=base + 1))

    def remove_kvm_leaves(self) -> None:
        """Take away KVM's leaves: the guest finds no KVM. Another hypervisor's leaves stay."""
        base = self.kvm_base()
        if base is not None:
            for leaf in {entry.function for entry in self if base <= entry.function < base + 0x100}:
                self.remove(leaf)

    # Identity of a vCPU

    def set_apic_id(self, apic_id: int) -> None:
        """Write a vCPU's APIC id where CPUID tells it: 1.EBX[31:24] (low 8 bits), EDX of leaves 0xb, 0x1f and
        0x80000026 (AMD's own topology), EAX of 0x8000001e (AMD's extended APIC id).

        Raises:
            UsageError: it does not fit in 32 bits.
        """
        if not 0 <= apic_id <= 0xFFFFFFFF:
            raise UsageError(f"APIC id {apic_id} does not fit in 32 bits")
        self._entries = [
            _with_field(entry, *APIC_ID_AT[entry.function], apic_id) if entry.function in APIC_ID_AT else entry
            for entry in self._entries
        ]

    def of_vcpu(self, apic_id: int) -> tuple[CpuidEntry, ...]:
        """The entries of the vCPU with this APIC id, for KVM_SET_CPUID2; the model stays as it is. Errors as
        `set_apic_id`.
        """
        own = self.copy()
        own.set_apic_id(apic_id)
        return tuple(own._entries)

    # Internals

    def _leaf_of(self, feature: CpuidFeature) -> int:
        leaf = self.kvm_features_leaf() if feature.is_kvm else feature.leaf
        if leaf is None:
            raise UsageError(f"{feature.name} is a bit in KVM's CPUID leaves, and this guest has none")
        return leaf

    def _set(self, feature: CpuidFeature, leaf: int, on: bool) -> None:
        old = self.register(leaf, feature.index, feature.register)
        self.set_register(leaf, feature.index, feature.register, old | feature.mask if on else old & ~feature.mask)
        repeated = (leaf, feature.register) == (1, "edx") and feature.mask & AMD_REPEATED_1_EDX
        if repeated and self.vendor in _AMD_VENDORS and self.get(0x80000001):
            other = self.register(0x80000001, 0, "edx")
            self.set_register(0x80000001, 0, "edx", other | feature.mask if on else other & ~feature.mask)


def feature_named(name: str) -> CpuidFeature:
    """The feature of that name; UsageError with the nearest names if there is none."""
    feature = find(name)
    if feature is None:
        raise UsageError(unknown(name))
    return feature


def diff(before: CpuidModel, after: CpuidModel) -> list[str]:
    """What changed, one line per register: `0x1:ECX -x2apic +monitor`, or numbers where no bit has a name."""
    lines: list[str] = []
    olds = {(entry.function, entry.index): entry for entry in before}
    news = {(entry.function, entry.index): entry for entry in after}
    for function, index in sorted(olds.keys() | news.keys()):
        old, new = olds.get((function, index)), news.get((function, index))
        indexed = any(entry is not None and entry.indexed for entry in (old, new))
        leaf = f"{function:#x}" + (f".{index}" if indexed else "")
        if old is None or new is None:
            lines.append(f"{leaf} {'added' if old is None else 'removed'}")
            continue
        if old.flags != new.flags:
            lines.append(f"{leaf} flags {old.flags:#x} -> {new.flags:#x}")
        lines += _register_lines(leaf, old, new, after)
    return lines


def not_taken(offered: CpuidModel, asked: CpuidModel, got: CpuidModel) -> list[str]:
    """What the editor of `offered` wanted in `asked`, and KVM did not let stand in `got` (KVM_GET_CPUID2): the features
    that were named, and what was changed otherwise. What KVM adjusts beside that is its own affair.
    """
    lines: list[str] = []
    for entry in asked:
        old, new = offered.get(entry.function, entry.index), got.get(entry.function, entry.index)
        function = SIGNATURE_LEAF + 1 if entry.function == asked.kvm_features_leaf() else entry.function
        leaf = f"{entry.function:#x}" + (f".{entry.index}" if entry.indexed else "")
        for register in REGISTERS:
            want: int = getattr(entry, register)
            was, now = (getattr(each, register) if each is not None else 0 for each in (old, new))
            wrong = (was ^ want | _named_bits(asked, entry, register)) & (want ^ now)
            for bits, state in ((wrong & now, "still set"), (wrong & want, "still clear")):
                if bits:
                    names = describe(function, entry.index, register, bits)
                    lines.append(f"{leaf}:{register.upper()} {names} is {state}")
    gone = {entry.function for entry in offered} - {entry.function for entry in asked}
    return lines + [f"{leaf:#x} is still there" for leaf in sorted(gone & {entry.function for entry in got})]


def _named_bits(model: CpuidModel, entry: CpuidEntry, register: str) -> int:
    """The bits of this register whose features were asked for by name."""
    bits = 0
    for feature in map(feature_named, model.wanted):
        leaf = model.kvm_features_leaf() if feature.is_kvm else feature.leaf
        if (leaf, feature.index, feature.register) == (entry.function, entry.index, register):
            bits |= feature.mask
    return bits


def _register_lines(leaf: str, old: CpuidEntry, new: CpuidEntry, model: CpuidModel) -> Iterator[str]:
    function = SIGNATURE_LEAF + 1 if new.function == model.kvm_features_leaf() else new.function
    for register in REGISTERS:
        was, now = getattr(old, register), getattr(new, register)
        if was == now:
            continue
        gone = describe(function, new.index, register, was & ~now)
        came = describe(function, new.index, register, now & ~was)
        parts = [f"-{name}" for name in gone.split("|") if name != "0"]
        parts += [f"+{name}" for name in came.split("|") if name != "0"]
        if all("0x" in part for part in parts):
            parts = [f"{was:#x} -> {now:#x}"]
        yield f"{leaf}:{register.upper()} {' '.join(parts)}"


def _fitting(entry: CpuidEntry) -> CpuidEntry:
    for name, value in zip(entry._fields, entry, strict=True):
        if not 0 <= value <= 0xFFFFFFFF:
            raise UsageError(f"CPUID leaf {entry.function:#x}: {name} = {value:#x} does not fit in 32 bits")
    return entry


def _with_field(entry: CpuidEntry, register: str, lowest: int, width: int, value: int) -> CpuidEntry:
    """The entry with the low `width` bits of `value` in that field."""
    mask = (1 << width) - 1
    return entry._replace(**{register: getattr(entry, register) & ~(mask << lowest) | (value & mask) << lowest})


def _checked(register: str) -> str:
    plain = register.strip().lower()
    if plain not in REGISTERS:
        raise UsageError(f"CPUID answers in eax, ebx, ecx and edx, not in {register!r}")
    return plain
