# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm map`: areas that meet and never overlap, with the program, the board's devices and an image in them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.made_images import SETUP_DEFAULTS, Load, bzimage, elf, multiboot1
from vmm import cli
from vmm.machine.memory import layout

Follows = Callable[[str, Any], Any]


@pytest.fixture
def mapped(capsys: pytest.CaptureFixture[str], follows: Follows) -> Callable[..., Any]:
    """The document of `pyvmm map WORDS`, and that its text has every area."""

    def call(*words: str) -> Any:
        assert cli.main(["map", "--json", *words]) == 0
        doc = follows("map", capsys.readouterr().out)
        assert cli.main(["map", *words]) == 0
        text = capsys.readouterr().out
        for area in doc["areas"]:
            assert any(f"{area['base']:#x} " in line and area["name"] in line for line in text.splitlines())
        ends = [(each["base"], each["last"]) for each in doc["areas"]]
        assert all(last < base for (_, last), (base, _) in itertools.pairwise(ends))
        assert all(each["last"] == each["base"] + each["size"] - 1 for each in doc["areas"])
        return doc

    return call


def named(doc: Any) -> dict[str, Any]:
    return {each["name"]: each for each in doc["areas"]}


def test_an_empty_machine_has_the_map_and_its_ram_has_no_hole(mapped: Callable[..., Any]) -> None:
    doc = mapped()
    areas = named(doc)
    for region in layout.MAP:
        if region.name != "cpus":
            assert (areas[region.name]["base"], areas[region.name]["last"]) == (region.base, region.end - 1)
            assert areas[region.name]["what"] == region.what
    assert areas["code"]["rights"] == "rwx"
    assert areas["user"]["rights"] == "rw-u"
    assert areas["null"]["rights"] == "-"
    assert areas["kvm_tss"]["kind"] == "kvm"
    ram = sum(each["size"] for each in doc["areas"] if each["base"] < layout.LOW_RAM_END)
    assert ram == doc["memory"] == layout.DEFAULT_MEMORY


def test_memory_beyond_the_devices_goes_on_at_4_gib(mapped: Callable[..., Any]) -> None:
    doc = mapped("--memory", "4G", "--cpus", "5")
    assert doc["areas"][-1] == {
        "base": 1 << 32, "size": (4 << 30) - layout.LOW_RAM_END, "name": "free", "kind": "free", "rights": "",
        "what": "RAM without a purpose of its own", "last": (8 << 30) - layout.LOW_RAM_END - 1,
    }  # fmt: skip
    assert named(doc)["vCPUs 2 to 4"]["size"] == 3 * layout.CPU_BLOCK_SIZE


def test_a_payload_lies_in_its_region(mapped: Callable[..., Any]) -> None:
    doc = mapped("smp")
    areas = named(doc)
    assert (doc["subject"], doc["cpus"]) == ("smp", 2)
    assert areas["smp"]["base"] == layout.REGIONS["code"].base
    assert areas["smp"]["size"] < 0x1000
    assert areas["code"]["base"] == areas["smp"]["last"] + 1
    assert areas["vCPU 1 tss"]["base"] == layout.cpu_block(1).tss


def test_boards_have_devices_of_their_own(mapped: Callable[..., Any]) -> None:
    assert "scratch_mmio" not in named(mapped("--board", "pc"))
    assert named(mapped("--board", "testdev"))["ioram"]["base"] == 0xFF000000


def test_an_image_has_its_segments_and_what_is_made_for_it(mapped: Callable[..., Any], tmp_path: Path) -> None:
    sector = tmp_path / "boot.img"
    sector.write_bytes(b"\xf4" + bytes(509) + b"\x55\xaa")
    doc = mapped(str(sector), "--base", "0x7c00", "--mode", "real")
    assert any(each["base"] == 0x7C00 and each["kind"] == "image" for each in doc["areas"])
    raw = tmp_path / "raw.bin"
    raw.write_bytes(b"\xf4" * 100)
    assert named(mapped(str(raw)))["raw.bin"]["size"] == 100


