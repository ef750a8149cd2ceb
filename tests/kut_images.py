# SPDX-License-Identifier: GPL-2.0-or-later
"""Small multiboot images in the manner of kvm-unit-tests', assembled here: 32-bit code that prints on COM1, looks at
the test device, and ends by isa-debug-exit. Each is a text; `write` makes the files of a folder.
"""

from __future__ import annotations

from pathlib import Path

from vmm.asm.assembler import assemble

LOAD = 0x400000
MAGIC, FLAGS = 0x1BADB002, 0x10000  # bit 16: the header has the addresses itself

HEAD = f"""
.code32
    .long {MAGIC:#x}, {FLAGS:#x}, {-(MAGIC + FLAGS) & 0xFFFFFFFF:#x}
    .long {LOAD:#x}, {LOAD:#x}, 0, {LOAD + 0x10000:#x}, {LOAD + 32:#x}
start:
    mov esp, {LOAD + 0x10000:#x}
    mov ebp, ebx
    jmp main
print:                      # the text at ESI, on COM1
    lodsb
    test al, al
    jz 2f
    mov ah, al
    mov dx, 0x3fd
1:  in al, dx
    test al, 0x20
    jz 1b
    mov al, ah
    mov dx, 0x3f8
    out dx, al
    jmp print
2:  ret
exit:                       # with the code in EAX
    out 0xf4, eax
3:  hlt
    jmp 3b
fail:
    mov esi, offset failed
    call print
    mov eax, 1
    jmp exit
pass:
    mov esi, offset passed
    call print
    xor eax, eax
    jmp exit
failed: .asciz "FAIL: it is not so\\nSUMMARY: 1 tests, 1 unexpected failures\\n"
passed: .asciz "PASS: it is so\\nSUMMARY: 1 tests\\n"
"""

REPORT = """
main:                       # by the first letter of its argument, behind the image's own name
    mov esi, [ebp + 16]
    mov edi, esi
    call print
1:  mov al, [edi]
    inc edi
    test al, al
    jz fail
    cmp al, ' '
    jne 1b
    mov esi, offset newline
    call print
    mov al, [edi]
    cmp al, 'p'
    je pass
    cmp al, 'f'
    je fail
    cmp al, 's'
    je skip
    mov eax, 127
    jmp exit
skip:
    mov esi, offset skipped
    call print
    mov eax, 38
    jmp exit
newline: .asciz "\\n"
skipped: .asciz "SKIP: not today\\nSUMMARY: 1 tests, 1 skipped\\n"
"""

DEVICES = """
main:
    mov eax, 0x11223344     # a register of four bytes, by every width
    out 0xe0, eax
    mov al, 0xaa
    out 0xe1, al
    in eax, 0xe0
    cmp eax, 0x1122aa44
    jne fail
    in al, 0xe3
    cmp al, 0x11
    jne fail
    mov al, 0x5a
    out 0xe8, al
    in al, 0xe8
    cmp al, 0x5a
    jne fail
    mov dword ptr [0xff000100], 0xdeadbeef    # memory that is a device
    mov byte ptr [0xff000101], 0x12
    cmp dword ptr [0xff000100], 0xdead12ef
    jne fail
    mov ax, 5               # fw_cfg: how many CPUs
    mov dx, 0x510
    out dx, ax
    mov dx, 0x511
    in al, dx
    cmp al, 1
    jne fail
    in al, dx
    test al, al
    jne fail
    mov ax, 3               # and 64 MiB of RAM, which is 4 in the fourth byte
    mov dx, 0x510
    out dx, ax
    mov dx, 0x511
    in al, dx
    in al, dx
    in al, dx
    in al, dx
    cmp al, 4
    jne fail
    mov dword ptr [0x500000], 0x12345678      # a page that is taken away keeps its bytes
    mov eax, 0x500000
    out 0xe4, eax
    cmp dword ptr [0x500000], 0x12345678
    jne fail
    jmp pass
"""

