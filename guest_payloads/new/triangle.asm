; RAX = 1 + 2 + ... + RDI. A function as the tests call it: arguments in RDI, RSI, ..., the result in RAX.
triangle:
    xor   eax, eax
more:
    test  rdi, rdi
    jz    done
    add   rax, rdi
    dec   rdi
    jmp   more
done:
    ret
