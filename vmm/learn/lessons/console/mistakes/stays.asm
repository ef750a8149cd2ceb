; lesson: console
; says: your guest prints without an end, at line 10 `out DEBUG_CONSOLE, al`: 'HHHHHHHHHHHHHHHHHHHHHHHH' and so on
; says: It is the same byte each time: RSI is 0x20012 and does not move on
start:
    lea   rsi, [rip + text]
next:
    mov   al, byte ptr [rsi]
    test  al, al
    jz    done
    out   DEBUG_CONSOLE, al
    jmp   next
done:
    hlt
text:
    .asciz "Hello, KVM\n"
