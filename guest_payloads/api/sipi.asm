; summary: SMP: a second CPU started by INIT and SIPI, from real mode at the trampoline up to long mode
; proves:  smp_by_sipi
; needs:   irqchip, cpus>=1
; machine: irqchip=split cpus=3 timeout=30
; param:   sipi = 1        0: INIT only
; result:  before    u64   CPUs that were there before: 1
; result:  after_init u64  after the INITs: still 1
; result:  arrived   u64   after the SIPIs: all
; result:  again     u64   arrivals after a second SIPI to CPUs that run: as before
;
; INIT puts a CPU into wait-for-SIPI; a SIPI with vector 8 starts it in real mode at 0x8000, CS = 0x0800. A SIPI to a CPU
; that does not wait is ignored. Each one that arrives leaves a row for the host half.

%include "results.inc"
%include "apic.inc"

ARRIVED = DATA_BASE
ROWS    = DATA_BASE + 0x1000              ; 16 bytes for each APIC id: u16 CS, u16 IP, u32 CR0 at the start, u32 EFER later
CPUS    = DATA_BASE + 0x10                ; set by the host

start:
    lock  inc qword ptr [ARRIVED]
    ; the trampoline, where a SIPI can reach it
    lea   rsi, [rip + trampoline]
    mov   edi, TRAMPOLINE_BASE
    mov   ecx, trampoline_end - trampoline
    rep   movsb
    X2APIC_ENABLE
    mov   rax, qword ptr [ARRIVED]
    RESULT before
    X2APIC_SEND 0, APIC_DM_INIT | APIC_DEST_ALLBUT | APIC_INT_ASSERT
    call  a_while
    mov   rax, qword ptr [ARRIVED]
    RESULT after_init
.if PARAM_sipi
    X2APIC_SEND 0, APIC_DM_STARTUP | APIC_DEST_ALLBUT | APIC_INT_ASSERT | TRAMPOLINE_BASE >> 12
.endif
wait:
    call  a_while
    mov   rax, qword ptr [ARRIVED]
.if PARAM_sipi                            ; all have to come, and the host limits the time
    cmp   rax, qword ptr [CPUS]
    jb    wait
.endif
    RESULT arrived
.if PARAM_sipi
    X2APIC_SEND 0, APIC_DM_STARTUP | APIC_DEST_ALLBUT | APIC_INT_ASSERT | TRAMPOLINE_BASE >> 12
.endif
    call  a_while
    mov   rax, qword ptr [ARRIVED]
    RESULT again
    PASS

a_while:                                  ; some exits, in which other CPUs get on
    mov   ecx, 20
pass_time:
    pause
    out   DELAY_PORT, al
    dec   ecx
    jnz   pass_time
    ret

; ---- what a started CPU executes, at 0x8000. Offsets count from there: DS = CS.

.code16
trampoline:
    cli
    mov   bx, cs
    mov   ds, bx
    call  here
here:
    pop   si
    sub   si, here - trampoline           ; IP at the start
    lgdt  [gdt_pointer - trampoline]
    mov   edi, cr0                        ; as INIT leaves it
    mov   eax, cr4
    or    eax, X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT
    mov   cr4, eax
    mov   eax, PAGE_TABLES_BASE
    mov   cr3, eax
    mov   ecx, MSR_EFER
    rdmsr
    or    eax, EFER_LME | EFER_NX | EFER_SCE
    wrmsr
    mov   eax, cr0
    or    eax, X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_WP
    mov   cr0, eax
    data32 ljmp KERNEL_CS:arrive          ; into long mode, and to where the payload lies
.p2align 2
gdt_pointer:
    .word FIRST_TSS - 1
    .long GDT_BASE
trampoline_end:

.code64
arrive:
    mov   eax, KERNEL_DS
    mov   ds, eax
    mov   ss, eax
    mov   ecx, MSR_IA32_APICBASE
    rdmsr
    or    eax, 0xc00
    wrmsr
    mov   ecx, X2APIC_ID
    rdmsr
    mov   r8d, eax                        ; my APIC id
    shl   eax, 4
    lea   rbp, [rax + ROWS]
    mov   word ptr [rbp], bx
    mov   word ptr [rbp + 2], si
    mov   dword ptr [rbp + 4], edi
    mov   ecx, MSR_EFER
    rdmsr
    mov   dword ptr [rbp + 8], eax
    lock  inc qword ptr [ARRIVED]
rest:
    hlt
    jmp   rest
