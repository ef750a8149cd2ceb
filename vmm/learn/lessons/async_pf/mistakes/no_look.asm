; lesson: async_pf
; says: the host let ring 3 load from 0x50000000, where no page is mapped: a real #PF, with `flags` 0
; summary: go on while the host fetches a page
; machine: irqchip=split
; user:    user_begin user_end
; result:  token   u64     what KVM called the missing page
; result:  work    u64     what the kernel did meanwhile: 1000 turns
; result:  loaded  u64     what the load of ring 3 read in the end

%include "results.inc"
%include "ring3.inc"
%include "apic.inc"
%include "entry.inc"

MISSING  = 0x40000000                     ; a page that the host has yet to fetch
SHARED   = DATA_BASE                      ; shared with KVM: kvm_vcpu_pv_apf_data
TOKEN    = DATA_BASE + 0x1000             ; of the page that ring 3 waits for; 0: it waits for none
READY    = DATA_BASE + 0x1008             ; of the page that is ready
READIES  = DATA_BASE + 0x1010             ; how often KVM said that one is
LOADED   = USER_BASE                      ; where ring 3 puts what it has read
VECTOR   = 0xf3

.macro WRITE_MSR msr, value               ; changes RAX, RCX, RDX
    mov   ecx, \msr
    mov   eax, \value
    xor   edx, edx
    wrmsr
.endm

.macro HANDLE vector, label
    mov   edi, \vector
    lea   rsi, [rip + \label]
    call  set_gate
.endm

start:
    HANDLE PF_VECTOR, page_fault
    HANDLE UD_VECTOR, program_ended
    HANDLE VECTOR, page_ready
    X2APIC_ENABLE
    WRITE_MSR MSR_KVM_ASYNC_PF_INT, VECTOR
    mov   dword ptr [SHARED], 0           ; touched, so that this page is there
    WRITE_MSR MSR_KVM_ASYNC_PF_EN, SHARED | KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT
greeting:                                 ; KVM begins with a token for everybody, 0xffffffff
    sti
    hlt
    cli
    cmp   qword ptr [READIES], 0
    je    greeting
    ENTER_RING3 program, X86_EFLAGS_FIXED | X86_EFLAGS_IF

page_fault:                               ; on the stack: error code, RIP, CS, RFLAGS, RSP, SS
    mov   dword ptr [SHARED + APF_flags], 0
    mov   rax, cr2
    mov   qword ptr [TOKEN], rax

    mov   rax, qword ptr [TOKEN]
    RESULT token
    xor   eax, eax                        ; ring 3 cannot go on; somebody else can
work:
    inc   eax
    cmp   eax, 1000
    jb    work
    RESULT work
    out   DELAY_PORT, al                  ; the host hears this, and fetches the page
sleep:
    sti
    hlt
    cli
    mov   rax, qword ptr [READY]
    cmp   rax, qword ptr [TOKEN]
    jne   sleep                           ; another page, or none
    add   rsp, 8                          ; the error code
    iretq                                 ; ring 3 does its load again

real:                                     ; as without a handler of one's own
    push  PF_VECTOR
    out   FAULT_PORT, al
    hlt

page_ready:                               ; the interrupt: the field `token` says which page is there
    TAKEN_ONCE                            ; (for hosts that are guests themselves: see entry.inc)
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
    mov   eax, dword ptr [SHARED + APF_token]
    mov   qword ptr [READY], rax
    inc   qword ptr [READIES]
    mov   dword ptr [SHARED + APF_token], 0   ; free for the next
    X2APIC_END
    WRITE_MSR MSR_KVM_ASYNC_PF_ACK, 1     ; KVM may look for the next
    pop   rdx
    pop   rcx
    pop   rax
    iretq

program_ended:                            ; ring 3 came to its UD2
    mov   rax, qword ptr [LOADED]
    RESULT loaded
    PASS

%include "idt.inc"

.p2align 12
user_begin:
program:                                  ; ring 3: a load, as if nothing were the matter
    mov   rbx, MISSING
    mov   rax, qword ptr [rbx]
    mov   qword ptr [LOADED], rax
    ud2
.p2align 12
user_end:
