; summary: the hypercall by which a guest tells which of its pages are encrypted and which are shared
; proves:  HC_MAP_GPA_RANGE
; needs:   KVM_CAP_EXIT_HYPERCALL
; param:   nr = 12              KVM_HC_MAP_GPA_RANGE
; param:   gpa = 0x180000       the guest-physical address of the first page
; result:  features u64   EAX of KVM's feature leaf, as this guest sees it: bit 16 announces the hypercall
; result:  encrypt  i64   four pages encrypted: 0
; result:  share    i64   the second and third shared again: 0
; result:  large    i64   one 4 KiB page, with the attribute for 2 MiB pages: 0
; result:  told     i64   the VMM was made to answer -22: -22
; result:  reserved i64   an attribute bit that means nothing: -22, from the VMM
; result:  size     i64   a page size that does not exist: -22, from the VMM
; result:  beyond   i64   pages where there is no memory: -22, from the VMM
; result:  unaligned i64  an address within a page: -22, before the VMM hears of it
; result:  none     i64   no pages: -22, before the VMM hears of it
; result:  wrapped  i64   more pages than there are behind the address: -22, before the VMM hears of it
; result:  kind     u64   how hypercalls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
;
; The host can read only shared pages of a guest whose memory is encrypted, so both must agree on every page. KVM
; checks the range and leaves the rest to the VMM, as KVM_EXIT_HYPERCALL: what that answers, the guest finds in RAX.
; RBX = address, RCX = number of 4 KiB pages, RDX = attributes: page size in bits 3:0, encrypted in bit 4.

%include "results.inc"

.macro MAP name, gpa, pages, attributes
    mov   eax, PARAM_nr
    mov   rbx, \gpa
    mov   rcx, \pages
    mov   edx, \attributes
    call  hypercall
    RESULT \name
.endm

start:
    call  hypercall_init
    mov   eax, KVM_CPUID_FEATURES
    xor   ecx, ecx
    cpuid
    mov   eax, eax
    RESULT features

    MAP   encrypt,  PARAM_gpa, 4, KVM_MAP_GPA_RANGE_ENCRYPTED
    MAP   share,    PARAM_gpa + 0x1000, 2, KVM_MAP_GPA_RANGE_DECRYPTED
    MAP   large,    PARAM_gpa + 0x5000, 1, KVM_MAP_GPA_RANGE_ENCRYPTED | KVM_MAP_GPA_RANGE_PAGE_SZ_2M

    mov   al, 1
    out   DELAY_PORT, al                  ; the host half: answer -22 now
    MAP   told,     PARAM_gpa + 0x8000, 1, KVM_MAP_GPA_RANGE_ENCRYPTED
    mov   al, 0
    out   DELAY_PORT, al                  ; and decide for yourself again

    MAP   reserved, PARAM_gpa + 0x8000, 1, 0x20
    MAP   size,     PARAM_gpa + 0x8000, 1, 0x3
    MAP   beyond,   0x80000000, 1, KVM_MAP_GPA_RANGE_ENCRYPTED
    MAP   unaligned, PARAM_gpa + 1, 1, KVM_MAP_GPA_RANGE_ENCRYPTED
    MAP   none,     PARAM_gpa, 0, KVM_MAP_GPA_RANGE_ENCRYPTED
    MAP   wrapped,  PARAM_gpa, -1, KVM_MAP_GPA_RANGE_ENCRYPTED

    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

%include "idt.inc"
%include "hypercall.inc"
