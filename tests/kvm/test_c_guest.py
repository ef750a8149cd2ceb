# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests in C as a stranger writes them, rightly and wrongly, compiled by the system's compiler, on the real device."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm.cli import main
from vmm.errors import EXIT_USAGE
from vmm.payload.c import compiler
from vmm.payload.c.compiler import SHIPPED
from vmm.payload.guest import constants

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc here")
Run = Callable[..., tuple[int, str, str]]

HEAD = "#include <pyvmm.h>\n"


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    """`guest(text, *arguments)`: the status, and what `pyvmm run guest.c` printed."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, *arguments: str, name: str = "guest.c") -> tuple[int, str, str]:
        Path(name).write_text(text)
        status = main(["run", name, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def outcome(guest: Run, text: str, *arguments: str) -> Any:
    status, out, err = guest(text, "--json", *arguments)
    assert out, err
    document = json.loads(out)
    assert document["exit_code"] == status if "exit_code" in document else True
    return document


def body(text: str, header: str = "") -> str:
    return f"{header}{HEAD}int main(int cpu, int cpus)\n{{\n{text}\n    return cpu >= cpus;\n}}\n"


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ('printf("%d|%5d|%-5d|%05d", -42, 42, 42, -42)', "-42|   42|42   |-0042"),
        ('printf("%u %x %X %#x %o", 3000000000u, 0xbeef, 0xbeef, 255, 8)', "3000000000 beef BEEF 0xff 10"),
        ('printf("%ld %lu %llx", -1L, 1UL << 63, 0x123456789abcdefULL)', "-1 9223372036854775808 123456789abcdef"),
        ('printf("%zu %hd %hhu", (size_t)7, 70000, 300)', "7 4464 44"),
        ('printf("[%s|%5s|%-5s|%.2s|%*d]", "ab", "cd", "ef", "ghi", 4, 9)', "[ab|   cd|ef   |gh|   9]"),
        ('printf("%c%% %+d % d %p", 65, 5, 5, (void *)0x1000)', "A% +5  5 0x1000"),
        ('printf("%s", (char *)0)', "(null)"),
        ('printf("%ld", (long)(1UL << 63))', "-9223372036854775808"),
        ('puts("line"); putchar(33)', "line\n!"),
    ],
)
def test_printf(call: str, printed: str, guest: Run) -> None:
    status, out, err = guest(body(f"    {call};"), "--console", "c.txt")
    assert (status, Path("c.txt").read_text()) == (0, printed), out + err


def test_memory_functions_against_python(guest: Run) -> None:
    text = body(
        """
    static char a[64], b[64];
    memset(a, 'x', 10);
    memcpy(b, "0123456789", 11);
    memmove(b + 2, b, 8);
    CHECK(strlen(b) == 10 && !strcmp(b, "0101234567"));
    memmove(b, b + 2, 8);
    CHECK(!memcmp(b, "0123456767", 10));
    CHECK(memcmp("a", "b", 1) < 0 && strcmp("b", "a") > 0 && strcmp("a", "ab") < 0);
    struct big { char c[300]; } one = {{1}}, other = one;
    CHECK(!memcmp(&one, &other, sizeof one));
    CHECK(a[9] == 'x' && !a[10]);"""
    )
    status, out, err = guest(text)
    assert status == 0, out + err


def test_results_parameters_and_constants_are_those_of_the_header(guest: Run) -> None:
    text = body(
        "    RESULT(twice, 2 * PARAM_n);\n    RESULT(base, DATA_BASE);\n    RESULT(bit, KVM_FEATURE_STEAL_TIME);",
        "// result: twice u32\n// result: base u64\n// result: bit u8\n// param: n = 4 how many\n",
    )
    document = outcome(guest, text, "--param", "n=21")
    assert document["results"] == {"twice": 42, "base": 0xA0000, "bit": 5}


def test_a_declared_result_that_is_not_stored_fails(guest: Run) -> None:
    assert "stored no result x" in guest(body("", "// result: x u64\n"))[1]


@pytest.mark.parametrize(
    ("statement", "status", "said"),
    [
        ("return FAIL;", 1, "the guest reports failure"),
        ("return SKIP;", 77, "cannot show it"),
        ("return 3;", 1, "the guest reports 0x3"),
        ("return 256;", 1, "the guest reports 0xff"),  # of which the port would see a pass
        ("end_run(0x10000 + SKIP);", 1, "the guest reports 0xff"),
        ("return -2;", 1, "the guest reports 0xfe"),
        ("end_run(PASS);", 0, "pass"),
        ("CHECK(1 + 1 == 3);", 1, "guest.c:4: does not hold: 1 + 1 == 3"),
        ("halt();", 1, "it was to end by PASS, FAIL or SKIP"),
    ],
)
def test_how_it_ends_decides(statement: str, status: int, said: str, guest: Run) -> None:
    got, out, _ = guest(body(f"    {statement}"))
    assert (got, said in out) == (status, True), out


def test_errors_are_the_compilers_own_with_their_lines(guest: Run) -> None:
    status, out, err = guest(HEAD + "int main(void)\n{\n    retrun 0;\n}\n")
    assert (status, out) == (EXIT_USAGE, "")
    assert err.startswith("pyvmm: guest.c:4:5: gcc refuses it:\n")
    assert re.search(r"guest\.c:4:5: error: .retrun. undeclared", err)


def test_an_error_in_an_included_file_names_that_file(guest: Run, tmp_path: Path) -> None:
    (tmp_path / "part.h").write_text("int f(void) { return }\n")
    _, _, err = guest(HEAD + '#include "part.h"\nint main(void) { return f(); }\n')
    assert "part.h:1:" in err.splitlines()[0]


def test_a_warning_is_a_note_and_the_guest_runs(guest: Run) -> None:
    status, out, _ = guest(body("    int unused = 1;"))
    assert status == 0
    assert "guest.c:4:9: warning: unused variable" in out


def test_the_linker_says_what_is_missing_and_what_does_not_fit(guest: Run) -> None:
    said = guest(body("    extern int nowhere(void);\n    nowhere();"))[2]
    assert "undefined reference to `nowhere'" in said
    assert said.endswith("a source of your own is named by `// cflags: other.c`\n")
    assert "try: a guest begins with `int main(int cpu, int cpus)`" in guest(HEAD)[2]
    status, _, err = guest(body("    static char huge[500000];\n    memset(huge, 1, sizeof huge);"))
    assert (status, "does not fit into region `code`" in err) == (EXIT_USAGE, True), err


def test_floating_point_in_ring_0_is_told_where_it_is(guest: Run) -> None:
    status, _, err = guest(body("    volatile double d = cpus;\n    d *= 2;"))
    assert (status, "try: `// machine: ring=3`" in err) == (EXIT_USAGE, True), err


def test_a_variable_larger_than_the_stack_is_told_as_that(guest: Run) -> None:
    status, out, _ = guest(body("    volatile char big[20000];\n    for (int i = 0; i < 20000; i++) big[i] = i;"))
    assert (status, "is below a boot stack, which has 8192 bytes" in out) == (1, True), out


def test_a_fault_names_the_line_of_the_source(guest: Run) -> None:
    status, out, _ = guest(body("    return *(volatile int *)(uintptr_t)cpu;"))
    assert status == 1
    assert "main+" in out
    assert "guest.c:4" in out
    assert "return *(volatile int *)(uintptr_t)cpu;" in out


def test_a_stack_overflow_faults_and_is_said(guest: Run) -> None:
    text = HEAD + (
        "static int deep(volatile int n)\n"
        "{ volatile char room[256]; room[0] = n; return n ? deep(n - 1) + room[0] : 0; }\n"
        "int main(void) { return deep(1000) == 1; }\n"
    )
    status, out, _ = guest(text)
    assert status == 1
    assert "guest took an exception" in out or "shutdown" in out.lower()


def test_an_interrupt_handler_in_c_runs_and_returns(guest: Run) -> None:
    text = (
        "// needs: irqchip\n// result: ticks u64\n"
        + HEAD
        + """
