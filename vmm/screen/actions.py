# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands of the screen do to a session, and what is said of it in one line. On the machine's own thread."""

from __future__ import annotations

from collections.abc import Callable

from vmm.debug.session import Session
from vmm.debug.values import Stopped
from vmm.errors import GuestMemoryError, UsageError
from vmm.machine.x86.registers import names as register_names
from vmm.screen.commands import ACCESS, CATCHES, KINDS, Asked
from vmm.screen.desk import Desk
from vmm.screen.lines import Click
from vmm.screen.scene import REGISTER_KINDS

Go = Callable[[Callable[[], Stopped]], Stopped]
"""Runs the guest, and tells the screen meanwhile that it runs."""
SEARCHED = 64 << 20  # bytes of memory that one search looks at
CHUNK = 1 << 16
MOST_STEPS = 1_000_000
SIZES = (1, 2, 4, 8)


def act(desk: Desk, asked: Asked, go: Go) -> str:
    """Do it. What there is to say is given back; a command that runs the guest gives its stop, as text.

    Raises:
        VmmError: it cannot be done; nothing else has happened.
    """
    name, words, session = asked.command.name, asked.words, desk.session
    running = RUNS.get(name)
    if running is not None:
        return _ran(desk, go, running(desk, asked))
    match name:
        case "break" | "hbreak":
            return _break(desk, asked, hardware=name == "hbreak")
        case "watch":
            return _watch(desk, words)
        case "catch":
            return _catch(desk, asked)
        case "delete":
            return _delete(session, words[0])
        case "back":
            return _back(desk, words)
        case "set":
            return _set(desk, words)
        case "mem" | "phys":
            desk.value(asked.rest)
            desk.view.memory_of, desk.view.memory_moved, desk.view.physical = asked.rest, 0, name == "phys"
            return ""
        case "stack":
            if asked.rest:
                desk.value(asked.rest)
            desk.view.stack_of, desk.view.stack_moved = asked.rest, 0
            return ""
        case "walk":
            desk.view.walk_of = f"{desk.place(asked.rest):#x}" if ":" in asked.rest else asked.rest
            desk.value(desk.view.walk_of)
            return ""
        case "registers":
            return _registers(desk, asked.rest)
        case "goto":
            if words:
                desk.look_at(desk.place(asked.rest))
            else:
                desk.look_here()
            return ""
        case "find":
            return _find(desk, asked.rest)
        case "print":
            return _print(desk, asked.rest)
        case "vcpu":
            return _vcpu(desk, words[0])
        case "code":
            if not desk.view.disassembly and desk.view.line is not None and desk.view.cursor is None:
                desk.look_at(desk.cursor_at)
            desk.view.disassembly, desk.view.line = not desk.view.disassembly, None
            return ""
        case "keys":
            text = asked.rest.encode().decode("unicode_escape").encode("latin-1", "replace")
            session.machine.uart.feed(text)
            return f"{len(text)} characters wait at the guest's serial port"
        case _:
            raise UsageError(f":{name} does nothing here")


def said(stopped: Stopped) -> str:
    """A stop in one line; nothing, where it is what was asked for."""
    if stopped.breakpoint is not None and stopped.breakpoint.temporary:
        return ""
    return stopped.text if stopped.why != "step" or stopped.text not in ("a step", "step") else ""


def _ran(desk: Desk, go: Go, run: Callable[[], Stopped] | None) -> str:
    if run is None:
        return ""
    stopped = go(run)
    desk.mark(stopped)
    return said(stopped)


def _number(text: str, what: str, least: int = 0, most: int = 1 << 64) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} is no {what}: give a number") from None
    if not least <= value <= most:
        raise UsageError(f"{text} is no {what}: give {least} to {most}")
    return value


# -- what runs the guest


def _step(desk: Desk, asked: Asked) -> Callable[[], Stopped]:
    count = _number(asked.words[0], "number of steps", 1, MOST_STEPS) if asked.words else 1
    return lambda: desk.session.step(count)


def _until(desk: Desk, asked: Asked) -> Callable[[], Stopped]:
    address = desk.place(asked.rest)
    return lambda: desk.session.until(address)


