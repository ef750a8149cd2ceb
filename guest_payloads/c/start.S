/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Where a guest in C begins: in 64-bit mode on the boot stack, with the index of this vCPU in EDI and their number in ESI,
 * which are the arguments of `int main(int cpu, int cpus)`. What main returns goes to the exit port.
 */
    .intel_syntax noprefix

    .section .text.start, "ax"
    .globl start
    .type start, @function
start:
    xor   ebp, ebp                      /* the outermost frame */
    call  main
    mov   edi, eax
    call  end_run
    .size start, . - start

/* long kvm_hypercall(long number, long a0, long a1, long a2, long a3): RDI, RSI, RDX, RCX, R8. By which instruction, the
 * #UD handler below finds out: Intel has VMCALL, AMD has VMMCALL; where neither reaches KVM it hands the call to pyvmm.
 * Its name tells pyvmm to serve that, and to switch KVM_X86_QUIRK_FIX_HYPERCALL_INSN off. */
    .section .text.kvm_hypercall, "ax"
    .globl kvm_hypercall
    .type kvm_hypercall, @function
kvm_hypercall:
    push  rbx
    push  rsi
    push  rdi
    push  rdx
    push  rcx
    push  r8
    mov   edi, UD_VECTOR
    lea   rsi, [rip + hypercall_undefined]
    call  set_gate                      /* each time: a guest may have its own handler between two calls */
    pop   rsi                           /* a3 */
    pop   rdx                           /* a2 */
    pop   rcx                           /* a1 */
    pop   rax                           /* the number */
    pop   rbx                           /* a0 */
    cmp   byte ptr [rip + hypercall_kind], BY_VMCALL
    jne   .Lamd
    vmcall
    pop   rbx
    ret
.Lamd:
    vmmcall
    pop   rbx
    ret

    .globl hypercall_undefined
hypercall_undefined:                    /* on the stack: RIP, CS, RFLAGS, RSP, SS */
    push  rax
    mov   rax, qword ptr [rsp + 8]
    cmp   word ptr [rax], 0x010f
    jne   .Lother
    cmp   byte ptr [rax + 2], 0xc1      /* VMCALL */
    je    .Lno_vmcall
    cmp   byte ptr [rax + 2], 0xd9      /* VMMCALL */
    je    .Lno_vmmcall
.Lother:
    pop   rax                           /* not ours: what the default gate says */
    push  0
    push  UD_VECTOR
    out   FAULT_PORT, al
    hlt
.Lno_vmcall:
    cmp   byte ptr [rip + hypercall_kind], BY_VMCALL
    jne   .Lhand_over
    mov   byte ptr [rip + hypercall_kind], BY_VMMCALL
    lea   rax, [rip + .Lamd]
    mov   qword ptr [rsp + 8], rax      /* the other instruction, with the same registers */
    pop   rax
    iretq
.Lno_vmmcall:
    mov   byte ptr [rip + hypercall_kind], HANDED_OVER
.Lhand_over:
    pop   rax
    out   HYPERCALL_PORT, al            /* pyvmm serves the call and sets RAX */
    add   qword ptr [rsp], 3
    iretq
    .size kvm_hypercall, . - kvm_hypercall

    .section .data.hypercall_kind, "aw"
hypercall_kind:
    .byte BY_VMCALL

    .section .note.GNU-stack, "", @progbits
