/*
 * The kernel's own sockets, by which it answers by itself: echo replies, resets, neighbour discovery. Some
 * serve all network namespaces at once.
 *
 * Compile-time settings, without which they are taken for root's: SOCK_SOCKET_OFFSET, SOCKET_FILE_OFFSET.
 */
#ifndef NETMOND_CONTROL_H
#define NETMOND_CONTROL_H

#include "peek.h"

#define SOCK_DGRAM 2 /* include/linux/net.h */
#define SOCK_RAW 3
#define TCP_LISTEN 10 /* include/net/tcp_states.h */

/* Whether no process has it: theirs are open as files. */
static __always_inline bool is_kernels(struct bpf_sock *sk)
{
#ifdef SOCKET_FILE_OFFSET
    u64 address = 0, socket = 0, file = 0;

    peek(&address, &sk, 0); /* see socket_uid() in sockets.c */
    peek(&socket, address, SOCK_SOCKET_OFFSET);
    if (!socket) /* closed */
        return false;
    return !peek(&file, socket, SOCKET_FILE_OFFSET) && !file;
#else
    return false;
#endif
}

static __always_inline bool is_control(struct bpf_sock *sk)
{
    return sk->type == SOCK_RAW && is_kernels(sk);
}

/* Tunnels', for instance, and those by which soft-RoCE sends and receives (drivers/infiniband/sw/rxe). */
static __always_inline bool is_kernel_datagram(struct bpf_sock *sk)
{
    return sk->type == SOCK_DGRAM && is_kernels(sk);
}

#endif
