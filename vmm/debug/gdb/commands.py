# SPDX-License-Identifier: GPL-2.0-or-later
"""What each packet of a gdb client means for a Session. It knows packets; it knows no socket, and lets nothing run:
what is to run is a value (Going).

Source: the gdb manual, E.2 (packets), E.3 (stop replies), E.4 (general queries). A packet that is not here is answered
by nothing, as the protocol wants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.abi.x86 import PAGE
from vmm.base.bits import MASK64
from vmm.debug.gdb import agent, registers, target_xml
from vmm.debug.gdb.monitor import Monitor
from vmm.debug.gdb.packets import MOST
from vmm.debug.gdb.pages import Pages
from vmm.debug.gdb.regions import region
from vmm.debug.gdb.remote_file import RemoteFile
from vmm.debug.values import Break, Stopped
from vmm.errors import GuestMemoryError, UsageError, VmmError
from vmm.observe.postmortem import mode_name

if TYPE_CHECKING:
    from vmm.debug.session import Session
    from vmm.machine.run.cpu import Cpu

FEATURES = (
    f"PacketSize={MOST:x};QStartNoAckMode+;vContSupported+;qXfer:features:read+;qXfer:threads:read+;"
    "qXfer:exec-file:read+;qXfer:memory-map:read+;ConditionalBreakpoints+;swbreak+;hwbreak+;binary-upload+;error-message+"
)
MOST_MEMORY = MOST // 2 - 16
SOFTWARE, HARDWARE, WRITE, READ, ACCESS = "01234"
WATCHES = {WRITE: "write", READ: "read", ACCESS: "access"}
EXPEDITED = ("rbp", "rsp", "rip")
NO_MEMORY = b"E14"
HEX = "0123456789abcdefABCDEF"
TRIPLE = b"x86_64-unknown-none"
NO_GUEST = b"E.there is no guest: `run` starts it"
NEEDS_GUEST = (*"gGpPmMXxHTZzcCsS", "vCont;", "qXfer", "qC", "qRcmd", "qThreadExtra", "qMemoryRegion")
LOOKS = (b"m", b"x", b"g", b"p", b"T", b"H", b"qXfer", b"qThreadExtra")
"""Packets that change nothing of a guest that stands still."""


@dataclass(frozen=True)
class Going:
    """What a client asked for that is no answer: `run` lets the guest go and gives the stop; or "kill", "detach",
    "extended", "anew" with a stop as its answer, "restart" with none."""

    what: str
    run: Callable[[Session], Stopped] = lambda session: session.go()
    reply: bytes = b""


class Commands:
    """Serves packets, and keeps what a client has set."""

    on = Going("go")

    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self.image: bytes | None = None
        self._places: dict[tuple[str, int, int], Break | None] = {}
        self._when: dict[tuple[str, int, int], list[bytes]] = {}
        self._thread = 0  # of `Hg`, an index
        self._continues: int | None = None  # of `Hc`
        self._rows: tuple[registers.Register, ...] = ()
        self._brought: tuple[tuple[int, registers.Register], ...] = ()  # what a stop reply brings along
        self._pages = Pages()
        self._file = RemoteFile()
        self._monitor = Monitor()
        self._warned: set[int] = set()
        self._packets: dict[str, Callable[[Session, str], bytes | Going | None]] = {
            "g": self._all, "G": self._set_all, "p": self._one, "P": self._set_one, "m": self._read,
            "M": self._write_hex,
            "H": self._select, "T": self._alive, "Z": self._set, "z": self._clear, "c": self._c, "C": self._c,
            "s": self._s,
            "S": self._s,
        }  # fmt: skip

    def begin(self, session: Session) -> None:
        """Another run, perhaps of another machine: what the client has set holds there, too."""
        self._rows = registers.layout(session.machine.cpus[0])
        self._brought = tuple((i, row) for i, row in enumerate(self._rows) if row.name in EXPEDITED)
        self._pages.forget()
        self._monitor.begin(session)
        for key in list(self._places):
            self._places[key] = self._made(session, *key)
            self._condition(key)

    def came(self) -> None:
        """A client: it knows nothing yet."""
        self._thread, self._continues = 0, None

    def gone(self, session: Session) -> None:
        """No client: none of what it has set stops anybody."""
        for made in self._places.values():
            if made in session.breaks:
                session.remove(made)
        self._places.clear()
        self._when.clear()
        self._monitor.gone(session)

    def has_set(self, made: Break) -> bool:
        """Is it of a client's packets? A monitor command makes others, of which gdb knows nothing."""
        return any(made is each for each in self._places.values())

    def console(self) -> list[str]:
        """What a monitor command printed."""
        return self._monitor.printed()

    def serve(self, session: Session, data: bytes) -> bytes | Going | None:
        """The answer; b"" for what is not known.

        Raises:
            VmmError: it cannot be done.
            ValueError, IndexError, KeyError, OverflowError: the packet is malformed.
        """
        if not data.startswith(LOOKS):
            self._pages.forget()
        if data[:1] in (b"X", b"x"):
            return self._binary(session, data)
        text = data.decode("latin-1")
        whole = _whole(text)
        if whole is not None:
            return whole
        if text.startswith("vCont"):
            return self._v_cont(session, text)
        if text.startswith("vFile:"):
            return self._file.serve(text, lambda: self._exec_file(session)[1])
        if text[:1] in "qQ" or text.startswith("vMust"):
            return self._query(session, text)
        serve = self._packets.get(text[:1])
        return serve(session, text[1:]) if serve else b""

    def without_guest(self, data: bytes) -> bytes | Going:
        """The answer where a client has killed the guest, or it has ended, and may be started anew. Errors as `serve`,
        without a VmmError of the guest's."""
        text = data.decode("latin-1")
        whole = _whole(text)
        if whole is not None:
            return whole
        if text.startswith("vFile:"):
            return self._file.serve(text, lambda: self.image or b"")
        if text.startswith("qSupported"):
            return FEATURES.encode()
        if text in ("QStartNoAckMode", "qSymbol::"):
            return b"OK"
        if text == "qfThreadInfo":
            return b"l"
        return NO_GUEST if text.startswith(NEEDS_GUEST) else b""

    def restart(self, session: Session) -> None:
        """The machine as it was when this run began. UsageError: nothing was kept of that."""
        self._monitor.restart(session)

    # -- registers

    def _cpu(self, session: Session) -> Cpu:
        return session.machine.cpus[self._thread]

    def _all(self, session: Session, rest: str) -> bytes:
        return b"".join(registers.read(self._cpu(session), self._rows)).hex().encode()

    def _set_all(self, session: Session, rest: str) -> bytes:
        data, values = bytes.fromhex(rest), []
        if len(data) != sum(row.size for row in self._rows):
            return b"E01"
        at = 0
        for row in self._rows:
            values.append(data[at : at + row.size])
            at += row.size
        registers.write(self._cpu(session), self._rows, values)
        return b"OK"

    def _one(self, session: Session, rest: str) -> bytes:
        row = self._rows[_number(rest)]
        return registers.read(self._cpu(session), [row])[0].hex().encode()

    def _set_one(self, session: Session, rest: str) -> bytes:
        number, _, value = rest.partition("=")
        row, data = self._rows[_number(number)], bytes.fromhex(value)
        if len(data) != row.size:
            return b"E01"
        registers.write(self._cpu(session), [row], [data])
        return b"OK"

    def expedited(self, session: Session) -> str:
        """Registers that a stop reply brings along."""
        self._thread = session.vcpu
        values = registers.read(session.machine.cpus[session.vcpu], [row for _, row in self._brought])
        return "".join(f"{i:x}:{value.hex()};" for (i, _), value in zip(self._brought, values, strict=True))

    # -- memory

    def _read(self, session: Session, rest: str) -> bytes:
        data = self._memory(session, rest)
        return data.hex().encode() if data is not None else NO_MEMORY

    def _memory(self, session: Session, rest: str) -> bytes | None:
        """As much as can be read of what is asked for, at most a packet; None for nothing."""
        address, size = _pair(rest)
        size = min(size, MOST_MEMORY)
        if not size:
            return b""
        cpu, data = self._cpu(session), b""
        while len(data) < size and address + len(data) <= MASK64:
            at = address + len(data)
            try:
                data += self._pages.read(session.machine.memory, cpu, at, min(size - len(data), PAGE - at % PAGE))
            except GuestMemoryError:
                break
        return data or None

    def _write_hex(self, session: Session, rest: str) -> bytes:
        where, _, digits = rest.partition(":")
        return self._write(session, where, bytes.fromhex(digits))

    def _write(self, session: Session, where: str, data: bytes) -> bytes:
        address, size = _pair(where)
        if len(data) != size:
            return b"E01"
        try:
            if size:
                session.write(address, data, vcpu=self._thread)
        except GuestMemoryError:
            return NO_MEMORY
        return b"OK"

    def _binary(self, session: Session, data: bytes) -> bytes:
        where, _, rest = data[1:].partition(b":")
        if data[:1] == b"X":
            return self._write(session, where.decode("ascii"), rest)
        found = self._memory(session, where.decode("ascii"))
        return NO_MEMORY if found is None else b"b" + found

    # -- threads

    def _select(self, session: Session, rest: str) -> bytes:
        number = _number(rest[1:].replace("-1", "0")) if rest[1:] else 0
        if number > len(session.machine.cpus):
            return b"E01"
        if rest[:1] == "g":
            self._thread = number - 1 if number else session.vcpu
        elif rest[:1] == "c":
            self._continues = number - 1 if number else None
        else:
            return b"E01"
        return b"OK"

    def _alive(self, session: Session, rest: str) -> bytes:
        return b"OK" if 1 <= _number(rest) <= len(session.machine.cpus) else b"E01"

    def _state(self, session: Session, cpu: Cpu) -> str:
        """What a vCPU does, in words."""
        machine = session.machine
        mode = mode_name(self._pages.sregs(cpu))
        if cpu.index in session.halted:
            return f"halted for good, {mode}"
        if machine.irqchip != "none":
            return f"{cpu.state.removeprefix('KVM_MP_STATE_').lower().replace('_', ' ')}, {mode}"
        return f"{mode}" if cpu.index == 0 or cpu in machine.members() else f"not started, {mode}"

    # -- breakpoints

    def _set(self, session: Session, rest: str) -> bytes:
        key = _place(rest)
        if key[0] not in (SOFTWARE, HARDWARE, *WATCHES):
            return b""
        if key not in self._places:
            session.read(key[1], 1, vcpu=self._thread)
            made = self._made(session, *key)
            if made is None:
                return b"E01"
            self._places[key] = made
        self._when[key] = agent.conditions(rest.partition(";")[2])
        self._condition(key)
        return b"OK"

    def _condition(self, key: tuple[str, int, int]) -> None:
        """A breakpoint stops where one of its conditions is right, or none can be looked at; a packet renews them."""
        made, codes = self._places[key], self._when.get(key, [])
        if made is not None:
            made.when = (lambda session: any(self._right(session, each) for each in codes)) if codes else None

    def _right(self, session: Session, code: bytes) -> bool:
        cpu = session.machine.cpus[session.vcpu]

        def register(number: int) -> int:
            return int.from_bytes(registers.read(cpu, [self._rows[number]])[0], "little")

        try:
            return agent.evaluate(code, register, lambda at, size: session.read(at, size, vcpu=cpu.index)) != 0
        except (VmmError, IndexError):
            return True

    def _made(self, session: Session, kind: str, address: int, size: int) -> Break | None:
        try:
            if kind in WATCHES:
                made = session.watch(address, size or 1, WATCHES[kind])
            else:
                made = session.break_at(address, hardware=kind == HARDWARE)
        except VmmError as error:
            self._note(f"{error.text}\n")
            return None
        if session.too_many:
            session.remove(made)
            self._note(f"{session.too_many or 'all four debug registers are taken'}\n")
            return None
        for text in session.doubts(made):
            if address not in self._warned:
                self._warned.add(address)
                self._note(
                    f"{text.replace(f'{made.kind} {made.number} ', f'the {made.kind} ')}\n"
                )  # gdb counts its own
        return made

    def _clear(self, session: Session, rest: str) -> bytes:
        key = _place(rest)
        if key[0] not in (SOFTWARE, HARDWARE, *WATCHES):
            return b""
        self._when.pop(key, None)
        made = self._places.pop(key, None)
        if made in session.breaks:
            session.remove(made)
        return b"OK"

    # -- going on

    def _c(self, session: Session, rest: str) -> Going:
        only = self._continues
        return Going("go", lambda session: session.go(vcpus=None if only is None else [only]))

    def _s(self, session: Session, rest: str) -> Going:
        only, at = self._continues, self._thread
        return Going("step", lambda session: session.step(vcpu=at if only is None else only, others=only is None))

    def _v_cont(self, session: Session, text: str) -> bytes | Going:
        if text == "vCont?":
            return b"vCont;c;C;s;S;t;r"
        actions: dict[int, str] = {}
        for part in text.split(";")[1:]:
            action, _, thread = part.partition(":")
            if action[:1] not in ("c", "C", "s", "S", "r", "t") or not action:
                return b"E01"
            number = _number(thread) if thread not in ("", "-1") else 0
            for cpu in session.machine.cpus:
                if number in (0, cpu.index + 1):
                    actions.setdefault(cpu.index, action)
        going = [index for index, action in actions.items() if action[0] in "cC"]
        steps = [index for index, action in actions.items() if action[0] in "sSr"]
        if not steps:
            if not going:
                return b"E01"
            everybody = len(going) == len(session.machine.cpus)
            return Going("go", lambda session: session.go(vcpus=None if everybody else going))
        index = session.vcpu if session.vcpu in steps else steps[0]
        action = actions[index]
        if action[0] != "r":
            return Going("step", lambda session: session.step(vcpu=index, others=bool(going)))
        first, last = _pair(action[1:])
        return Going("step", lambda session: session.step_range(first, last, vcpu=index, others=bool(going)))

    # -- queries

    def _query(self, session: Session, text: str) -> bytes | None:
        name, _, rest = text.partition(":") if not text.startswith(("qRcmd", "qThreadExtra")) else text.partition(",")
        machine = session.machine
        match name:
            case "qSupported":
                return FEATURES.encode()
            case "QStartNoAckMode":
                return b"OK"
            case "qC":
                return b"QC%x" % (self._thread + 1)
            case "qfThreadInfo":
                return b"m" + ",".join(f"{cpu.index + 1:x}" for cpu in machine.cpus).encode()
            case "qsThreadInfo":
                return b"l"
            case "qThreadExtraInfo":
                cpu = machine.cpus[_number(rest) - 1] if _number(rest) else machine.cpus[0]
                return f"vCPU {cpu.index}: {self._state(session, cpu)}".encode().hex().encode()
            case "qHostInfo" | "qProcessInfo":
                process = "pid:1;" if name == "qProcessInfo" else ""
                return f"{process}triple:{TRIPLE.hex()};ptrsize:8;endian:little;".encode()
            case "qMemoryRegionInfo":
                start, size, rights = region(machine.memory, self._pages.sregs(self._cpu(session)), _number(rest))
                return f"start:{start:x};size:{size:x};{f'permissions:{rights};' if rights else ''}".encode()
            case "qWatchpointSupportInfo":
                return b"num:4;"
            case "qAttached":
                return b"1"
            case "qSymbol":
                return b"OK"
            case "qXfer":
                return self._transfer(session, rest)
            case "qRcmd":
                self._monitor.serve(session, bytes.fromhex(rest).decode("utf-8", "replace"), self._thread)
                return b"OK"
            case _:
                return b""

    def _transfer(self, session: Session, rest: str) -> bytes:
        kind, way, annex, where = rest.split(":", 3)
        offset, size = _pair(where)
        if way != "read":
            return b"E01"
        machine = session.machine
        match kind:
            case "features":
                if annex != "target.xml":
                    return b"E00"
                data = target_xml.target(self._rows).encode()
            case "threads":
                rows = ((cpu.index + 1, f"vCPU {cpu.index}", self._state(session, cpu)) for cpu in machine.cpus)
                data = target_xml.threads(rows).encode()
            case "memory-map":
                only = ((slot.gpa, slot.size) for slot in machine.memory.slots if slot.readonly)
                data = target_xml.memory_map(only).encode()
            case "exec-file":
                data = self._exec_file(session)[0].encode()
                if not data:
                    return b"E.this guest has no file with symbols"
            case _:
                return b""
        size = min(size, MOST_MEMORY)
        piece = data[offset : offset + size]
        return (b"m" if offset + size < len(data) else b"l") + piece

    def _exec_file(self, session: Session) -> tuple[str, bytes]:
        """The name and the bytes of the file that the client may read: the program as ELF, with lines."""
        program = session.program
        data = self.image
        if data is None and program is not None:
            from vmm.asm.elf_out import elf

            try:
                data = elf(program)
            except UsageError:
                data = None
        if data is None:
            return "", b""
        self.image = data
        stem = (program.name if program else "guest").rpartition("/")[2].strip("<>") or "guest"
        return f"/pyvmm/{stem}.elf", data


def _whole(text: str) -> Going | None:
    """What is asked of the guest as a whole, and not of what it is just now. UsageError: it cannot be started so."""
    if text.startswith("vKill;"):
        _ = _number(text.removeprefix("vKill;"))
        return Going("kill", reply=b"OK")
    if text.startswith("vRun"):
        if text.strip(";") != "vRun":
            raise UsageError("this server has one guest, which takes no arguments: `run` alone")
        return Going("anew")
    if text[:1] == "R":
        _ = _number(text[1:])
        return Going("restart")
    what = {"!": "extended", "D": "detach", "k": "kill"}.get(text[:1])
    return Going(what) if what else None


def _number(text: str) -> int:
    """A hexadecimal number as gdb writes it. ValueError: it is none."""
    if not text or text.strip(HEX) or len(text) > 16:
        raise ValueError(text)
    return int(text, 16)


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition(",")
    return _number(first), _number(second)


def _place(rest: str) -> tuple[str, int, int]:
    """`0,ADDRESS,KIND`; conditions may follow."""
    kind, address, size = rest.split(";")[0].split(",")[:3]
    return kind, _number(address), _number(size)
