# SPDX-License-Identifier: GPL-2.0-or-later
"""What there are several of: vCPUs, stops, breakpoints, exits, devices; and the guest's console."""

from __future__ import annotations

from vmm.screen.lines import Click, Line, line
from vmm.screen.scene import Scene

NOW = "►"


def vcpus(scene: Scene) -> list[Line]:
    """Each vCPU: its state, its mode, where it is; a click selects it."""
    lines = []
    for cpu in scene.cpus:
        chosen = cpu.index == scene.vcpu
        lines.append(
            line(
                ("here", f"{NOW if chosen else ' '} "),
                ("head" if chosen else "", f"vCPU {cpu.index}"),
                ("dim", f"  APIC {cpu.apic_id}"),
                f"  {cpu.state or '-'}  {cpu.mode}  {cpu.address:#x} ",
                ("name", cpu.where),
                click=Click("vcpu", cpu.index),
                here=chosen,
            )
        )
        if cpu.source:
            lines.append(line(("dim", f"      {cpu.source}"), click=Click("vcpu", cpu.index)))
    return lines


def stops(scene: Scene) -> list[Line]:
    """The stops of this run, oldest first; a click goes back to one."""
    if not scene.stops:
        return [line(("dim", "no stop yet"))]
    lines = []
    for stop in scene.stops:
        lines.append(
            line(
                ("here", f"{NOW if stop.now else ' '}"),
                ("dim", f"{stop.number:>4}  "),
                ("head" if stop.now else "", f"{stop.why:<11} "),
                ("name", stop.where),
                ("dim", f"  {stop.text}" if stop.text else ""),
                click=Click("stop", stop.number),
                here=stop.now,
            )
        )
    return lines


def breaks(scene: Scene) -> list[Line]:
    """Breakpoints, watchpoints and catches, with how often each struck; a click removes one."""
    if not scene.breaks:
        return [line(("dim", "none: b at a line, or :break label, :watch counter, :catch port 0xe9"))]
    return [
        line(
            ("break", f"● {each.number:>3}  "),
            ("", f"{each.kind:<11} "),
            ("name", each.text),
            ("dim", f"  {each.hits} hit{'s' * (each.hits != 1)}"),
            click=Click("remove", each.number),
        )
        for each in scene.breaks
    ]


def exits(scene: Scene) -> list[Line]:
    """The last exits, oldest first, each with the source line that caused it."""
    if not scene.exits:
        return [line(("dim", "no exit yet"))]
    several = len(scene.cpus) > 1
    return [
        line(
            ("dim", f"{each.number:>6}  "),
            ("warn", f"vCPU {each.cpu}  " if several else ""),
            each.text,
            ("name", f"   {each.where}" if each.where else ""),
            ("dim", f"   {each.source}" if each.source else ""),
        )
        for each in scene.exits
    ]


def devices(scene: Scene) -> list[Line]:
    """Each device: where it answers, and its registers."""
    lines: list[Line] = []
    for device in scene.devices:
        lines.append(line(("head", device.name), ("dim", f"  {device.place}")))
        for name, value in device.registers:
            lines.append(line("  ", ("name", f"{name:<10} "), value))
    return lines or [line(("dim", "this machine has none"))]


def console(scene: Scene, width: int) -> list[Line]:
    """What the guest wrote, wrapped; then, of a guest that has ended, how it did."""
    lines: list[Line] = []
    for row in scene.console.splitlines():
        pieces = [row[start : start + width] for start in range(0, len(row), max(width, 1))] or [""]
        lines += [line(each) for each in pieces]
    if not lines and not scene.ended:
        lines.append(line(("dim", "the guest has written nothing yet")))
    return lines


def ending(scene: Scene) -> list[Line]:
    """How the guest ended, with its post-mortem where it has one."""
    return [line(("bad" if "post-mortem" in row else "", row)) for row in scene.ended]
