/*
 * Who holds which socket now: runs once for every file that every process has open, and writes a struct
 * held_socket for those that are sockets of IPv4 or IPv6 (a BPF iterator: kernel/bpf/task_iter.c).
 *
 * Compile-time settings, without which nothing is reported: the places of members in the kernel's
 * structures, TASK_*_OFFSET, FILE_*_OFFSET, INODE_MODE_OFFSET, SOCKET_SK_OFFSET, SOCK_*_OFFSET.
 */
#ifndef NETMOND_OWNERS_H
#define NETMOND_OWNERS_H

#include "iterator.h"
#include "parse.h"
#include "peek.h"
#include "types.h"

#define S_IFMT 0170000 /* inode(7) */
#define S_IFSOCK 0140000

/* The iterator's context: bpf_iter__task_file of the kernel's BTF. */
struct bpf_iter__task_file {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
    u32 fd;
    struct file *file;
};

#ifdef TASK_TGID_OFFSET
static __always_inline void report_held_socket(struct bpf_iter__task_file *context)
{
    void *task = context->task, *file = context->file, *inode = NULL, *socket = NULL, *sk = NULL;
    struct held_socket held = {};
    u16 mode = 0, family = 0;

    if (!task || !file) /* the end */
        return;
    peek(&inode, file, FILE_INODE_OFFSET);
    if (!inode)
        return;
    peek(&mode, inode, INODE_MODE_OFFSET);
    if ((mode & S_IFMT) != S_IFSOCK)
        return;
    peek(&socket, file, FILE_DATA_OFFSET);
    if (!socket) /* opened with O_PATH */
        return;
    peek(&sk, socket, SOCKET_SK_OFFSET);
    if (!sk)
        return;
    peek(&family, sk, SOCK_FAMILY_OFFSET);
    if (family != AF_INET && family != AF_INET6)
        return;
    peek(&held.cookie, sk, SOCK_COOKIE_OFFSET);
    if (!held.cookie) /* nobody has asked for it, so neither has the meter */
        return;
    peek(&held.started, task, TASK_START_OFFSET);
    peek(&held.pid, task, TASK_TGID_OFFSET);
    peek(&held.comm, task, TASK_COMM_OFFSET);
    bpf_seq_write(context->meta->seq, &held, sizeof(held));
}
#else
static __always_inline void report_held_socket(struct bpf_iter__task_file *context) {}
#endif

#endif
