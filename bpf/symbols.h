/*
 * Names of functions by address, without /proc/kallsyms, which a sandbox may hide: runs once for each element
 * of an array of addresses and writes a line for it (a BPF iterator: kernel/bpf/map_iter.c, Linux 5.9).
 */
#ifndef NETMOND_SYMBOLS_H
#define NETMOND_SYMBOLS_H

#include "iterator.h"
#include "types.h"

#define LOCATIONS 64 /* addresses that are looked up at a time */

/* The iterator's context: bpf_iter__bpf_map_elem of the kernel's BTF. */
struct bpf_iter__bpf_map_elem {
    struct bpf_iter_meta *meta;
    struct bpf_map *map;
    void *key;
    void *value;
};

/* Place -> address; written by user space before each run, 0: none. */
BPF_ARRAY(locations, u64, LOCATIONS);

/* "tcp_v4_rcv+0x1f/0x13f0", and " [module]" of one. %pB: the address is where a call returns to, which may be
 * the first instruction behind the caller (Documentation/core-api/printk-formats.rst). */
static __always_inline void write_name(struct bpf_iter__bpf_map_elem *context)
{
    u64 *address = context->value;
    char format[] = "%pB\n";
    u64 arguments[1];

    if (!address || !*address) /* the end, or an element not in use */
        return;
    arguments[0] = *address;
    bpf_seq_printf(context->meta->seq, format, sizeof(format), arguments, sizeof(arguments));
}

#endif