def _continue(desk: Desk, _asked: Asked) -> Callable[[], Stopped] | None:
    last = desk.session.stops[-1] if desk.session.stops else None
    if last is not None and last.ended:
        desk.go_on = True
        return None
    return desk.session.go


RUNS: dict[str, Callable[[Desk, Asked], Callable[[], Stopped] | None]] = {
    "step": _step,
    "over": lambda desk, _asked: desk.session.step_over,
    "line": lambda desk, _asked: desk.session.step_line,
    "finish": lambda desk, _asked: desk.session.finish,
    "until": _until,
    "continue": _continue,
}


# -- breakpoints


def _break(desk: Desk, asked: Asked, *, hardware: bool) -> str:
    where = asked.rest
    address = desk.place(where)
    named = where if where in desk.session.symbols else address
    made = desk.session.break_at(named, when=asked.condition or None, hardware=hardware)
    if isinstance(named, int):
        made.what = f"{desk.file().rpartition('/')[2]}:{where}" if where.isdecimal() else where
    return str(made)


def toggle(desk: Desk, address: int, called: str = "") -> str:
    """A breakpoint where there is none; none where there is one."""
    there = desk.break_at(address)
    if there is not None:
        desk.session.remove(there)
        return f"breakpoint {there.number} is gone"
    made = desk.session.break_at(address)
    name = (desk.session.program.symbolize(address) if desk.session.program else None) or ""
    made.what = called or name or f"{address:#x}"
    return str(made)


def _watch(desk: Desk, words: tuple[str, ...]) -> str:
    rest = list(words)
    access = rest.pop() if len(rest) > 1 and rest[-1] in ACCESS else "write"
    size = _number(rest.pop(), "size", 1, 8) if len(rest) > 1 and rest[-1].isdecimal() else 0
    place = " ".join(rest)
    address = desk.place(place)
    size = size or next(each for each in (8, 4, 2, 1) if address % each == 0)
    made = desk.session.watch(address, size, access)
    how = f"{'changes' if access == 'write' else access}, by single-step" if made.how == "step" else access
    made.what = f"{place}, {size} byte{'s' * (size != 1)}, {how}"
    return str(made)


def _catch(desk: Desk, asked: Asked) -> str:
    kind, what = asked.words[0], " ".join(asked.words[1:])
    session, when = desk.session, asked.condition or None
    if kind == "exit":
        if what not in KINDS:
            raise UsageError(f"no kind of exit {what!r}", hint=f"one of {', '.join(KINDS)}")
        return str(session.catch(exit=what, when=when))
    if kind == "msr":
        return str(session.catch(msr=desk.value(what), when=when))
    if kind not in CATCHES:
        raise UsageError(f"catching {kind!r}", hint=f"one of {', '.join(CATCHES)}")
    first, dash, last = what.partition("-")
    low = desk.value(first)
    span = (low, desk.value(last)) if dash else low
    made = session.catch(port=span, when=when) if kind == "port" else session.catch(mmio=span, when=when)
    return str(made)


def _delete(session: Session, which: str) -> str:
    if which == "all":
        count = len(session.breaks)
        for each in list(session.breaks):
            session.remove(each)
        return f"{count} gone"
    session.remove(_number(which, "number of a breakpoint"))
    return f"{which} is gone"


def _back(desk: Desk, words: tuple[str, ...]) -> str:
    if words:
        return back(desk, _number(words[0], "number of a stop"))
    return back(desk, -1)


def back(desk: Desk, number: int) -> str:
    """To an earlier stop, -1 for the one before; 0 is the begin."""
    desk.log.muted = True
    try:
        stopped = desk.session.back(number)
    finally:
        desk.log.muted = False
    desk.went_back(stopped)
    return f"back at stop {stopped.number}"


# -- changing and looking


