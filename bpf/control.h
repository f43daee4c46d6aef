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

/* Processes have their sockets open as files. */
static __always_inline bool is_control(struct bpf_sock *sk)
{
#ifdef SOCKET_FILE_OFFSET
    u64 address = 0, socket = 0, file = 0;

    if (sk->type != SOCK_RAW)
        return false;
    peek(&address, &sk, 0); /* see socket_uid() in sockets.c */
    peek(&socket, address, SOCK_SOCKET_OFFSET);
    if (!socket) /* closed */
        return false;
    return !peek(&file, socket, SOCKET_FILE_OFFSET) && !file;
#else
    return false;
#endif
}

#endif
