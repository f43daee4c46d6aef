/*
 * Whose a socket is, between whom it is, and which row it has.
 *
 * Compile-time settings, if the kernel's BTF tells: SOCK_UID_OFFSET, SOCK_NET_OFFSET and NET_COOKIE_OFFSET:
 * places of the user and the network namespace in the kernel's structures.
 */
#ifndef NETMOND_IDENTITY_H
#define NETMOND_IDENTITY_H

#include "control.h"
#include "peek.h"
#include "roce.h"
#include "types.h"

static __always_inline void remember_process(struct owner *owner)
{
    owner->pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(owner->comm, sizeof(owner->comm));
}

/* The user who owns the socket, as the initial user namespace names it. bpf_get_socket_uid() answers in
 * terms of the network namespace's owner: a rootless container's user would be called root. */
static __always_inline u32 socket_uid(struct __sk_buff *skb, struct bpf_sock *sk)
{
#ifdef SOCK_UID_OFFSET
    u64 address = 0;
    u32 uid;

    /* The verifier allows no arithmetic on a socket pointer: read it back from the stack as a number. */
    peek(&address, &sk, 0);
    if (!peek(&uid, address, SOCK_UID_OFFSET))
        return uid;
#endif
    return bpf_get_socket_uid(skb);
}

/* The cookie of the network namespace the socket lives in, 0: unknown. Remembered in `owner`, three reads of
 * 15 ns each; NULL: there is none, or it is a control socket, which the kernel moves between namespaces. */
static __always_inline u64 socket_netns(struct bpf_sock *sk, struct owner *owner)
{
    u64 cookie = 0;
#ifdef NET_COOKIE_OFFSET
    u64 address = 0, net = 0;

    if (owner && owner->netns)
        return owner->netns;
    peek(&address, &sk, 0);
    if (!peek(&net, address, SOCK_NET_OFFSET))
        peek(&cookie, net, NET_COOKIE_OFFSET);
    if (owner)
        owner->netns = cookie;
#endif
    return cookie;
}

/* Whether soft-RoCE sends the packet: it has sockets of its own, made by the process whose queue pair it is, but
 * what it receives comes to no socket. So both is left to the interfaces. It writes neither options nor
 * extension headers. Programs' sockets younger than the meter have not come so far. */
static __always_inline bool sends_rdma(struct __sk_buff *skb, struct bpf_sock *sk)
{
    u32 at = skb->protocol == bpf_htons(ETHERTYPE_IPV4) ? sizeof(struct ipv4) : sizeof(struct ipv6);
    struct roce roce = {};
    struct {
        struct udp udp;
        struct bth bth;
    } headers;

    if (!is_kernel_datagram(sk) || bpf_skb_load_bytes(skb, at, &headers, sizeof(headers)))
        return false;
    if (headers.udp.destination != bpf_htons(ROCE_PORT))
        return false;
    read_bth(&headers.bth, ROCE_V2, &roce);
    return roce.version;
}

static __always_inline void copy_addresses(struct flow *flow, struct bpf_sock *sk)
{
    u64 *local = (u64 *)flow->local;
    u64 *remote = (u64 *)flow->remote;

    if (sk->family == AF_INET) {
        map_ipv4(local, sk->src_ip4);
        if (sk->dst_ip4) {
            map_ipv4(remote, sk->dst_ip4);
        } else {
            remote[0] = 0;
            remote[1] = 0;
        }
    } else {
        local[0] = (u64)sk->src_ip6[1] << 32 | sk->src_ip6[0];
        local[1] = (u64)sk->src_ip6[3] << 32 | sk->src_ip6[2];
        remote[0] = (u64)sk->dst_ip6[1] << 32 | sk->dst_ip6[0];
        remote[1] = (u64)sk->dst_ip6[3] << 32 | sk->dst_ip6[2];
    }
    flow->local_port = sk->src_port;
    flow->remote_port = bpf_ntohs((u16)sk->dst_port);
}

/* Gives a slot up: the socket is to have another row. */
static __always_inline struct slot *leave(struct owner *owner, struct slot *slot)
{
    slot->in.note = SLOT_RELEASED;
    owner->ticket = NO_SLOT;
    owner->epoch = 0;
    return NULL;
}

#endif