def _set(desk: Desk, words: tuple[str, ...]) -> str:
    target, rest = words[0], " ".join(words[1:])
    session = desk.session
    if target.lower() in register_names():
        value = desk.value(rest)
        session.set_register(target.lower(), value)
        return f"{target} = {value:#x}"
    if target.endswith("]") and "[" in target:
        size = {"u8": 1, "u16": 2, "u32": 4}.get(target.partition("[")[0], 8)
        address = desk.value(target.partition("[")[2][:-1])
        value = desk.value(rest) & (1 << 8 * size) - 1
        session.write(address, value.to_bytes(size, "little"))
        return f"{size} bytes at {address:#x} = {value:#x}"
    address = desk.place(target)
    try:
        data = bytes.fromhex(rest.replace("0x", ""))
    except ValueError:
        raise UsageError(
            f"{rest!r} are no bytes", hint="as hexadecimal, `:set counter 01 02`; or `:set [counter] 5`"
        ) from None
    session.write(address, data)
    return f"{len(data)} byte{'s' * (len(data) != 1)} at {address:#x}"


def _print(desk: Desk, text: str) -> str:
    value = desk.value(text)
    name = (desk.session.program.symbolize(value) if desk.session.program and value > 0 else None) or ""
    return f"{text} = {value:#x} = {value}" + (f"  {name}" if name else "")


def _find(desk: Desk, text: str) -> str:
    """From behind where the memory pane begins on, up to what is not mapped."""
    wanted = bytes.fromhex(text[2:]) if text.startswith("0x") and len(text) % 2 == 0 else text.strip('"').encode()
    if not wanted:
        raise UsageError("nothing to search for")
    scene = desk.scene()
    read = scene.read_physical if desk.view.physical else scene.read
    begin = at = scene.memory_at + 1
    kept = b""
    while at < begin + SEARCHED:
        data = read(at, CHUNK)
        found = (kept + data).find(wanted)
        if found >= 0:
            address = at - len(kept) + found
            desk.view.memory_of, desk.view.memory_moved = f"{address:#x}", 0
            return f"{text} at {address:#x}"
        if len(data) < CHUNK:
            raise GuestMemoryError(f"no {text} from {begin:#x} to {at + len(data):#x}, where mapped memory ends")
        kept = data[-len(wanted) + 1 :] if len(wanted) > 1 else b""
        at += CHUNK
    raise GuestMemoryError(f"no {text} in {SEARCHED >> 20} MiB from {begin:#x} on")


def _registers(desk: Desk, kind: str) -> str:
    """Another kind of registers in their pane."""
    kinds = REGISTER_KINDS
    if kind and kind not in kinds:
        raise UsageError(f"no registers {kind!r}", hint=f"one of {', '.join(kinds)}")
    desk.view.registers = kind or kinds[(kinds.index(desk.view.registers) + 1) % len(kinds)]
    return f"registers: {desk.view.registers}"


def _vcpu(desk: Desk, word: str) -> str:
    count = len(desk.session.machine.cpus)
    if word == "next":
        return select(desk, (desk.session.vcpu + 1) % count)
    return select(desk, _number(word, "vCPU", 0, count - 1))


def select(desk: Desk, index: int) -> str:
    """Look at this vCPU."""
    desk.session.vcpu = index
    desk.look_here()
    return f"vCPU {index}" if len(desk.session.machine.cpus) > 1 else "there is only vCPU 0"


def clicked(desk: Desk, click: Click) -> str:
    """A line of a pane was chosen."""
    match click.what:
        case "break":
            return toggle(desk, click.value)
        case "line":
            file = desk.file()
            address = desk.session.address(f"{file}:{click.value}")
            found = desk.session.program.source(address) if desk.session.program else None
            number = found.line if found is not None else click.value
            return toggle(desk, address, f"{file.rpartition('/')[2]}:{number}")
        case "vcpu":
            return select(desk, click.value)
        case "stop":
            return back(desk, click.value)
        case "remove":
            return _delete(desk.session, str(click.value))
        case "memory":
            desk.view.memory_of, desk.view.memory_moved, desk.view.physical = f"{click.value:#x}", 0, False
            return f"memory at {click.value:#x}"
        case _:
            desk.view.walk_of = f"{click.value:#x}"
            return f"page walk of {click.value:#x}: 4 shows it"
