/*
 * One program in many variants: what differs between them are marks in the code, in whose place user space
 * puts a variant's own values before it loads it (netmond/kernel/variants.py). The verifier sees constants, and
 * drops what a variant does not need.
 *
 * Compiling a function for each stage and each kind of hook would take LLVM many times as long, and programs
 * have no other way to know where they are attached: attach cookies came with Linux 5.15, for raw tracepoints
 * with 6.10.
 */
#ifndef NETMOND_VARIANT_H
#define NETMOND_VARIANT_H

#define CONSTANT_MARK 0x5ca1ab00
#define ARGUMENT_MARK 0x6f00

/* The variant's constant of that number: an instruction that loads the mark, which nothing may fold. */
#define CONSTANT(number)                                                                                   \
    ({                                                                                                     \
        u64 constant_ = CONSTANT_MARK + (number);                                                          \
        asm volatile("" : "+r"(constant_));                                                                \
        constant_;                                                                                         \
    })

/* What the variant's hook hands over, 0: nothing. The mark is the offset of a load; the verifier wants that a
 * constant, too. */
#define ARGUMENT(context, number) (*(volatile u64 *)((context) + ARGUMENT_MARK + 8 * (number)))

#endif
