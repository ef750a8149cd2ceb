; summary: interrupts between CPUs, each kind: fixed, lowest priority, NMI, INIT and start-up; each way to address them
; proves:  ipi, ipi_nmi, ipi_init_sipi
; machine: irqchip=split cpus=4 start=all timeout=30
; param:   mode = 0         delivery mode bits added to the first IPI, 0 is fixed
; result:  sent       u64   rows of the table that were sent: 10
; result:  sipi_alone u64   vCPU 3 after a start-up IPI without INIT: 0, it is ignored
; result:  started    u64   after INIT and start-up IPI: 1, it ran from the page that the IPI named
; result:  real_mode  u64   CR0 of vCPU 3 there, PE: 0
;
; A CPU sends by writing its ICR: vector, delivery mode, destination. The host half reads TABLE: after each IPI a row
; of 8 u64, how many each of 4 vCPUs has counted so far of the vector, then of NMIs. A fence before each row makes sure
; that all that was sent has been taken.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

TABLE = DATA_BASE + 0x4000
FLAG = TRAMPOLINE_BASE + 0xf00            ; u32: written by vCPU 3 when it starts anew
CPUS = 4
LOGICAL_1_AND_2 = 0x6                     ; x2APIC: cluster in bits 31:16, a bit for each of its CPUs below

; send, and keep what everybody has counted in the next row
.macro KEEP dest, low
    X2APIC_SEND \dest, \low
    call  keep
.endm

start:
    mov   r15, rdi
    test  edi, edi
    jnz   other
    call  counters_init
    call  counters_join
wait:
    pause
    cmp   qword ptr [JOINED], CPUS
    jb    wait
    mov   r14d, TABLE

    KEEP  1, COUNTED_VECTOR | PARAM_mode                                         ; fixed, by APIC id
    KEEP  LOGICAL_1_AND_2, COUNTED_VECTOR | APIC_DEST_LOGICAL                    ; to two, by logical id
    KEEP  LOGICAL_1_AND_2, COUNTED_VECTOR | APIC_DEST_LOGICAL | APIC_DM_LOWEST   ; to one of them
    KEEP  0, COUNTED_VECTOR | APIC_DEST_SELF                                     ; shorthands
    KEEP  0, COUNTED_VECTOR | APIC_DEST_ALLINC
    KEEP  0, COUNTED_VECTOR | APIC_DEST_ALLBUT
    KEEP  0xffffffff, COUNTED_VECTOR                                             ; the broadcast id
    KEEP  2, APIC_DM_NMI
    KEEP  0, APIC_DM_NMI | APIC_DEST_ALLBUT
    mov   ecx, X2APIC_SELF_IPI                                                   ; an MSR of its own
    mov   eax, COUNTED_VECTOR
    xor   edx, edx
    wrmsr
    call  keep
    mov   rax, r14
    sub   rax, TABLE
    shr   eax, 6
    RESULT sent

    lea   rsi, [rip + real_mode]          ; what a start-up IPI shall find at its page
    mov   edi, TRAMPOLINE_BASE
    mov   ecx, real_mode_end - real_mode
    cld
    rep movsb
    X2APIC_SEND 3, APIC_DM_STARTUP | TRAMPOLINE_BASE >> 12
    mov   esi, CPUS
    call  counters_fence                  ; vCPU 3 still answers
    mov   eax, dword ptr [FLAG]
    and   eax, 0xff
    RESULT sipi_alone
    X2APIC_SEND 3, APIC_DM_INIT
    X2APIC_SEND 3, APIC_DM_STARTUP | TRAMPOLINE_BASE >> 12
starting:
    pause
    cmp   byte ptr [FLAG], 1
    jne   starting
    mov   eax, dword ptr [FLAG]
    movzx ecx, al
    shr   eax, 8
    and   eax, 1
    RESULT real_mode
    mov   eax, ecx
    RESULT started
    PASS

keep:
    mov   esi, CPUS
    call  counters_fence
    xor   edi, edi
copy:
    mov   rax, qword ptr [rdi * 8 + COUNTED]
    mov   qword ptr [r14 + rdi * 8], rax
    mov   rax, qword ptr [rdi * 8 + NMIS]
    mov   qword ptr [r14 + rdi * 8 + 32], rax
    inc   edi
    cmp   edi, CPUS
    jb    copy
    add   r14, 64
    ret

other:
    call  counters_join
    jmp   counters_serve

; 16-bit code, by hand: CS is the page of the IPI, IP is 0
real_mode:
    .byte 0x8c, 0xc8                      ; mov ax, cs
    .byte 0x8e, 0xd8                      ; mov ds, ax
    .byte 0x0f, 0x20, 0xc0                ; mov eax, cr0
    .byte 0xa2, 0x01, 0x0f                ; mov [0xf01], al
    .byte 0xc6, 0x06, 0x00, 0x0f, 0x01    ; mov byte ptr [0xf00], 1
real_mode_rest:
    .byte 0xfa, 0xf4, 0xeb, 0xfc          ; cli; hlt; jmp back to cli
real_mode_end:

%include "counters.inc"
%include "idt.inc"