CPUS = """
main:                       # start the others by INIT and SIPI; each counts itself at 0x2000
    mov esi, offset ap
    mov edi, 0x1000
    mov ecx, offset ap_end - ap
    rep movsb
    mov dword ptr [0x2000], 1
    mov dword ptr [0xfee000f0], 0x1ff
    mov dword ptr [0xfee00310], 0
    mov dword ptr [0xfee00300], 0xc4500
    mov dword ptr [0xfee00300], 0xc4601
    mov ax, 5
    mov dx, 0x510
    out dx, ax
    mov dx, 0x511
    in al, dx
    movzx ebx, al
1:  pause
    cmp [0x2000], ebx
    jne 1b
    jmp pass
.code16
ap: lock inc dword ptr [0x2000]
4:  hlt
    jmp 4b
ap_end:
.code32
"""

LINES = """
main:                       # line 14 of the IOAPIC, as an edge, to vector 0x40 of the local APIC, which keeps it
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov dword ptr [0xfee000f0], 0x1ff
    mov dword ptr [0xfec00000], 0x2d
    mov dword ptr [0xfec00010], 0
    mov dword ptr [0xfec00000], 0x2c
    mov dword ptr [0xfec00010], 0x40
    mov dx, 0x200d          # another line
    mov al, 1
    out dx, al
    test dword ptr [0xfee00220], 1
    jnz fail
    mov dx, 0x200e
    out dx, al
    mov ecx, 100000
1:  pause
    test dword ptr [0xfee00220], 1
    jnz pass
    dec ecx
    jnz 1b
    jmp fail
"""

HANGS = """
main:
    mov esi, offset text
    call print
9:  jmp 9b
text: .asciz "it will not end\\n"
"""

DIES = """
main:
    lidt [none]
    ud2
none: .word 0
      .long 0
"""

RESETS = """
main:
    mov al, 0xfe
    out 0x64, al
7:  jmp 7b
"""

SLEEPS = """
main:                       # ACPI S3, until the RTC's alarm of the next second; it wakes at 0x1000
    mov esi, 0xe0000
1:  cmp dword ptr [esi], 0x53434146           # FACS
    je found
    add esi, 16
    cmp esi, 0x100000
    jne 1b
    jmp fail
found:
    mov dword ptr [esi + 12], 0x1000
    mov esi, offset awake
    mov edi, 0x1000
    mov ecx, offset awake_end - awake
    rep movsb
    mov dword ptr [0], 0
    mov ax, 0x400           # PM1 enable: RTC
    mov dx, 0x602
    out dx, ax
    mov bl, 1               # any second, minute and hour
2:  mov al, bl
    out 0x70, al
    mov al, 0xc0
    out 0x71, al
    add bl, 2
    cmp bl, 7
    jne 2b
    mov al, 0x0b
    out 0x70, al
    mov al, 0x22            # alarm interrupt, 24 hours
    out 0x71, al
    mov al, 0x0c
    out 0x70, al
    in al, 0x71
    mov ax, 0x2400
    mov dx, 0x604
    out dx, ax
    mov dword ptr [0], 1
    jmp fail
.code16
awake:
    mov dx, 0x600           # what woke it: RTC and WAK
    in ax, dx
    and ax, 0x8400
    xor ax, 0x8400
    movzx eax, ax
    or eax, dword ptr [0]
    out 0xf4, eax
5:  hlt
    jmp 5b
awake_end:
.code32
"""

WAITS = """
    mov cl, 2               # until the second has changed twice: the alarm has rung before it sleeps
6:  xor al, al
    out 0x70, al
    in al, 0x71
    mov bl, al
7:  in al, 0x71
    cmp al, bl
    je 7b
    dec cl
    jnz 6b
    mov ax, 0x2400
"""
SLEEPS_LATE = SLEEPS.replace("    mov ax, 0x2400\n", WAITS)

TEXTS = {
    "report": REPORT, "devices": DEVICES, "cpus": CPUS, "lines": LINES, "hangs": HANGS, "dies": DIES, "resets": RESETS,
    "sleeps": SLEEPS, "late": SLEEPS_LATE,
}  # fmt: skip
CFG = Path(__file__).parent / "kut" / "unittests.cfg"


def image(text: str) -> bytes:
    """The file of one text."""
    return assemble(HEAD + text, base=LOAD).code


def write(folder: Path) -> Path:
    """All images and the unittests.cfg into a folder."""
    for name, text in TEXTS.items():
        (folder / f"{name}.flat").write_bytes(image(text))
    (folder / CFG.name).write_bytes(CFG.read_bytes())
    return folder
