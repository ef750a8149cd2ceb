; lesson: console
; says: the console has 'H\x00e\x00l\x00
; says: writes 2 bytes at a time; a letter is one, AL
; summary: print a text on the debug console
; ends:    halt

start:
    lea   rsi, [rip + text]               ; RSI = the address of the text
next:
    mov   al, byte ptr [rsi]              ; AL = the byte there
    test  al, al
    jz    done                            ; a zero byte: the text is over
    out   DEBUG_CONSOLE, ax
    inc   rsi
    jmp   next
done:
    hlt

text:
    .asciz "Hello, KVM\n"