static volatile int ticks;
INTERRUPT void tick(struct interrupt_frame *frame) { (void)frame; ticks++; x2apic_eoi(); }
int main(void)
{
    set_gate(0x40, tick);
    x2apic_enable();
    irq_enable();
    for (int i = 1; i <= 3; i++) {
        x2apic_send((uint32_t)rdmsr(0x802), 0x40);
        while (ticks != i) cpu_relax();
    }
    RESULT(ticks, ticks);
    return PASS;
}
"""
    )
    assert outcome(guest, text)["results"] == {"ticks": 3}


def test_an_exception_with_an_error_code_can_be_handled(guest: Run) -> None:
    text = (
        HEAD
        + """
static volatile uint64_t seen;
INTERRUPT void gp(struct interrupt_frame *frame, uint64_t error) { seen = error + 1; frame->rip += 2; }
int main(void)
{
    set_gate(GP_VECTOR, gp);
    rdmsr(0x12345678); /* RDMSR has two bytes */
    return seen == 1 ? PASS : FAIL;
}
"""
    )
    assert guest(text)[0] == 0


def test_ports_mmio_msrs_and_cpuid(guest: Run) -> None:
    text = body(
        """
    outl(0x12345678, DELAY_PORT);
    outw(0x1234, DELAY_PORT);
    writel(0xdeadbeef, SCRATCH_MMIO_BASE);
    CHECK(readl(SCRATCH_MMIO_BASE) == 0xdeadbeef);
    CHECK(readb(SCRATCH_MMIO_BASE + 3) == 0xde);
    writeq(0x1122334455667788, SCRATCH_MMIO_BASE + 8);
    CHECK(readw(SCRATCH_MMIO_BASE + 8) == 0x7788);
    wrmsr(MSR_STAR, 0x0013000800000000);
    CHECK(rdmsr(MSR_STAR) == 0x0013000800000000);
    struct cpuid c = cpuid(0x40000000, 0);
    CHECK(c.ebx == KVM_SIGNATURE_EBX && c.ecx == KVM_SIGNATURE_ECX && c.edx == KVM_SIGNATURE_EDX);
    CHECK(read_cr3() == PAGE_TABLES_BASE && rdtsc() != rdtsc());"""
    )
    assert guest(text)[0] == 0


def test_a_hypercall_is_answered_and_the_registers_are_kept(guest: Run) -> None:
    text = body(
        "    long a = kvm_hypercall(KVM_HC_VAPIC_POLL_IRQ, 1, 2, 3, 4), b = kvm_hypercall(9999, 0, 0, 0, 0);\n"
        '    printf("%ld %ld %d", a, b, cpus);\n    CHECK(a == 0 && b == -KVM_ENOSYS);'
    )
    status, out, _ = guest(text)
    assert (status, out.startswith("0 -1000 1")) == (0, True), out


def test_two_cpus_start_in_main_each_with_its_index(guest: Run) -> None:
    text = (
        "// machine: cpus=2 start=all irqchip=split\n"
        + HEAD
        + """
