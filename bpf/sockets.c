/*
 * The always-on meter: cgroup programs that count every packet of every socket below a cgroup.
 *
 * A packet finds its socket's record without hashing: socket storage holds a slot number, the slot is
 * a record in an array that user space maps. See struct slot and struct flow in types.h.
 *
 * Slots: user space keeps the free ones on a stack. A socket's first packet claims one. When the socket
 * is released, or long silent, user space sets the slot's generation to 0, waits a tick, reads the final
 * figures and gives the slot back. A packet that still comes (a closed TCP connection sends what it had
 * queued) meets another generation than its socket's ticket says and claims anew: nothing is counted to
 * a stranger, nothing is lost.
 *
 * Compile-time settings: SLOTS, PEERS, OVERFLOWS, DETOURS (table sizes), and those of the headers.
 */
#include "control.h"
#include "identity.h"
#include "likely.h"
#include "measure.h"
#include "owners.h"
#include "packets.h"
#include "parse.h"

/* Key: slot number. Value: counters. One per socket with traffic. User space maps it. */
BPF_F_TABLE("array", u32, struct slot, slots, SLOTS, BPF_F_MMAPABLE);
/* Key: slot number. Value: who and what. User space maps it, and reads a row when its revision changes. */
BPF_F_TABLE("array", u32, struct flow, flows, SLOTS, BPF_F_MMAPABLE);
/* Free slot numbers; a stack, so that the ones in use stay together at the bottom of the arrays. */
BPF_STACK(free_slots, u32, SLOTS);
/* Key: socket cookie and remote address of unconnected sockets. Value: counters. User space ages it. */
BPF_TABLE("hash", struct peer_key, struct tally, peers, PEERS);
/* Key: user, interface and cgroup. Value: counters of sockets that found no slot. Keeps totals exact. */
BPF_TABLE("hash", struct overflow_key, struct tally, overflow, OVERFLOWS);
/* Key: two interfaces. Value: counters of what passed the second and is in slots of the first. */
BPF_TABLE("hash", struct detour_key, struct tally, detours, DETOURS);
/* Key: LOST_*. Value: count. User space maps it. */
BPF_F_TABLE("array", u32, u64, losses, SOCKET_LOSSES, BPF_F_MMAPABLE);
/* Key: SETTING_*. User space writes it. */
BPF_F_TABLE("array", u32, u64, settings, SETTINGS, BPF_F_MMAPABLE);

#define ACCEPT_WITHIN 16 /* packets sent, by which a connection has surely been accepted */

#include "lose.h" /* uses maps */
#include "storage.h" /* uses maps */

/* Whether the interface that a packet passes is one of ours. */
static __always_inline bool is_ours(struct bpf_sock *sk, struct owner *owner)
{
    u32 setting = SETTING_NETNS;
    u64 *ours = settings.lookup(&setting);

    return ours && socket_netns(sk, owner) == *ours;
}

/* Fills in who and what a slot stands for. */
static __always_inline void identify(struct __sk_buff *skb, struct bpf_sock *sk, struct owner *owner,
                                     struct flow *flow)
{
    u8 flags = owner->flags & (FLOW_OLDER | FLOW_ACCEPTED | FLOW_RELEASED);

    copy_addresses(flow, sk);
    flow->protocol = sk->protocol;
    if (sk->protocol == PROTOCOL_TCP && sk->state == TCP_LISTEN)
        flags |= FLOW_LISTENER;
    else if (!sk->dst_port && (sk->type == SOCK_DGRAM || sk->type == SOCK_RAW))
        flags |= FLOW_UNCONNECTED;
    else if (sk->type == SOCK_DGRAM)
        flags |= FLOW_CONNECTED;
    if (is_control(sk))
        flags |= FLOW_CONTROL;
    owner->flags = flags;
    flow->flags = flags;
    flow->cookie = bpf_get_socket_cookie(skb);
    flow->cgroup = bpf_sk_cgroup_id(sk);
    flow->netns = socket_netns(sk, flags & FLOW_CONTROL ? NULL : owner);
    flow->uid = socket_uid(skb, sk);
    flow->pid = owner->pid;
    flow->ifindex = skb->ifindex;
    __builtin_memcpy(flow->comm, owner->comm, sizeof(flow->comm));
    flow->first_seen = now();
}

