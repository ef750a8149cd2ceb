; summary: NAME shares a counter between two vCPUs
; needs:   cpus>=2
; machine: cpus=2 start=all
; param:   rounds = 1000   how often each vCPU adds 1
; result:  arrived u64   how many vCPUs came to the end: 2
; result:  total   u64   the counter: vCPUs x rounds, because LOCK loses no addition
;
; pyvmm run NAME.asm
; pyvmm run NAME.asm --cpus 4
; Take LOCK away from add_one, and run it with --param rounds=1000000: what is total now, and why?
;
; Every vCPU starts at `start`, on a thread of its own, with its index in RDI and their number in RSI.

%include "results.inc"

start:
    mov   ecx, PARAM_rounds
add_one:
    lock  inc qword ptr [rip + counter]   ; read, add, write, and nobody in between
    dec   ecx
    jnz   add_one
    lock  inc qword ptr [rip + arrived]
    test  edi, edi
    jz    wait                            ; the first one waits for the others
    hlt                                   ; the others are done

wait:
    pause                                 ; says to the CPU, and to a hypervisor, that this is a loop that waits
    cmp   qword ptr [rip + arrived], rsi
    jb    wait

    mov   rax, [rip + arrived]
    RESULT arrived
    mov   rax, [rip + counter]
    RESULT total
    imul  rsi, rsi, PARAM_rounds
    cmp   rax, rsi
    jne   lost
    PASS
lost:
    FAIL

    .balign 64                            ; a cache line of its own for each
counter:
    .quad 0
    .balign 64
arrived:
    .quad 0
