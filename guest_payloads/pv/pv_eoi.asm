; summary: an interrupt ended by clearing a bit in memory, in place of a write to the APIC
; proves:  PV_EOI
; machine: irqchip=split timeout=30
; param:   msr = 0x4b564d04     the feature's MSR
; param:   apic_id = 0          if not 0, the APIC id is changed to this: KVM then leaves APICv and AVIC off
; param:   count = 128          interrupts with the feature on
; result:  bit_off   u64   the bit in the handler with the feature off: 0, the handler must write EOI
; result:  isr       u64   the vector's in-service bit in that handler, as the guest reads it
; result:  unended   u64   deliveries after a second interrupt, with no EOI written: 1, it waits for the first's end
; result:  ended     u64   deliveries after the EOI: 2
; result:  readback  u64   the MSR as read after the write
; result:  delivered u64   interrupts taken with the feature on: all that were sent
; result:  taken     u64   of those, how many found the bit set and wrote no EOI
;
; KVM knows when the guest's end of an interrupt would tell it nothing new. Then it sets bit 0 of a word that the guest
; registered, and a handler that finds it set clears it and is done: no exit. A handler that finds it clear writes EOI.
; Test and clear must be one instruction, for an exit in between takes the bit back; here it is the handler's first.
;
; The APIC stays in xAPIC mode, registers in memory, because the inhibition by a changed id works only there. OUT to
; port 0x81 in the first handler, and to 0x80 after some later ones (AL: was the bit set?), lets the host half read the
; in-service bit from its side; OUT to 0x82 is an exit and no more.

%include "results.inc"
%include "entry.inc"

VECTOR = 0x51
EOI_WORD = DATA_BASE                        ; the PV EOI word, u32
COUNT  = DATA_BASE + 0x40                 ; u64: interrupts taken
TAKEN  = DATA_BASE + 0x80                 ; u64: of those, ended by the bit
FIRST_BIT = DATA_BASE + 0xc0              ; u64: the bit with the feature off, ORed
FIRST_ISR = DATA_BASE + 0x100             ; u64: the in-service bit in that handler
ISR_WORD = APIC_ISR + (VECTOR >> 5) * 0x10
ISR_BIT  = VECTOR & 0x1f
PATIENCE = 1000                           ; turns of a loop until an interrupt is given up
SHOWN = 8                                 ; the host half looks after each interrupt, until so many found the bit

; RBX = the APIC's registers. An IPI to ourselves, pending or taken when this ends.
.macro SEND
    mov   dword ptr [rbx + APIC_ICR], APIC_DEST_SELF | VECTOR
.endm

; wait for interrupt number R12, or give up
.macro AWAIT
    mov   ecx, PATIENCE
more\@:
    cmp   qword ptr [COUNT], r12
    jae   taken\@
    pause
    dec   ecx
    test  cl, 0x1f
    jnz   more\@
    out   0x82, al                        ; an exit now and then: some hosts deliver only at the next one
    test  ecx, ecx
    jnz   more\@
taken\@:
.endm

start:
    mov   ebx, APIC_DEFAULT_PHYS_BASE
.if PARAM_apic_id
    mov   dword ptr [rbx + APIC_ID], PARAM_apic_id << 24
.endif
    mov   dword ptr [rbx + APIC_SPIV], 0x1ff        ; software enable, spurious vector 0xff
    mov   edi, VECTOR
    lea   rsi, [rip + handler_off]
    call  set_gate
    sti

    mov   r12d, 1                         ; ---- the feature off, and no EOI written
    SEND
    AWAIT
    mov   r12d, 2
    SEND                                  ; the same vector: it must wait for the first's EOI
    AWAIT
    mov   rax, qword ptr [FIRST_BIT]
    RESULT bit_off
    mov   rax, qword ptr [FIRST_ISR]
    RESULT isr
    mov   rax, qword ptr [COUNT]
    RESULT unended
    mov   dword ptr [rbx + APIC_EOI], 0
    AWAIT
    mov   dword ptr [rbx + APIC_EOI], 0   ; and for the second
    mov   rax, qword ptr [COUNT]
    RESULT ended

    mov   edi, VECTOR                     ; ---- the feature on
    lea   rsi, [rip + handler_on]
    call  set_gate
    mov   qword ptr [COUNT], 0
    mov   ecx, PARAM_msr
    mov   eax, EOI_WORD | 1                   ; bit 0 enables
    xor   edx, edx
    wrmsr
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    RESULT readback
    xor   r12d, r12d
    xor   r14d, r14d                      ; interrupts that found the bit, and were shown
next:
    mov   r13, qword ptr [TAKEN]
    inc   r12d
    SEND
    AWAIT
    cmp   r14d, SHOWN
    jae   unseen
    mov   rax, qword ptr [TAKEN]
    sub   rax, r13
    add   r14d, eax
    out   DELAY_PORT, al                  ; an exit: KVM sees whether the bit was cleared
unseen:
    cmp   r12d, PARAM_count
    jb    next
    mov   rax, qword ptr [COUNT]
    RESULT delivered
    mov   rax, qword ptr [TAKEN]
    RESULT taken
    PASS

handler_on:
    TAKEN_ONCE
    btr   dword ptr [EOI_WORD], 0             ; CF = the bit, and the bit is clear now
    jnc   end_by_write
    inc   qword ptr [TAKEN]
    inc   qword ptr [COUNT]
    iretq
end_by_write:
    inc   qword ptr [COUNT]
    mov   dword ptr [rbx + APIC_EOI], 0
    iretq

handler_off:
    TAKEN_ONCE
    push  rax
    btr   dword ptr [EOI_WORD], 0
    setc  al
    movzx eax, al
    or    qword ptr [FIRST_BIT], rax
    mov   eax, dword ptr [rbx + ISR_WORD]
    shr   eax, ISR_BIT
    and   eax, 1
    cmp   qword ptr [COUNT], 0
    jne   off_counted
    mov   qword ptr [FIRST_ISR], rax
    out   0x81, al
off_counted:
    inc   qword ptr [COUNT]
    pop   rax
    iretq

%include "idt.inc"