/* accept() hands a socket to the user who calls it, often later than the first packet. */
static __always_inline void follow_accept(struct __sk_buff *skb, u32 index, struct slot *slot)
{
    struct flow *flow = flows.lookup(&index);
    struct bpf_sock *sk = skb->sk;
    u32 uid;

    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk || !flow)
        return;
    uid = socket_uid(skb, sk);
    if (uid == flow->uid)
        return;
    flow->uid = uid;
    slot->out.note = ++flow->revision;
}

/* Takes a free slot for the socket. NULL: there is none, or it gets none. */
static __always_inline struct slot *claim(struct __sk_buff *skb, struct owner *owner)
{
    struct bpf_sock *sk = skb->sk;
    u32 index, generation, setting = SETTING_EPOCH;
    struct slot *slot;
    struct flow *flow;
    u64 *epoch;

    epoch = settings.lookup(&setting);
    if (!epoch || !sk)
        return NULL;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return NULL;
    if (owner->flags & FLOW_OLDER && sends_rdma(skb, sk)) {
        owner->flags |= FLOW_RDMA;
        return NULL;
    }
    /* Before anything can fail: accepted sockets start with a copy of this. */
    if (sk->state == TCP_LISTEN) {
        owner->flags |= FLOW_LISTENER;
    } else if (owner->flags & FLOW_LISTENER) {
        owner->flags = (owner->flags & FLOW_OLDER) | FLOW_ACCEPTED;
        owner->epoch = 0;
    }
    if ((u32)owner->ticket == NO_SLOT && owner->epoch == (u32)*epoch)
        return NULL; /* none was given back since this socket looked last */
    if (free_slots.pop(&index)) {
        if (!owner->epoch)
            lose(LOST_NO_SLOT_SOCKETS);
        owner->ticket = NO_SLOT;
        owner->epoch = *epoch;
        return NULL;
    }
    slot = slots.lookup(&index);
    flow = flows.lookup(&index);
    if (!slot || !flow)
        return NULL;
    identify(skb, sk, owner, flow);
    generation = flow->generation + 1;
    if (!generation)
        generation = 1;
    flow->generation = generation;
    __builtin_memset(slot, 0, sizeof(*slot));
    if (owner->flags & FLOW_RELEASED)
        slot->in.note = SLOT_RELEASED;
    slot->out.note = ++flow->revision;
    slot->in.generation = generation;
    slot->out.generation = generation;
    owner->ticket = (u64)generation << 32 | index;
    return slot;
}

static __always_inline void count_overflow(struct __sk_buff *skb, struct owner *owner, struct size *size,
                                           bool in)
{
    struct overflow_key key = {};
    struct tally zero = {};
    struct bpf_sock *sk = skb->sk;
    struct tally *tally;

    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk) {
        lose(LOST_NO_SOCKET);
        return;
    }
    key.uid = socket_uid(skb, sk);
    if (!is_control(sk) && is_ours(sk, owner) && (!in || is_transport(sk->protocol)))
        key.ifindex = skb->ifindex;
    key.cgroup = bpf_sk_cgroup_id(sk);
    tally = overflow.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        overflow.insert(&key, &zero);
        tally = overflow.lookup(&key);
    }
    if (!tally) {
        lose(LOST_OVERFLOW_FULL);
        return;
    }
    add(tally, size, in);
}

/* Counts one peer of an unconnected socket, beside the socket's own record. */
static __always_inline void count_peer(struct __sk_buff *skb, struct packet *packet, bool whole,
                                       struct size *size, bool in)
{
    struct peer_key key = {};
    struct tally zero = {};
    struct tally *tally;
    u64 *remote = (u64 *)key.remote;

    if (!whole) { /* raw sockets may send what they like (IP_HDRINCL) */
        lose(LOST_NO_PEER);
        return;
    }
    key.cookie = bpf_get_socket_cookie(skb);
    remote[0] = in ? packet->source[0] : packet->destination[0];
    remote[1] = in ? packet->source[1] : packet->destination[1];
    key.remote_port = in ? packet->source_port : packet->destination_port;
    tally = peers.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        peers.insert(&key, &zero);
        tally = peers.lookup(&key);
    }
    if (!tally) {
        lose(LOST_PEERS_FULL);
        return;
    }
    add(tally, size, in);
}

/* The packet passes another interface than the socket's others do in this direction: several ways lead to
 * the peer, or the socket serves several networks. Beside the socket's own record. */
static __always_inline void count_detour(struct __sk_buff *skb, struct owner *owner,
                                         struct direction *direction, struct size *size, bool in)
{
    struct detour_key key = {};
    struct tally zero = {};
    struct bpf_sock *sk = skb->sk;
    struct tally *tally;

