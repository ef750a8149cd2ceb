; summary: a system-management interrupt from one CPU to another: it runs 16-bit code at SMBASE + 0x8000, and comes back
; proves:  ipi_smi
; needs:   KVM_CAP_X86_SMM
; machine: irqchip=split cpus=2 start=all timeout=30
; param:   mode = 0x200     delivery mode of the IPI, 0x200 is SMI
; result:  entered   u64    how often vCPU 1 ran the handler: 1
; result:  answers   u64    interrupts that vCPU 1 took afterwards: 1, it came back to where it was
;
; On reset SMBASE is 0x30000. The CPU enters with segments of base 0 but CS, which is at SMBASE; RSM restores all.
; The handler lies in the middle of region `code`, where this payload does not reach.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

SMI_ENTRY = 0x38000
ENTERED = TRAMPOLINE_BASE + 0xf10         ; u8, below 64 KiB: written from SMM

start:
    mov   r15, rdi
    test  edi, edi
    jnz   other
    call  counters_init
    call  counters_join
wait:
    pause
    cmp   qword ptr [JOINED], 2
    jb    wait

    lea   rsi, [rip + handler]
    mov   edi, SMI_ENTRY
    mov   ecx, handler_end - handler
    cld
    rep movsb
    X2APIC_SEND 1, PARAM_mode | COUNTED_VECTOR
    mov   esi, 2
    call  counters_fence                  ; vCPU 1 takes an SMI before any interrupt
    movzx eax, byte ptr [ENTERED]
    RESULT entered
    mov   ebx, dword ptr [COUNTED + 8]
    X2APIC_SEND 1, COUNTED_VECTOR
    mov   esi, 2
    call  counters_fence
    mov   eax, dword ptr [COUNTED + 8]
    sub   eax, ebx
    RESULT answers
    PASS

other:
    call  counters_join
    jmp   counters_serve

; 16-bit code, by hand
handler:
    .byte 0xfe, 0x06, 0x10, 0x8f          ; inc byte ptr [0x8f10]
    .byte 0x0f, 0xaa                      ; rsm
handler_end:

%include "counters.inc"
%include "idt.inc"
