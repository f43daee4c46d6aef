/*
 * Every socket's own storage. The meter has it; a capture shares it.
 */
#ifndef NETMOND_STORAGE_H
#define NETMOND_STORAGE_H

#include "types.h"

/* Key: socket. Value: its owner and ticket. Accepted sockets get a copy (BPF_F_CLONE); the macro of
 * BCC has no place for that flag. */
struct owners_table_t {
    int key;
    struct owner leaf;
    void *(*sk_storage_get)(void *, void *, int);
    int (*sk_storage_delete)(void *);
    u32 flags;
    u32 max_entries;
};
__attribute__((section("maps/sk_storage"))) struct owners_table_t owners = {
    .flags = BPF_F_NO_PREALLOC | BPF_F_CLONE,
};
BPF_ANNOTATE_KV_PAIR(owners, int, struct owner);

#endif