    if (!direction->ifindex) {
        direction->ifindex = skb->ifindex;
        return;
    }
    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk || is_control(sk) || !is_ours(sk, owner))
        return;
    key.home = direction->ifindex;
    key.ifindex = skb->ifindex;
    key.protocol = sk->protocol;
    tally = detours.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        detours.insert(&key, &zero);
        tally = detours.lookup(&key);
    }
    if (!tally) {
        lose(LOST_DETOURS_FULL);
        return;
    }
    add(tally, size, in);
}

/* What is kept with the socket; NULL: there is no memory for it. */
static __always_inline struct owner *owner_of(struct bpf_sock *sk)
{
    struct owner *owner = owners.sk_storage_get(sk, NULL, 0);

    if (likely(owner))
        return owner;
    owner = owners.sk_storage_get(sk, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (owner) { /* the socket is older than the meter */
        owner->ticket = NO_SLOT;
        owner->flags = FLOW_OLDER;
    }
    return owner;
}

/* The slot that the ticket is for. NULL: there is none, or it is another socket's by now. Only the direction in
 * hand is looked at: the other one is written by another CPU. */
static __always_inline struct slot *held_slot(struct owner *owner, bool in)
{
    u32 index = owner->ticket;
    struct slot *slot = slots.lookup(&index);
    struct direction *direction;

    if (unlikely(!slot))
        return NULL;
    direction = in ? &slot->in : &slot->out;
    return likely(direction->generation == owner->ticket >> 32) ? slot : NULL;
}

/* The socket's slot, taken now if it has none. NULL: none is free. */
static __always_inline struct slot *slot_of(struct __sk_buff *skb, struct bpf_sock *sk, struct owner *owner,
                                            bool in)
{
    struct slot *slot = held_slot(owner, in);

    if (slot && owner->flags & FLOW_LISTENER && sk->state != TCP_LISTEN)
        slot = NULL; /* its listener's */
    else if (slot && owner->flags & FLOW_CONNECTED && !sk->dst_port)
        slot = leave(owner, slot); /* connect() with AF_UNSPEC passes no hook */
    return likely(slot) ? slot : claim(skb, owner);
}

/* Counts the packet in the socket's slot. */
static __always_inline void count(struct __sk_buff *skb, struct bpf_sock *sk, struct owner *owner,
                                  struct slot *slot, struct size *size, bool in)
{
    struct direction *direction = in ? &slot->in : &slot->out;
    struct bpf_tcp_sock *tcp;

    if (in && unlikely((direction->packets & 15) == 1)) { /* often enough, and after the handshake */
        tcp = bpf_tcp_sock(sk);
        if (tcp) {
            direction->srtt_us = tcp->srtt_us >> 3;
            direction->retransmits = tcp->total_retrans;
        }
    }
    __sync_fetch_and_add(&direction->bytes, size->bytes);
    __sync_fetch_and_add(&direction->packets, size->packets);
    if (size->surplus)
        __sync_fetch_and_add(&direction->surplus, size->surplus);
    direction->last_seen = now();
    if (unlikely(direction->ifindex != skb->ifindex))
        count_detour(skb, owner, direction, size, in);
    if (!in && owner->flags & FLOW_ACCEPTED && unlikely((u32)direction->packets < ACCEPT_WITHIN))
        follow_accept(skb, owner->ticket, slot);
}

#ifdef PACKET_LOG
/* A packet of a user whose packets are logged gets no row. */
static __always_inline void leave_out(u32 uid, struct size *size, bool in, bool skipped)
{
    u32 everyone = EVERYONE;
    struct unlogged zero = {};
    struct unlogged *row = unlogged.lookup(&uid);

    if (!row) {
        unlogged.insert(&uid, &zero);
        row = unlogged.lookup(&uid);
    }
    if (!row)
        row = unlogged.lookup(&everyone); /* user space has put it there */
    if (row)
        add_gap(skipped ? &row->skipped : &row->lost, size, in);
}

/* Whether the packet shall have a row, and of which user. If it is only not drawn, it is counted so. */
static __always_inline bool is_wanted(struct __sk_buff *skb, u64 ticket, struct size *size, bool in, u32 *uid)
{
    u32 key = 0, index = ticket;
    void *ring = packet_rings.lookup(&key);
    struct bpf_sock *sk = skb->sk;
    struct flow *flow;
    u32 *every;

    if (likely(!ring) || !sk)
        return false;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return false;
    flow = flows.lookup(&index);
    *uid = flow ? flow->uid : socket_uid(skb, sk);
    key = EVERYONE;
    every = logged_users.lookup(uid);
    if (!every)
        every = logged_users.lookup(&key);
    if (!every || !*every)
        return false;
    if (is_drawn(*every))
        return true;
    leave_out(*uid, size, in, true);
    return false;
}

/* Puts the packet in the ring. */
static __always_inline void log_packet(u32 uid, u64 ticket, struct packet *packet, struct size *size, bool in)
{
    u32 first = 0;
    void *ring = packet_rings.lookup(&first);
    struct logged_packet *row;

    if (!ring) /* taken away just now */
        return;
    row = bpf_ringbuf_reserve(ring, sizeof(*row), 0);
    if (row)
        write_row(row, uid, ticket, packet, size, in);
    else
        leave_out(uid, size, in, false);
}
#else
#define is_wanted(skb, ticket, size, in, uid) false
#define log_packet(uid, ticket, packet, size, in)
#endif

static __always_inline int meter(struct __sk_buff *skb, bool in)
{
    struct bpf_sock *sk = skb->sk;
    struct slot *slot = NULL;
    struct packet packet;
    struct owner *owner;
    struct size size;
    u64 ticket = NO_SLOT;
    u32 uid = 0, wanted;
    bool whole;

    if (unlikely(!sk)) {
        lose(LOST_NO_SOCKET);
        return 1;
    }
    measure(skb, &size, in);
    owner = owner_of(sk);
    if (owner)
        slot = slot_of(skb, sk, owner, in);
    if (likely(slot)) {
        count(skb, sk, owner, slot, &size, in);
        ticket = owner->ticket;
    } else if (owner && owner->flags & FLOW_RDMA) {
        lose(LOST_RDMA);
        return 1;
    } else {
        lose(owner ? LOST_NO_SLOT_PACKETS : LOST_NO_STORAGE);
        count_overflow(skb, owner, &size, in);
    }
    wanted = is_wanted(skb, ticket, &size, in, &uid);
    if (!wanted && !(slot && owner->flags & FLOW_UNCONNECTED))
        return 1;
    asm volatile("" : "+r"(wanted)); /* or the compiler has what follows twice, wanted and not */
    parse(skb, &packet, &whole);
    if (wanted)
        log_packet(uid, ticket, &packet, &size, in);
    if (!slot)
        return 1;
    if (owner->flags & FLOW_UNCONNECTED)
        count_peer(skb, &packet, whole, &size, in);
    return 1;
}

int meter_ingress(struct __sk_buff *skb)
{
    return meter(skb, true);
}

int meter_egress(struct __sk_buff *skb)
{
    return meter(skb, false);
}

/* cgroup/sock_create: a process makes a socket; the kernel's own do not come here. */
int socket_created(struct bpf_sock *sk)
{
    struct owner *owner = owners.sk_storage_get(sk, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

    if (!owner) /* the first packet tries again */
        return 1;
    owner->ticket = NO_SLOT;
    remember_process(owner);
    return 1;
}

/* cgroup/sock_release: the process has closed it; packets may still come. */
int socket_released(struct bpf_sock *sk)
{
    struct owner *owner = owners.sk_storage_get(sk, NULL, 0);
    struct slot *slot;

    if (!owner)
        return 1;
    owner->flags |= FLOW_RELEASED;
    slot = held_slot(owner, true);
    if (slot)
        slot->in.note = SLOT_RELEASED;
    return 1;
}

/* cgroup/connect4 and 6: a datagram socket gets another peer, and so another row. */
static __always_inline int reconnect(struct bpf_sock_addr *address)
{
    struct bpf_sock *sk = address->sk;
    struct owner *owner;
    struct slot *slot;

    if (!sk || address->type != SOCK_DGRAM)
        return 1;
    owner = owners.sk_storage_get(sk, NULL, 0);
    if (!owner)
        return 1;
    slot = held_slot(owner, true);
    if (slot)
        leave(owner, slot);
    return 1;
}

int socket_connects4(struct bpf_sock_addr *address)
{
    return reconnect(address);
}

int socket_connects6(struct bpf_sock_addr *address)
{
    return reconnect(address);
}

/* iter/task_file: asked for by user space when a socket's process is not known. */
BPF_ITER(task_file)
{
    report_held_socket(ctx);
    return 0;
}