def test_an_elf_file_lies_where_its_headers_say(mapped: Callable[..., Any], tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes(elf(Load(b"\xf4" * 300, 0x10_0000), Load(b"\1" * 8, 0x20_0000, memsz=0x3000)))
    doc = mapped(str(kernel), "--memory", "16M")
    image = {each["base"]: each["size"] for each in doc["areas"] if each["kind"] == "image"}
    assert image[0x10_0000] == 300
    assert sum(size for base, size in image.items() if 0x20_0000 <= base < 0x20_3000) == 0x3000
    assert doc["memory"] == 16 << 20
    assert doc["subject"] == "kernel.elf"


def test_a_module_lies_beside_its_multiboot_kernel(mapped: Callable[..., Any], tmp_path: Path) -> None:
    kernel, module = tmp_path / "kernel.elf", tmp_path / "module"
    kernel.write_bytes(elf(Load(multiboot1() + b"\xf4" * 16, 0x10_0000), bits=32))
    module.write_bytes(b"m" * 5000)
    without = mapped(str(kernel), "--protocol", "multiboot")
    doc = mapped(str(kernel), "--protocol", "multiboot", "--module", f"{module},and words")
    assert 5000 in [each["size"] for each in doc["areas"] if each["kind"] == "image"]
    assert 5000 not in [each["size"] for each in without["areas"]]
    assert [each["kind"] for each in doc["areas"] if 0xA_0000 <= each["base"] < 0x10_0000] == [
        "reserved", "image", "reserved"
    ]  # fmt: skip


def test_a_linux_kernel_has_its_command_line_and_its_initrd(mapped: Callable[..., Any], tmp_path: Path) -> None:
    """As `pyvmm run` places them: the initial RAM disk is one area of its size."""
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd.img"
    kernel.write_bytes(bzimage())
    initrd.write_bytes(b"r" * 123_456)
    doc = mapped(str(kernel), "--initrd", str(initrd), "--kernel-args", "console=ttyS0")
    assert doc["board"] == "pc"
    (disk,) = (each for each in doc["areas"] if each["size"] == 123_456)
    (code,) = (each for each in doc["areas"] if each["base"] == SETUP_DEFAULTS["pref_address"])
    assert (disk["kind"], code["kind"]) == ("image", "image")
    assert disk["last"] < doc["memory"]
    assert 123_456 not in [each["size"] for each in mapped(str(kernel))["areas"]]
    assert cli.main(["map", str(kernel), "--initrd", str(initrd), "--memory", "17M"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hello", "--initrd", "x"], "--initrd goes with an image or code without a header, and hello is assembly"),
        (["--module", "x"], "--module goes with an image or code without a header, and none is named"),
        (["nothing"], "no payload is called 'nothing'"),
        (["nothing.asm"], "No such file"),
        (["--board", "q35"], "choose own, pc, testdev"),
        (["--board", ""], "choose own, pc, testdev"),
        (["--memory", "4K"], "too small"),
        (["--memory", "-1"], "is not a size"),
        (["--memory", "9" * 30], "is not a size"),
        (["--cpus", "0"], "0 vCPUs"),
        (["--cpus", "-3"], "-3 vCPUs"),
        (["--cpus", "99999999999999999999"], "vCPUs"),
        (["--memory", "0x8000000000000000"], "have 52 bits"),
        (["--base", "zz"], "none is named"),
        (["a\0b.asm"], "null byte"),
        (["hello", "--base", "0x7c00"], "assembly"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["map", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_narrow_and_wide_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmm.report import guest_map
    from vmm.report.style import Style

    doc = guest_map.document(guest_map.own_areas(2 << 20, 1), subject="\x1b[2J", board="own", memory=2 << 20, cpus=1)
    for width in (40, 80, 200):
        text = guest_map.lines(doc, Style(colour=True), width)
        assert len(text) == len(guest_map.lines(doc, Style(), width))
        assert "\x1b[2J" not in "\n".join(text)
