; summary: KVM's binary statistics: a known number of exits, and how much they rise
; proves:  statistics
; needs:   KVM_CAP_BINARY_STATS_FD
; machine: timeout=30
; param:   outs = 50       OUTs to a port
; param:   reads = 20      reads of MMIO

%include "results.inc"

start:
    mov   ecx, PARAM_outs
out_again:
    out   DELAY_PORT, al
    dec   ecx
    jnz   out_again
    mov   ecx, PARAM_reads
    mov   edi, SCRATCH_MMIO_BASE >> 12
    shl   rdi, 12
read_again:
    mov   eax, dword ptr [rdi]
    dec   ecx
    jnz   read_again
    PASS
