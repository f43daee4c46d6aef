/*
 * What programs of classic BPF (linux/filter.h) stand on when they are C: netmond/frames/filter_source.py makes a
 * function of each, with an accumulator A, an index X and a memory M0 to M15.
 *
 * They read a frame as it was on the wire. Its first FILTER_HEAD bytes are read from a copy, the rest by a
 * helper from the packet. A load beyond the end is the end: no match. All is as libpcap's own interpreter has
 * it: numbers are unsigned, an index does not wrap.
 *
 * Reads are volatile: else the compiler keeps numbers for later, the verifier then knows those that a test has
 * passed, sees every way through the tests as another one, and gives up.
 */
#ifndef NETMOND_FILTER_H
#define NETMOND_FILTER_H

#include <linux/types.h>

#define FILTER_HEAD 128 /* mirrored by filter_source.py */

/*
 * head: FILTER_HEAD bytes; have: how many of them are the frame's; length: of the frame.
 * shift: where in the packet the frame begins, for what lies behind the head: -4 if a tag was put into the head.
 */
#define FILTER_ARGUMENTS const u8 *head, u32 have, u32 length, int shift, struct __sk_buff *skb

#define FILTER_B(pointer) (*(const volatile u8 *)(pointer))
#define FILTER_H(pointer) bpf_ntohs(*(const volatile u16 *)(pointer))
#define FILTER_W(pointer) bpf_ntohl(*(const volatile u32 *)(pointer))

/* A number within the head, at a constant place, for the body of a function with those arguments. Not an inline
 * function: a thousand of those take the compiler seconds. */
#define FILTER_READ(target, unit, size, at)                                                                \
    if (have < (at) + (size))                                                                              \
        return 0;                                                                                          \
    target = FILTER_##unit(head + (at))

/* A number anywhere; `room` is a u32. The sum is hidden from the compiler, which else tests its parts; the verifier
 * knows of the register that was tested, and older ones of comparisons with constants only. */
#define FILTER_SEEK(target, unit, size, place)                                                             \
    at = (place);                                                                                          \
    asm volatile("" : "+r"(at));                                                                           \
    if (at <= FILTER_HEAD - (size)) {                                                                      \
        if (at + (size) > have)                                                                            \
            return 0;                                                                                      \
        target = FILTER_##unit(head + at);                                                                 \
    } else {                                                                                               \
        if (at + (size) > length || bpf_skb_load_bytes(skb, (int)at + shift, &room, size))                 \
            return 0;                                                                                      \
        target = FILTER_##unit(&room);                                                                     \
    }

#endif
