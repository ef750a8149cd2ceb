; lesson: console
; says: it went the other way
; summary: print a text on the debug console
; ends:    halt

start:
    lea   rsi, [rip + text]               ; RSI = the address of the text
next:
    mov   al, byte ptr [rsi]              ; AL = the byte there
    test  al, al
    jz    done                            ; a zero byte: the text is over
    out   DEBUG_CONSOLE, al
    dec   rsi
    jmp   next
done:
    hlt

text:
    .asciz "Hello, KVM\n"
