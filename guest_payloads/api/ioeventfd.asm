; summary: writes that signal an eventfd in place of an exit: which ones, by address, length and value
; proves:  ioeventfd, ioeventfd_any_length
; needs:   KVM_CAP_IOEVENTFD
; machine: timeout=30
; param:   mmio = 0xd0700000    guest-physical address without memory behind it
; param:   port = 0x1300        the first of the ports
; result:  done u64   writes made: 22
;
; The host half binds eventfds to some of these writes. Such a write is over when KVM has counted it: the value goes
; nowhere, and the VMM is not asked. Any other leaves the guest as usual. What became of each write, only the host can
; tell; the guest merely makes them.

%include "results.inc"

start:
    mov   ebx, PARAM_mmio
    mov   edx, PARAM_port
    ; 4 bytes with the value 7
    mov   dword ptr [rbx], 7              ; matches
    mov   dword ptr [rbx], 8              ; another value
    mov   word ptr [rbx], 7               ; another length
    mov   dword ptr [rbx + 4], 7          ; another address
    ; 8 bytes, any value
    mov   rax, 0x123456789abcdef0
    mov   qword ptr [rbx + 0x10], rax
    mov   qword ptr [rbx + 0x10], rbx
    mov   dword ptr [rbx + 0x10], eax     ; another length
    ; any length
    mov   byte ptr [rbx + 0x20], al
    mov   word ptr [rbx + 0x20], ax
    mov   dword ptr [rbx + 0x20], eax
    mov   qword ptr [rbx + 0x20], rax
    ; port: 2 bytes with the value 0x1234
    mov   eax, 0x1234
    out   dx, ax                          ; matches
    inc   eax
    out   dx, ax                          ; another value
    dec   eax
    out   dx, al                          ; another length
    ; port + 1: 1 byte, any value
    inc   edx
    out   dx, al
    out   dx, al
    out   dx, al
    ; port + 2: any length
    inc   edx
    out   dx, al
    out   dx, ax
    out   dx, eax

    mov   al, 1
    out   DELAY_PORT, al                  ; the host half takes all of it back
    mov   dword ptr [rbx], 7
    mov   edx, PARAM_port
    mov   eax, 0x1234
    out   dx, ax
    mov   eax, 22
    RESULT done
    PASS
