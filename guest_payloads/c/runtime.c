/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The part of pyvmm.h that is no inline function, and the four functions that a compiler calls by itself. What a guest
 * does not use, the linker leaves out.
 */
#include <pyvmm.h>

/* The exit port has eight bits. What has more, and would read there as a pass or a skip, is a failure like any other. */
_Noreturn void end_run(int status)
{
    uint8_t told = status;

    if (told != status && (told == PASS || told == SKIP))
        told = 0xff;
    for (;;) {
        outb(told, EXIT_PORT);
        halt();
    }
}

_Noreturn void check_failed(const char *condition, const char *file, int line)
{
    printf("%s:%d: does not hold: %s\n", file, line, condition);
    end_run(FAIL);
}

/* The default gate stays, but for its address: type, privilege and stack are those of pyvmm's table. */
void set_gate(int vector, const void *handler)
{
    volatile uint8_t *gate = (volatile uint8_t *)(IDT_BASE + 16UL * (uint8_t)vector);
    uint64_t address = (uint64_t)handler;

    *(volatile uint16_t *)gate = address;
    *(volatile uint16_t *)(gate + 6) = address >> 16;
    *(volatile uint32_t *)(gate + 8) = address >> 32;
}

int putchar(int c)
{
    outb(c, DEBUG_CONSOLE);
    return (unsigned char)c;
}

static int put(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        putchar(text[i]);
    return size;
}

int puts(const char *text)
{
    return put(text, strlen(text)) + put("\n", 1);
}

struct spec {
    bool left, zero, alternate, plus, space;
    int width, precision;
};

static int pad(int count, char with)
{
    int done = 0;

    for (; done < count; done++)
        putchar(with);
    return done;
}

static int number(const struct spec *spec, uint64_t value, unsigned base, bool upper, const char *sign)
{
    const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    char text[24];
    int at = sizeof text, signs = strlen(sign), done = 0;

    do {
        text[--at] = digits[value % base];
        value /= base;
    } while (value);

    int size = sizeof text - at, room = spec->width - size - signs;
    bool zero = spec->zero && !spec->left;

    if (!spec->left && !zero)
        done += pad(room, ' ');
    done += put(sign, signs);
    if (zero)
        done += pad(room, '0');
    done += put(text + at, size);
    if (spec->left)
        done += pad(room, ' ');
    return done;
}

static int words(const struct spec *spec, const char *text)
{
    int size = 0, done = 0;

    if (!text)
        text = "(null)";
    while ((spec->precision < 0 || size < spec->precision) && text[size])
        size++;
    if (!spec->left)
        done += pad(spec->width - size, ' ');
    done += put(text, size);
    if (spec->left)
        done += pad(spec->width - size, ' ');
    return done;
}

static const char *digits_of(const char *at, int *value)
{
    for (*value = 0; *at >= '0' && *at <= '9'; at++)
        *value = *value * 10 + *at - '0';
    return at;
}

int vprintf(const char *format, va_list arguments)
{
    int done = 0;

    for (const char *at = format; *at; at++) {
        if (*at != '%') {
            done += put(at, 1);
            continue;
        }

        struct spec spec = {.precision = -1};
        const char *begin = at++;

        for (;; at++) {
            if (*at == '-') spec.left = true;
            else if (*at == '0') spec.zero = true;
            else if (*at == '#') spec.alternate = true;
            else if (*at == '+') spec.plus = true;
            else if (*at == ' ') spec.space = true;
            else break;
        }
        if (*at == '*') {
            spec.width = va_arg(arguments, int);
            at++;
        } else {
            at = digits_of(at, &spec.width);
        }
        if (*at == '.')
            at = digits_of(at + 1, &spec.precision);

        int longs = 0; /* -2 hh, -1 h, 0 int, 1 l and z, 2 ll */

        for (; *at == 'l' || *at == 'z' || *at == 'j' || *at == 't'; at++)
            longs++;
        for (; *at == 'h'; at++)
            longs--;

        switch (*at) {
        case 'd':
        case 'i': {
            int64_t value = longs > 0 ? va_arg(arguments, int64_t) : va_arg(arguments, int);

            value = longs == -1 ? (short)value : longs == -2 ? (signed char)value : value;
            uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;

            done += number(&spec, size, 10, false, value < 0 ? "-" : spec.plus ? "+" : spec.space ? " " : "");
            break;
        }
        case 'u':
        case 'o':
        case 'x':
        case 'X': {
            uint64_t value = longs > 0 ? va_arg(arguments, uint64_t) : va_arg(arguments, unsigned);

            value = longs == -1 ? (uint16_t)value : longs == -2 ? (uint8_t)value : value;
            unsigned base = *at == 'u' ? 10 : *at == 'o' ? 8 : 16;

            done += number(&spec, value, base, *at == 'X', spec.alternate && value && base == 16 ? "0x" : "");
            break;
        }
        case 'p':
            done += number(&spec, va_arg(arguments, uint64_t), 16, false, "0x");
            break;
        case 'c': {
            char one[2] = {va_arg(arguments, int), 0};

            spec.precision = -1;
            done += one[0] ? words(&spec, one) : put(one, 1);
            break;
        }
        case 's':
            done += words(&spec, va_arg(arguments, const char *));
            break;
        case '%':
            done += put("%", 1);
            break;
        default: /* not one of ours: shown as it stands */
            if (!*at)
                at--;
            done += put(begin, at - begin + 1);
        }
    }
    return done;
}

int printf(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int done = vprintf(format, arguments);
    va_end(arguments);
    return done;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    void *begin = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return begin;
}

void *memmove(void *to, const void *from, size_t size)
{
    if ((uintptr_t)to - (uintptr_t)from >= size)
        return memcpy(to, from, size);

    volatile uint8_t *end = to;
    const uint8_t *source = from;

    while (size--)
        end[size] = source[size];
    return to;
}

void *memset(void *to, int value, size_t size)
{
    void *begin = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return begin;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const volatile uint8_t *one = a, *other = b;

    for (size_t i = 0; i < size; i++)
        if (one[i] != other[i])
            return one[i] - other[i];
    return 0;
}

size_t strlen(const char *text)
{
    const volatile char *end = text;

    while (*end)
        end++;
    return end - text;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}
