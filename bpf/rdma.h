/*
 * RoCE at an interface: which packets are RDMA's here, and their table.
 *
 * The kernel's own soft-RoCE takes packets before they come to a socket, hardware takes them before they come to
 * the kernel at all, and then they are seen here only where somebody mirrors them. What an ordinary program
 * receives on the port of RoCE stays its own, whatever it looks like.
 *
 * Compile-time setting: FORWARDED (table size).
 */
#ifndef NETMOND_RDMA_H
#define NETMOND_RDMA_H

#include "clock.h"
#include "identity.h"
#include "parts.h"
#include "roce.h"

/* What is needed at RoCE packets only, and too large for the stack. */
struct roce_work {
    struct roce_key key;
    struct roce_tally fresh;
    struct bpf_fib_lookup route;
    struct bpf_sock_tuple ends;
};

/* Key: one kind of packets of RoCE. Value: counters. User space ages it. It takes no memory until it is used. */
BPF_F_TABLE("hash", struct roce_key, struct roce_tally, roce, FORWARDED, BPF_F_NO_PREALLOC);
BPF_PERCPU_ARRAY(roce_works, struct roce_work, 1);

#define ANY_NETNS_OF_THE_DEVICE -1L /* BPF_F_CURRENT_NETNS */

/* Whether the packet in hand is to be passed on, as far as routes tell: then it counts where it leaves. */
static __always_inline bool will_be_routed(void *context, struct frame *frame, u32 ifindex,
                                           struct roce_work *work)
{
    struct bpf_fib_lookup *route = &work->route;
    long answer;

    __builtin_memset(route, 0, sizeof(*route));
    route->l4_protocol = PROTOCOL_UDP;
    route->sport = bpf_htons(frame->packet.source_port);
    route->dport = bpf_htons(ROCE_PORT);
    route->ifindex = ifindex;
    if (frame->class == CLASS_IPV4) {
        route->family = AF_INET;
        route->ipv4_src = frame->packet.source[1] >> 32;
        route->ipv4_dst = frame->packet.destination[1] >> 32;
    } else {
        route->family = AF_INET6;
        __builtin_memcpy(route->ipv6_src, frame->packet.source, sizeof(route->ipv6_src));
        __builtin_memcpy(route->ipv6_dst, frame->packet.destination, sizeof(route->ipv6_dst));
    }
    answer = bpf_fib_lookup(context, route, sizeof(*route), 0);
    /* After these come the reasons why it needs the kernel to be passed on. */
    return answer == BPF_FIB_LKUP_RET_SUCCESS || answer > BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* Whether an ordinary program's socket will get the packet in hand: the meter has it. */
static __always_inline bool has_receiver(void *context, struct frame *frame, struct roce_work *work)
{
    struct bpf_sock_tuple *ends = &work->ends;
    u32 size = sizeof(ends->ipv6);
    struct bpf_sock *sk;
    bool ordinary;

    if (frame->class == CLASS_IPV4) {
        ends->ipv4.saddr = frame->packet.source[1] >> 32;
        ends->ipv4.daddr = frame->packet.destination[1] >> 32;
        ends->ipv4.sport = bpf_htons(frame->packet.source_port);
        ends->ipv4.dport = bpf_htons(ROCE_PORT);
        size = sizeof(ends->ipv4);
    } else {
        __builtin_memcpy(ends->ipv6.saddr, frame->packet.source, sizeof(ends->ipv6.saddr));
        __builtin_memcpy(ends->ipv6.daddr, frame->packet.destination, sizeof(ends->ipv6.daddr));
        ends->ipv6.sport = bpf_htons(frame->packet.source_port);
        ends->ipv6.dport = bpf_htons(ROCE_PORT);
    }
    sk = bpf_sk_lookup_udp(context, ends, size, ANY_NETNS_OF_THE_DEVICE, 0);
    if (!sk)
        return false;
    ordinary = !is_kernel_datagram(sk);
    bpf_sk_release(sk);
    return ordinary;
}

/* Whether what came in is RDMA's of this machine. */
static __always_inline bool is_for_rdma(void *context, struct frame *frame, u32 ifindex)
{
    u32 first = 0;
    struct roce_work *work = roce_works.lookup(&first);

    if (frame->part == PART_FORWARDED || !work)
        return false;
    if (frame->roce.version == ROCE_V1)
        return true;
    return !will_be_routed(context, frame, ifindex, work) && !has_receiver(context, frame, work);
}

/* Whether what leaves and was made here is RDMA's: no program's socket has sent it. *uid: whose queue pair has,
 * since soft-RoCE's sockets are made by him who makes the queue pair (rxe_qp_init_req); NO_USER: unknown. */
static __always_inline bool is_from_rdma(struct __sk_buff *skb, struct frame *frame, u32 *uid)
{
    struct bpf_sock *sk = skb->sk;

    if (!has_socket(skb, frame))
        return true;
    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk || !is_kernel_datagram(sk))
        return false;
    *uid = socket_uid(skb, sk);
    return true;
}

/* way: ROCE_*; uid: as in struct roce_key. Bytes from the IP header on, of version 1 from the global route header
 * on. */
static __always_inline void count_roce(struct frame *frame, u32 way, u32 ifindex, u32 uid)
{
    u64 bytes = frame->ip ? frame->part_bytes : frame->ip_bytes;
    u32 first = 0;
    struct roce_work *work = roce_works.lookup(&first);
    struct roce_tally *row;
    struct roce_key *key;

    if (!work) /* for the verifier */
        return;
    key = &work->key; /* what is unused in it is never written: 0 */
    __builtin_memcpy(key->source, frame->packet.source, sizeof(key->source));
    __builtin_memcpy(key->destination, frame->packet.destination, sizeof(key->destination));
    key->queue_pair = frame->roce.queue_pair;
    key->ifindex = ifindex;
    key->uid = uid;
    key->partition_key = frame->roce.partition_key;
    key->opcode = frame->roce.opcode;
    key->version = frame->roce.version;
    key->way = way;
    row = roce.lookup(key);
    if (!row) {
        work->fresh.tally.first_seen = now();
        roce.insert(key, &work->fresh);
        row = roce.lookup(key);
    }
    if (!row) {
        lose(LOST_ROCE_FULL);
        return;
    }
    add_wire(&row->tally, frame, bytes, way == ROCE_IN);
    row->sequence = frame->roce.sequence;
}

#endif
