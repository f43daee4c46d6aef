/* Reading the kernel's own structures, at offsets that BTF told. */
#ifndef NETMOND_PEEK_H
#define NETMOND_PEEK_H

/*
 * bpf_probe_read_kernel() by its number (include/uapi/linux/bpf.h) and under another name: BCC replaces the
 * usual one by bpf_probe_read(), which these programs may not call, when it cannot see the kernel's symbols,
 * as in a sandbox.
 */
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;

/* Fills *to with what is `offset` bytes into a structure; 0, or an error and zeroes. */
#define peek(to, structure, offset) \
    read_kernel((to), sizeof(*(to)), (const void *)(unsigned long)(structure) + (offset))

#endif