static volatile int seen;
int main(int cpu, int cpus)
{
    if (cpu) { __atomic_fetch_add(&seen, cpu, __ATOMIC_SEQ_CST); for (;;) halt(); }
    while (seen != cpus - 1) cpu_relax();
    return PASS;
}
"""
    )
    assert guest(text)[0] == 0


def test_main_in_ring_3_has_floating_point_console_results_and_end(guest: Run) -> None:
    text = body(
        '    double half = cpus / 2.0;\n    printf("%d", (int)(half * 100));\n    RESULT(x, half * 84);',
        "// machine: ring=3\n// result: x u64\n",
    )
    document = outcome(guest, text)
    assert (document["outcome"], document["results"], document["console"]) == ("pass", {"x": 42}, "50")


def test_more_options_and_files_of_its_own(guest: Run, tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text("int other(void) { return VALUE; }\n")
    text = "// cflags: -DVALUE=42 other.c\n" + HEAD + "int other(void);\nint main(void) { return other() - VALUE; }\n"
    assert guest(text)[0] == 0


def test_a_host_half_stands_beside_it(guest: Run, tmp_path: Path) -> None:
    (tmp_path / "guest.py").write_text("def check(guest): guest.equal('x', guest['x'], 41)\n")
    status, out, _ = guest(body("    RESULT(x, 42);", "// result: x u64\n"))
    assert (status, "x is 0x2a, and should be 0x29" in out) == (1, True)


def test_cflags_in_assembly_are_refused(guest: Run) -> None:
    status, _, err = guest("; cflags: -O0\nhlt\n", name="guest.asm")
    assert (status, "only a guest in C is compiled" in err) == (EXIT_USAGE, True)


def test_a_header_line_below_the_code_is_said(guest: Run) -> None:
    assert "the header ends at the first line of code" in guest(body("    // result: x u64"))[1]


@pytest.mark.parametrize(
    ("cc", "status", "said"),
    [
        ("/nonexistent", 99, "the compiler that $CC names, /nonexistent, is not there\n  try: unset CC\n"),
        ("gcc '", 99, '$CC is "gcc \'", which is no command: No closing quotation\n'),
        (
            "true",
            99,
            "compiling guest.c with true: it ended without an error, and made nothing\n  try: a C",
        ),
        ("false", 2, "guest.c: false refuses it, without a word\n"),
    ],
)
def test_a_compiler_that_is_none(cc: str, status: int, said: str, guest: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", cc)
    got, out, err = guest(body(""))
    assert (got, out) == (status, "")
    assert err.startswith(f"pyvmm: {said}")


@pytest.mark.parametrize("place", ["_put_facts", "_folder"])
def test_a_disk_without_room_for_the_compiler_is_told(place: str, guest: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compiler, place, full)
    status, _, err = guest(body(""))
    assert status == 99
    assert err == (
        "pyvmm: compiling guest.c: a temporary folder: No space left on device (ENOSPC)\n"
        "  try: TMPDIR, a folder with room\n"
    )


@pytest.mark.skipif(not shutil.which("clang"), reason="there is no clang here")
def test_clang_compiles_the_same_guest(guest: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "clang")
    assert guest(body('    printf("%d", cpus);\n    CHECK(kvm_hypercall(9999, 0, 0, 0, 0) == -KVM_ENOSYS);'))[0] == 0


def test_new_writes_a_guest_that_runs_and_overwrites_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for option, file in (([], "first.asm"), (["--c"], "first.c")):
        assert main(["new", "first", *option]) == 0
        assert main(["run", file]) == 0
        assert "sum" in capsys.readouterr().out
        assert main(["new", "first", *option]) == EXIT_USAGE
        assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "..", "a b", "x/", "nowhere/x", "\0", "é"])
def test_new_refuses_what_cannot_be_a_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", name]) == EXIT_USAGE
    assert "pyvmm: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_disasm_shows_source_beside_the_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("guest.c").write_text(body("    outb(7, 0x80);"))
    assert main(["disasm", "guest.c"]) == 0
    out = capsys.readouterr().out
    assert "main:" in out
    assert "guest.c:4" in out
    assert "out 0x80, al" in out


PAGE = Path(__file__).resolve().parents[2] / "docs" / "c.md"


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_example_of_the_page_runs(guest: Run) -> None:
    document = outcome(guest, _block("c"), "--param", "last=10")
    assert (document["outcome"], document["results"]) == ("pass", {"sum": 55})


def test_every_function_that_the_page_names_is_in_the_header() -> None:
    header = (SHIPPED / "pyvmm.h").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [a-zA-Z, ]+ \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {
        name for row in rows for name in re.findall(r"`(\w+)\b", row) if not name.startswith(("b", "q", "w", "param"))
    }
    assert {"printf", "set_gate", "kvm_hypercall", "x2apic_eoi", "CHECK"} <= named
    made = {"readl", "writel", "read_cr0", "write_cr4"}  # by macros
    assert [name for name in sorted(named - made) if name not in header and name not in constants()] == []


@pytest.mark.skipif(not shutil.which("rustc"), reason="there is no rustc here")
def test_the_example_in_rust_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hello.rs").write_text(_block("rust"))
    command, run, *printed = _block("console").removeprefix("$ ").replace("\n$ ", "\n").splitlines()
    made = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr
    assert main(shlex.split(run)[1:]) == 0
    assert capsys.readouterr().out.splitlines()[0] == printed[0]
