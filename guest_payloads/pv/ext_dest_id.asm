; summary: an MSI for an APIC id above 255, through address bits that only KVM guests know
; proves:  MSI_EXT_DEST_ID
; needs:   KVM_CAP_X2APIC_API, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_SIGNAL_MSI
; machine: irqchip=split start=all timeout=30
; param:   shift = 5      where bits 14:8 of the destination go in the address
; result:  features u64   EAX of KVM's feature leaf, as this guest sees it: bit 15 permits those bits
; result:  messages u64   how many messages of the table were sent
;
; A device interrupts by writing a data word to an address in which bits 19:12 name the APIC: ids up to 255. Larger
; ones need interrupt remapping, or this: under KVM bits 11:5 of the address hold bits 14:8 of the id. The guest writes
; such an address into its device, here a doorbell at port 0x80, and pyvmm turns it into what KVM_SIGNAL_MSI takes.
;
; The host half writes a table to TABLE, and reads back who was interrupted. A row has 16 u64: the destination + 1 (0
; ends the table), whether pyvmm translates the address, the address and the data word that the guest wrote, what
; KVM_SIGNAL_MSI returned, then from 8 on the interrupts that each vCPU had counted by then.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

TABLE = DATA_BASE + 0x2000

start:
    mov   r15, rdi
    mov   rbp, rsi                        ; number of vCPUs
    test  edi, edi
    jnz   other

    call  counters_init
    call  counters_join
wait:
    pause
    cmp   qword ptr [JOINED], rbp
    jb    wait
    mov   eax, KVM_CPUID_FEATURES
    xor   ecx, ecx
    cpuid
    mov   eax, eax
    RESULT features

    mov   r14d, TABLE
    xor   r13d, r13d
next:
    mov   rbx, qword ptr [r14]
    test  rbx, rbx
    jz    finished
    dec   rbx                             ; the destination
    movzx eax, bl
    shl   eax, 12                         ; bits 7:0 at 19:12
    shr   ebx, 8
    shl   ebx, PARAM_shift                ; bits 14:8 at 11:5
    or    eax, ebx
    mov   ebx, APIC_DEFAULT_PHYS_BASE
    or    rax, rbx
    mov   qword ptr [r14 + 16], rax
    mov   qword ptr [r14 + 24], COUNTED_VECTOR
    mov   eax, r13d
    out   DELAY_PORT, al                  ; the doorbell: which row
    mov   rsi, rbp
    call  counters_fence
    xor   edi, edi
copy:
    mov   rax, qword ptr [rdi * 8 + COUNTED]
    mov   qword ptr [r14 + rdi * 8 + 64], rax
    inc   edi
    cmp   edi, ebp
    jb    copy
    inc   r13d
    add   r14, 128
    jmp   next

finished:
    mov   eax, r13d
    RESULT messages
    PASS

other:
    call  counters_join
    jmp   counters_serve

%include "counters.inc"
%include "idt.inc"
