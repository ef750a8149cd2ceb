; lesson: console
; says: your guest wrote 11 bytes to port 0x80, 'H' first, at line 10 `out 0x80, al`. Nobody listens there: the console is port 0xe9, DEBUG_CONSOLE

start:
    lea   rsi, [rip + text]
next:
    mov   al, byte ptr [rsi]
    test  al, al
    jz    done
    out   0x80, al
    inc   rsi
    jmp   next
done:
    hlt
text:
    .asciz "Hello, KVM\n"
