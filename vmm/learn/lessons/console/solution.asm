; lesson: console
; summary: print a text on the debug console
; ends:    halt
;
; The text of this lesson: pyvmm learn show 2

start:
    lea   rsi, [rip + text]               ; RSI = the address of the text
next:
    mov   al, byte ptr [rsi]              ; AL = the byte there
    test  al, al
    jz    done                            ; a zero byte: the text is over
    out   DEBUG_CONSOLE, al
    inc   rsi
    jmp   next
done:
    hlt

text:
    .asciz "Hello, KVM\n"
