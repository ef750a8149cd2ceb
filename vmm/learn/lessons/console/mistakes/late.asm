; lesson: console
; says: the console has 'ello, KVM\n\x00', and should have
; says: RSI moved on before AL was written
; summary: print a text on the debug console
; ends:    halt

start:
    lea   rsi, [rip + text]               ; RSI = the address of the text
next:
    mov   al, byte ptr [rsi]              ; AL = the byte there
    test  al, al
    jz    done                            ; a zero byte: the text is over
    inc   rsi
    mov   al, byte ptr [rsi]
    out   DEBUG_CONSOLE, al
    jmp   next
done:
    hlt

text:
    .asciz "Hello, KVM\n"
