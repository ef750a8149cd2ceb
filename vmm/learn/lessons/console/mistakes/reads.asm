; lesson: console
; says: your guest read from port 0xe9, at line 10 `in al, DEBUG_CONSOLE`, and wrote to none

start:
    lea   rsi, [rip + text]
next:
    mov   al, byte ptr [rsi]
    test  al, al
    jz    done
    in    al, DEBUG_CONSOLE
    inc   rsi
    jmp   next
done:
    hlt
text:
    .asciz "Hello, KVM\n"
