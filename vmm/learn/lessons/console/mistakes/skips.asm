; lesson: console
; says: the console has 'Hlo V\n', and should have 'Hello, KVM\n'

start:
    lea   rsi, [rip + text]
next:
    mov   al, byte ptr [rsi]
    test  al, al
    jz    done
    out   DEBUG_CONSOLE, al
    add   rsi, 2
    jmp   next
done:
    hlt
text:
    .asciz "Hello, KVM\n"
