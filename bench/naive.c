/*
 * What netmond's programs are compared with: the plain ways to count packets per flow.
 *
 * All serve either direction, and read headers as netmond's own programs do.
 */
#include "clock.h"
#include "parse.h"

struct tuple {
    u64 source[2];
    u64 destination[2];
    u16 source_port;
    u16 destination_port;
    u8 protocol;
    u8 unused[3];
};

struct figures {
    u64 packets;
    u64 bytes;
    u64 last_seen;
};

struct process {
    u32 pid;
    u32 unused;
    char comm[16];
};

struct process_tuple {
    struct tuple tuple;
    struct process process;
    u64 cgroup;
};

/* Key: addresses, ports, protocol. Value: counters of one CPU. Nobody reads it here. */
BPF_TABLE("lru_percpu_hash", struct tuple, struct figures, tuples, FLOWS);
/* Key: socket cookie. Value: whose socket it is. Such tools fill it from a hook where sockets are made. */
BPF_TABLE("lru_hash", u64, struct process, processes, FLOWS);
/* Key: process, addresses, ports, protocol. Value: counters of all CPUs. Nobody reads it here. */
BPF_TABLE("lru_hash", struct process_tuple, struct figures, process_tuples, FLOWS);

static __always_inline void read_tuple(void *data, void *end, bool ipv4, struct tuple *tuple)
{
    struct packet packet = {};

    if (ipv4)
        parse_ipv4(data, end, &packet);
    else
        parse_ipv6(data, end, &packet);
    __builtin_memcpy(tuple->source, packet.source, sizeof(tuple->source));
    __builtin_memcpy(tuple->destination, packet.destination, sizeof(tuple->destination));
    tuple->source_port = packet.source_port;
    tuple->destination_port = packet.destination_port;
    tuple->protocol = packet.protocol;
}

static __always_inline void count_tuple(void *data, void *end, bool ipv4, u32 length)
{
    struct tuple key = {};
    struct figures zero = {};
    struct figures *figures;

    read_tuple(data, end, ipv4, &key);
    figures = tuples.lookup_or_try_init(&key, &zero);
    if (!figures)
        return;
    figures->packets += 1;
    figures->bytes += length;
    figures->last_seen = now();
}

/* A hash per packet: no process, no user. The clock is netmond's: what differs is how counters are found. */
int hash_tuple(struct __sk_buff *skb)
{
    count_tuple((void *)(long)skb->data, (void *)(long)skb->data_end,
                skb->protocol == bpf_htons(ETHERTYPE_IPV4), skb->len);
    return 1;
}

/* The same at tc and XDP. Neither knows of segmentation, tags or targets. */
int hash_tc(struct __sk_buff *skb)
{
    count_tuple((void *)(long)skb->data + sizeof(struct ethernet), (void *)(long)skb->data_end,
                skb->protocol == bpf_htons(ETHERTYPE_IPV4), skb->len);
    return -1;
}

int hash_xdp(struct xdp_md *context)
{
    void *data = (void *)(long)context->data;
    void *end = (void *)(long)context->data_end;
    struct ethernet *ethernet = data;

    if (data + sizeof(*ethernet) <= end)
        count_tuple(data + sizeof(*ethernet), end, ethernet->type == bpf_htons(ETHERTYPE_IPV4), end - data);
    return 2;
}

/* A hash per packet with process lookup: the socket's process and cgroup belong to the key, counters are
 * shared by all CPUs, and the time is the exact one, as is usual. */
int hash_process(struct __sk_buff *skb)
{
    struct process_tuple key = {};
    struct process unknown = {};
    struct figures zero = {};
    struct process *process;
    struct figures *figures;
    u64 cookie = bpf_get_socket_cookie(skb);

    read_tuple((void *)(long)skb->data, (void *)(long)skb->data_end,
               skb->protocol == bpf_htons(ETHERTYPE_IPV4), &key.tuple);
    process = processes.lookup_or_try_init(&cookie, &unknown);
    if (process)
        __builtin_memcpy(&key.process, process, sizeof(key.process));
    key.cgroup = bpf_skb_cgroup_id(skb);
    figures = process_tuples.lookup_or_try_init(&key, &zero);
    if (!figures)
        return 1;
    __sync_fetch_and_add(&figures->packets, 1);
    __sync_fetch_and_add(&figures->bytes, skb->len);
    figures->last_seen = bpf_ktime_get_ns();
    return 1;
}
