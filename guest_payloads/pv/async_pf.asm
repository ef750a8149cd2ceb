; summary: async page fault: two tasks meet pages that the host has yet to fetch, and the vCPU goes on meanwhile
; proves:  ASYNC_PF, ASYNC_PF_INT
; machine: irqchip=split timeout=30
; user:    user_begin user_end
; param:   msr = 0x4b564d02    the MSR that switches it on, MSR_KVM_ASYNC_PF_EN
; param:   control = 9         its flags: 1 on, 2 in ring 0 too, 4 to a nested hypervisor, 8 readiness by interrupt
; param:   vector = 0xf3       the interrupt that tells of a page that is ready; 0: its MSR is left alone
; param:   ring = 3            where the tasks run
; param:   interrupts = 1      0: they run with interrupts off
; param:   ack = 1             0: no page-ready interrupt is acknowledged
; param:   reply = 1           0: the host never fetches a page
; param:   turns = 1000        what task B does while task A waits
; param:   pages = 0x40000000  two pages that the host holds back: guest-physical, and virtual
; result:  broadcast  u32   the first token after switching on: 0xffffffff, "wake every waiter"
; result:  faults     u64   how many page faults said that they are asynchronous: 2
; result:  token_a    u64   CR2 of the first: its token, (number << 12) | vCPU id
; result:  flags_a    u64   what KVM left in the shared page: 1, page not present
; result:  error_a    u64   its error code: 0
; result:  token_b    u64   the same of the second
; result:  flags_b    u64
; result:  error_b    u64
; result:  progress   u64   what task B counted while page A was missing: the turns
; result:  early      u64   page-ready interrupts before the host was told, and so before it fetched anything: 0
; result:  ready_a    u64   token of the first page-ready interrupt
; result:  held       u64   page-ready interrupts while the first was consumed, but not acknowledged: 1
; result:  ready_b    u64   token of the second
; result:  readies    u64   page-ready interrupts in all: 2
; result:  loaded_a   u64   what the load of task A read in the end
; result:  loaded_b   u64   and that of task B
;
; A page of the guest can be away on the host: swapped out, or still on another machine. Without help the vCPU sleeps
; until it is back. With asynchronous page faults KVM raises #PF at once, with a token in CR2 in place of an address,
; and the guest runs something else; an interrupt brings the same token when the page is back.
;
;   task A   loads from page A: #PF, token A            ... sleeps ...         loads again, and gets the bytes
;   task B        counts, loads from page B: #PF, token B    ... sleeps ...    and so does B
;   host                            told of both: fetches A, later B
;
; The page shared with KVM holds `flags` (why this #PF) and `token` (which page is ready). KVM writes a token only while
; the field is 0, and looks for the next page that is ready when the guest acknowledges the last.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

SHARED   = DATA_BASE                      ; kvm_vcpu_pv_apf_data
FAULTS   = DATA_BASE + 0x1000             ; u64 each: asynchronous #PFs,
READIES  = FAULTS + 8                     ; page-ready interrupts,
TICKS    = FAULTS + 16                    ; timer interrupts,
ENDED    = FAULTS + 24                    ; tasks that came to their end
READY    = DATA_BASE + 0x1100             ; 8 x u64: tokens of the page-ready interrupts, in order
TASKS    = DATA_BASE + 0x1200             ; 64 bytes a task: RIP, CS, RFLAGS, RSP, SS as IRETQ wants them, then
TASK_CR2   = 40                           ; what its page fault was
TASK_FLAGS = 48
TASK_ERROR = 56

LOADED_A = USER_BASE                      ; where the tasks write, in memory of ring 3
LOADED_B = USER_BASE + 8
COUNTED  = USER_BASE + 16

TIMER_VECTOR = 0x30                       ; of a lower priority than a page-ready interrupt
MOMENT   = 5000000                        ; nanoseconds of the LAPIC timer (KVM's APIC bus runs at 1 GHz)
WHILE    = 400000000                      ; these two only end what does not come: a wait ends when it comes
LONG     = 2000000000
BOTH_MISSING = 1                          ; what the host is told by DELAY_PORT
FIRST_READY  = 2

.if PARAM_ring == 3
TASK_CS = USER_CS
TASK_SS = USER_DS
.else
TASK_CS = KERNEL_CS
TASK_SS = KERNEL_DS
.endif
.if PARAM_interrupts
TASK_RFLAGS = X86_EFLAGS_FIXED | X86_EFLAGS_IF
.else
TASK_RFLAGS = X86_EFLAGS_FIXED
.endif

.macro WRITE_MSR msr, value               ; changes RAX, RCX, RDX
    mov   ecx, \msr
    mov   eax, \value
    xor   edx, edx
    wrmsr
.endm

.macro START_TASK label, stack
    push  TASK_SS
    push  \stack
    push  TASK_RFLAGS
    push  TASK_CS
    lea   rax, [rip + \label]
    push  rax
    iretq
.endm

.macro HANDLE vector, label
    mov   edi, \vector
    lea   rsi, [rip + \label]
    call  set_gate
.endm

start:
    HANDLE PF_VECTOR, page_fault
    HANDLE UD_VECTOR, task_ended
    HANDLE TIMER_VECTOR, timer
    X2APIC_ENABLE
    WRITE_MSR X2APIC_TDCR, APIC_TDR_DIV_1
    WRITE_MSR X2APIC_LVTT, TIMER_VECTOR
.if PARAM_vector
    HANDLE PARAM_vector, page_ready
    WRITE_MSR MSR_KVM_ASYNC_PF_INT, PARAM_vector
.endif
    mov   dword ptr [SHARED], 0           ; touched: an asynchronous fault on this very page would be no use
    WRITE_MSR PARAM_msr, SHARED + PARAM_control

    mov   edi, 1                          ; KVM begins with a token for everybody, and waits until it is consumed
.if PARAM_control & KVM_ASYNC_PF_DELIVERY_AS_INT
    mov   esi, WHILE
.else
    mov   esi, MOMENT                     ; without interrupts none is to be expected
.endif
    call  wait_ready
    mov   rax, qword ptr [READY]
    RESULT broadcast
    cmp   qword ptr [READIES], 0
    je    first_task                      ; none came: there is nothing to consume
    call  consume
    WRITE_MSR MSR_KVM_ASYNC_PF_ACK, 1
first_task:
    mov   qword ptr [READY], 0
    mov   qword ptr [READIES], 0
    START_TASK task_a, USER_STACK_TOP

; ---- a task loaded from a missing page: note what we were told, and run the other task

page_fault:                               ; on the stack: error code, RIP, CS, RFLAGS, RSP, SS
    mov   eax, dword ptr [SHARED + APF_flags]
    mov   dword ptr [SHARED + APF_flags], 0
    cmp   eax, KVM_PV_REASON_PAGE_NOT_PRESENT
    jne   real_page_fault
    mov   ebx, dword ptr [FAULTS]
    cmp   ebx, 2
    jae   real_page_fault                 ; nobody is left to run: not what this lesson expects
    inc   qword ptr [FAULTS]
    mov   edx, ebx
    shl   edx, 6
    add   edx, TASKS
    mov   dword ptr [rdx + TASK_FLAGS], eax
    mov   rax, cr2
    mov   qword ptr [rdx + TASK_CR2], rax
    pop   rax
    mov   qword ptr [rdx + TASK_ERROR], rax
    mov   rdi, rdx
    mov   rsi, rsp
    mov   ecx, 5
    rep   movsq                           ; where the task goes on; its registers hold nothing of worth at its load
    test  ebx, ebx
    jnz   both_missing
    START_TASK task_b, USER_STACK_TOP - 0x1000

real_page_fault:                          ; what the default gate would have said
    push  PF_VECTOR
    out   FAULT_PORT, al
    hlt

; ---- both tasks wait: the host is told, and fetches page A

both_missing:
    mov   rax, qword ptr [READIES]
    RESULT early
    mov   al, BOTH_MISSING
    out   DELAY_PORT, al
    mov   edi, 1
    mov   esi, LONG
    call  wait_ready
    mov   rax, qword ptr [READY]
    RESULT ready_a
    cmp   qword ptr [READIES], 0
    je    finish                          ; it never came

    ; Page B is fetched while the field `token` is taken: KVM cannot deliver it, and holds it back. A halted vCPU is
    ; woken nevertheless when KVM has it (or else by the timer).
    mov   al, FIRST_READY
    out   DELAY_PORT, al
    mov   esi, WHILE
    call  start_timer
until_fetched:
    mov   ebx, dword ptr [TICKS]
    sti
    hlt
    cli
    cmp   dword ptr [TICKS], ebx
    je    fetched                         ; it was not the timer that woke us
    call  time_left
    jnz   until_fetched                   ; it was an earlier timer
fetched:

    ; The first is consumed and not acknowledged: KVM does not look for another, however often the vCPU is entered.
    call  consume
    mov   edi, 2
    mov   esi, MOMENT
    call  wait_ready
    mov   rax, qword ptr [READIES]
    RESULT held
.if PARAM_ack
    WRITE_MSR MSR_KVM_ASYNC_PF_ACK, 1     ; now it does
    mov   edi, 2
    mov   esi, LONG
    call  wait_ready
    call  consume
    WRITE_MSR MSR_KVM_ASYNC_PF_ACK, 1
.endif
    mov   rax, qword ptr [READY + 8]
    RESULT ready_b
    mov   esp, TASKS                      ; IRETQ takes RIP, CS, RFLAGS, RSP and SS from there: task A goes on
    iretq

; ---- a task came to its UD2

task_ended:
    inc   qword ptr [ENDED]
    cmp   qword ptr [ENDED], 2
    je    finish
    cmp   qword ptr [FAULTS], 2
    jne   finish                          ; its load was not held back
    mov   esp, TASKS + 64                 ; task B goes on
    iretq

finish:
    mov   rax, qword ptr [FAULTS]
    RESULT faults
    mov   rax, qword ptr [TASKS + TASK_CR2]
    RESULT token_a
    mov   rax, qword ptr [TASKS + TASK_FLAGS]
    RESULT flags_a
    mov   rax, qword ptr [TASKS + TASK_ERROR]
    RESULT error_a
    mov   rax, qword ptr [TASKS + 64 + TASK_CR2]
    RESULT token_b
    mov   rax, qword ptr [TASKS + 64 + TASK_FLAGS]
    RESULT flags_b
    mov   rax, qword ptr [TASKS + 64 + TASK_ERROR]
    RESULT error_b
    mov   rax, qword ptr [COUNTED]
    RESULT progress
    mov   rax, qword ptr [READIES]
    RESULT readies
    mov   rax, qword ptr [LOADED_A]
    RESULT loaded_a
    mov   rax, qword ptr [LOADED_B]
    RESULT loaded_b
    PASS

; ---- interrupts

page_ready:                               ; the token is noted and left where it is: `consume` frees the field
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
    mov   ecx, dword ptr [READIES]
    and   ecx, 7
    mov   eax, dword ptr [SHARED + APF_token]
    mov   qword ptr [rcx * 8 + READY], rax
    inc   qword ptr [READIES]
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

timer:
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
    inc   qword ptr [TICKS]
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

; ---- subroutines

; One timer interrupt in ESI nanoseconds. One of an earlier start may still be on its way.
start_timer:
    WRITE_MSR X2APIC_TMICT, esi
    ret

; ZF = 1 once the timer has run out.
time_left:
    mov   ecx, X2APIC_TMCCT
    rdmsr
    test  eax, eax
    ret

; Sleep until there were EDI page-ready interrupts, or ESI nanoseconds have passed.
wait_ready:
    call  start_timer
wait_more:
    cmp   qword ptr [READIES], rdi
    jae   waited
    sti                                   ; takes effect after the HLT: nothing can come between the two
    hlt                                   ; (at least once: however late we are, what is pending comes now)
    cli
    cmp   qword ptr [READIES], rdi
    jae   waited
    call  time_left
    jnz   wait_more
waited:
    ret

; Free the field for the next token.
consume:
    mov   dword ptr [SHARED + APF_token], 0
    ret

%include "idt.inc"

; ---- the tasks. UD2 is their way to say that they are done: it works in any ring.

.p2align 12
user_begin:
task_a:
    mov   rax, qword ptr [PARAM_pages]
    mov   qword ptr [LOADED_A], rax
    ud2

task_b:
    mov   ecx, PARAM_turns
count:
    inc   qword ptr [COUNTED]
    dec   ecx
    jnz   count
    mov   rax, qword ptr [PARAM_pages + 0x1000]
    mov   qword ptr [LOADED_B], rax
    ud2
.p2align 12
user_end:
