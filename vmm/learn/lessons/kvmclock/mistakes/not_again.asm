; lesson: kvmclock
; says: the host changed the page after 
; says: and its version from 2 to 258; the reader came back with a time made of old and new fields
; summary: read the clock that KVM writes into the guest's memory
; result:  first   u64     nanoseconds since the VM was made
; result:  second  u64     and once more: not less
;
; The text of this lesson: pyvmm learn show 10

%include "results.inc"

CLOCK = DATA_BASE                         ; the page, a pvclock_vcpu_time_info

start:
    mov   ecx, MSR_KVM_SYSTEM_TIME_NEW
    mov   eax, CLOCK | KVM_MSR_ENABLED    ; where it is to be written; bit 0: on
    xor   edx, edx
    wrmsr
    mov   edi, CLOCK
    call  read_clock
    RESULT first
    mov   edi, CLOCK
    call  read_clock
    RESULT second
    PASS

; RDI = the page; RAX = nanoseconds, by the rest of the page. Changes RCX, RDX, R8 and R10, not RDI and R9.
nanoseconds:
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    sub   rax, qword ptr [rdi + PVCLOCK_tsc_timestamp]
    mov   cl, byte ptr [rdi + PVCLOCK_tsc_shift]
    test  cl, cl
    js    shift_right
    shl   rax, cl
    jmp   scale
shift_right:
    neg   cl
    shr   rax, cl
scale:
    mov   r10d, dword ptr [rdi + PVCLOCK_tsc_to_system_mul]
    mul   r10                             ; 128 bits in RDX:RAX
    shrd  rax, rdx, 32
    add   rax, qword ptr [rdi + PVCLOCK_system_time]
    ret

; RDI = the page; RAX = nanoseconds, of one version of the page
read_clock:
    mov   r9d, dword ptr [rdi + PVCLOCK_version]
    test  r9d, 1
    jnz   read_clock                      ; KVM is writing
    lfence
    call  nanoseconds
    lfence
    ret
