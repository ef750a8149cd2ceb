; summary: several vCPUs, started directly, that count in shared memory
; needs:   cpus>=1
; machine: cpus=2 start=all
; param:   rounds = 1000   how often each vCPU adds 1 with a LOCK prefix
; result:  arrived u64   how many vCPUs arrived
; result:  total   u64   the shared counter: vCPUs x rounds, because LOCK loses no addition
;
; Every vCPU starts at `start` with its index in RDI and their number in RSI, on a thread of its own. Vcpu 0 waits for
; the others and ends the run; the others halt.

%include "results.inc"

ARRIVED = DATA_BASE
COUNTER = DATA_BASE + 0x40                ; a cache line of its own
INDICES = DATA_BASE + 0x1000              ; u8 per vCPU: 1 + its index, written by itself

start:
    lea   eax, [rdi + 1]
    mov   byte ptr [rdi + INDICES], al
    mov   ecx, PARAM_rounds
add_one:
    lock  inc qword ptr [COUNTER]
    dec   ecx
    jnz   add_one
    lock  inc qword ptr [ARRIVED]
    test  edi, edi
    jz    wait
    hlt                                   ; this vCPU is done

wait:
    pause
    cmp   qword ptr [ARRIVED], rsi
    jb    wait
    mov   rax, qword ptr [ARRIVED]
    RESULT arrived
    mov   rax, qword ptr [COUNTER]
    RESULT total
    PASS
