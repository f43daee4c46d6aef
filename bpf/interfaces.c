/*
 * What passes the monitored interfaces: totals by class, targets, and flows without a socket here.
 *
 * tc programs at ingress and egress, or XDP at ingress and tc at egress. Every frame is counted in its
 * interface. A target's packet is counted once on its way through the machine, and so is every packet for the
 * machine's own total: when it comes in, or when it leaves if it was made here or came in where nobody looks;
 * of interfaces that stand on each other by the lowest. Forwarded flows are counted where they leave.
 *
 * Books: whose a frame is, see PART_*. What sockets received is known elsewhere (sockets.c); what was routed is
 * noted at the interface it came in by, when it leaves.
 *
 * Counters are per CPU, laid out by hand in mapped arrays (CPU-major), so that user space reads them without
 * a system call. tc and XDP run with softirqs off: no two of them interleave on one CPU, plain additions do.
 *
 * Compile-time settings: CPUS (possible CPUs), PORTS, FORWARDED (table sizes); COARSE_CLOCK; and targets.h's.
 */
#include "clock.h"
#include "parse.h"
#include "parts.h"

#define CACHED_PORTS 64 /* interfaces remembered per CPU */

struct cached_port {
    struct port port;
    u32 ifindex;
    u32 epoch;
};

/* Key: interface index. Value: its place and kind. User space writes it. Room for NO_PLACE, too. */
BPF_TABLE("hash", u32, struct port, ports, 4 * PORTS);
/* Key: CPU * CACHED_PORTS + low bits of an interface index. Value: what `ports` said of it. A look-up
 * in an array is inlined, in a hash it is a call and two cache lines more. SETTING_EPOCH empties it. */
BPF_TABLE("array", u32, struct cached_port, port_cache, CPUS * CACHED_PORTS);
/* Key: CPU * PORTS + place. Value: counters of an interface. User space maps it. */
BPF_F_TABLE("array", u32, struct port_counters, port_counters, CPUS * PORTS, BPF_F_MMAPABLE);
/* What is known of the frame in hand. Here and not on the stack, where the verifier would follow every value:
 * with every way through the headers that makes too many states. */
BPF_PERCPU_ARRAY(frames, struct frame, 1);
/* Key: addresses and interface. Value: counters (out only). User space ages it. */
BPF_TABLE("hash", struct forwarded_key, struct tally, forwarded, FORWARDED);
/* Key: LOST_*. Value: count. User space maps it. */
BPF_F_TABLE("array", u32, u64, losses, INTERFACE_LOSSES, BPF_F_MMAPABLE);
/* Key: SETTING_*. User space writes it. */
BPF_F_TABLE("array", u32, u64, settings, SETTINGS, BPF_F_MMAPABLE);

#include "lose.h" /* uses maps */
#include "targets.h" /* uses maps */

#define TC_NEXT -1 /* TC_ACT_UNSPEC, TCX_NEXT: leave the packet to whoever is next */
#define XDP_PASS_ON 2

static __always_inline struct frame *new_frame(void)
{
    u32 first = 0, setting = SETTING_EPOCH;
    struct frame *frame = frames.lookup(&first);
    u64 *epoch = settings.lookup(&setting);

    if (!frame || !epoch)
        return NULL;
    __builtin_memset(frame, 0, sizeof(*frame));
    frame->epoch = *epoch;
    return frame;
}

/* NULL: nothing is known of the interface. Who is remembered first stays until the epoch changes, and a
 * frame has one epoch: its first port does not turn into the second, though they may share a place. */
static __always_inline struct port *find_port(u32 ifindex, u32 cpu, u32 epoch)
{
    u32 place = cpu * CACHED_PORTS + ifindex % CACHED_PORTS;
    struct cached_port *cached = port_cache.lookup(&place);
    struct port *port;

    if (cached && cached->epoch == epoch && cached->ifindex == ifindex)
        return &cached->port;
    port = ports.lookup(&ifindex);
    if (port && cached && cached->epoch != epoch) {
        cached->port = *port;
        cached->ifindex = ifindex;
        cached->epoch = epoch;
    }
    return port;
}

/* Reads a frame of which the first bytes are at `data`. `type` is used where there is no link header;
 * `untagged`: the kernel keeps the outermost VLAN tag beside the frame, not in it. */
static __always_inline void parse_frame(void *data, void *end, struct port *port, __be16 type,
                                        bool untagged, struct frame *frame)
{
    u32 at = 0;

    frame->class = CLASS_OTHER;
    if (port->link_header) {
        at = parse_ethernet(data, end, &type, MAX_VLAN_TAGS - untagged);
        if (!at) {
            lose(LOST_MALFORMED);
            return;
        }
        frame->multicast = *(u8 *)data & 1; /* group bit, IEEE 802 */
        frame->tagged = untagged || at > sizeof(struct ethernet);
        frame->for_master = frame->multicast || is_for(data, end, port->address);
    }
    frame->tag_beside = untagged;
    frame->link_header = at + untagged * sizeof(struct vlan_tag);
    if (type == bpf_htons(ETHERTYPE_IPV4)) {
        frame->ip = parse_ipv4(data + at, end, &frame->packet);
        frame->class = frame->ip ? CLASS_IPV4 : CLASS_OTHER;
    } else if (type == bpf_htons(ETHERTYPE_IPV6)) {
        frame->ip = parse_ipv6(data + at, end, &frame->packet);
        frame->class = frame->ip ? CLASS_IPV6 : CLASS_OTHER;
    } else {
        if (type == bpf_htons(ETHERTYPE_ARP))
            frame->class = CLASS_ARP;
        else if (type == bpf_htons(ETHERTYPE_ROCE) && parse_global_route(data + at, end, &frame->packet))
            frame->bth = at + sizeof(struct ipv6);
        return;
    }
    if (!frame->ip)
        lose(LOST_MALFORMED);
    else if (may_be_roce(&frame->packet))
        frame->bth = at + frame->packet.ip_header + sizeof(struct udp);
}

static __always_inline void take_bth(struct bth *bth, struct frame *frame)
{
    read_bth(bth, frame->ip ? ROCE_V2 : ROCE_V1, &frame->roce);
}

/* What leaves, at the interface it came in by. */
static __always_inline void count_routed(struct port *origin, struct frame *frame, u32 cpu)
{
    u32 index = cpu * PORTS + origin->index;
    bool transport = frame->ip && is_transport(frame->packet.protocol);
    struct port_counters *counters;
    struct amount *amount;

    if (origin->index == NO_PLACE)
        return;
    counters = port_counters.lookup(&index);
    if (!counters)
        return;
    amount = &counters->in.part[transport ? PART_ROUTED : PART_ROUTED_KERNEL];
    amount->packets += 1;
    amount->bytes += frame->part_bytes;
    if (transport && frame->packet.fragment)
        count_fragment(&counters->in.part[PART_ROUTED_FRAGMENTS], frame, frame->class == CLASS_IPV4);
}

/* `once`: no other interface has counted it or will. */
static __always_inline void count_frame(struct port *port, struct frame *frame, u32 cpu, bool in, bool once)
{
    struct port_counters *counters;
    struct port_direction *direction;
    u32 index = cpu * PORTS + port->index;
    u32 class = frame->class < CLASS_OTHER ? frame->class : CLASS_OTHER; /* for the verifier */
    u32 part = frame->part < PARTS ? frame->part : PART_FORWARDED;

    counters = port_counters.lookup(&index);
    if (!counters) /* for the verifier: each CPU and port has a row */
        return;
    direction = in ? &counters->in : &counters->out;
    direction->stack_packets += 1;
    direction->stack_bytes += frame->stack_bytes;
    direction->tagged += frame->tag_beside;
    if (once) {
        direction->once.packets += frame->wire_packets;
        direction->once.bytes += frame->wire_bytes;
    }
    direction->part[part].packets += 1;
    direction->part[part].bytes += frame->part_bytes;
    if (part == PART_SOCKETS && frame->packet.fragment)
        count_fragment(&direction->part[PART_FRAGMENTS], frame, class == CLASS_IPV4);
    direction->class[class].packets += frame->wire_packets;
    direction->class[class].bytes += frame->wire_bytes;
    if (frame->multicast) {
        direction->class[CLASS_MULTICAST].packets += frame->wire_packets;
        direction->class[CLASS_MULTICAST].bytes += frame->wire_bytes;
    }
}

/* Adds what the packet is on the wire; `bytes`: as in struct direction, base and surplus. Several CPUs may have
 * packets of one row. */
static __always_inline void add_wire(struct tally *tally, struct frame *frame, u64 bytes, bool in)
{
    __sync_fetch_and_add(in ? &tally->in_bytes : &tally->out_bytes, bytes);
    __sync_fetch_and_add(in ? &tally->in_surplus : &tally->out_surplus, frame->ip_bytes - bytes);
    __sync_fetch_and_add(in ? &tally->in_packets : &tally->out_packets, 1 | frame->wire_packets << 32);
    tally->last_seen = now();
}

/* A packet that leaves and was not made here; bytes from the IP header on, as in every flow. */
static __always_inline void count_forwarded(struct __sk_buff *skb, struct frame *frame)
{
    struct forwarded_key key = {};
    struct tally zero = {};
    struct tally *tally;

    __builtin_memcpy(key.source, frame->packet.source, sizeof(key.source));
    __builtin_memcpy(key.destination, frame->packet.destination, sizeof(key.destination));
    key.source_port = frame->packet.source_port;
    key.destination_port = frame->packet.destination_port;
    key.protocol = frame->packet.protocol;
    key.ifindex = skb->ifindex;
    tally = forwarded.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        forwarded.insert(&key, &zero);
        tally = forwarded.lookup(&key);
    }
    if (!tally) {
        lose(LOST_FORWARDED_FULL);
        return;
    }
    add_wire(tally, frame, frame->part_bytes, false);
}

#include "rdma.h" /* uses maps */

/* The bytes of one packet that came as it is on the wire. */
static __always_inline void measure_packet(struct frame *frame)
{
    u64 rest = frame->wire_bytes - frame->link_header;

    frame->ip_bytes = frame->packet.length && frame->packet.length < rest ? frame->packet.length : rest;
    frame->part_bytes = frame->ip ? frame->ip_bytes : frame->stack_bytes;
}

/* Works out the figures: segmentation offload undone, a VLAN tag beside the frame put back. The dummy
 * header on lo is left out, as the kernel's own counter does (loopback_xmit). */
static __always_inline void unfold(struct __sk_buff *skb, struct port *port, bool in, struct frame *frame)
{
    u32 length = skb->len, tag = skb->vlan_present ? sizeof(struct vlan_tag) : 0;
    u32 headers, segments = skb->gso_segs;

    if (port->flags & PORT_LOOPBACK) {
        length -= frame->link_header;
        frame->link_header = 0;
    }
    headers = frame->link_header + frame->packet.ip_header + frame->packet.transport_header;
    frame->stack_bytes = length + (in ? tag : 0);
    frame->wire_packets = 1;
    frame->wire_bytes = length + tag;
    if (!skb->gso_size || !frame->ip) {
        measure_packet(frame);
        return;
    }
    frame->part_bytes = frame->wire_bytes - frame->link_header;
    if (!segments) /* packets from outside (virtio, tun) may leave it to be worked out */
        segments = (frame->wire_bytes - headers + skb->gso_size - 1) / skb->gso_size;
    if (segments > 1) {
        frame->wire_packets = segments;
        frame->wire_bytes += (u64)segments * (headers - frame->packet.jumbo) - headers;
    }
    frame->ip_bytes = frame->wire_bytes - frame->wire_packets * frame->link_header;
}

/* Makes the frame RDMA's, unless it is from or for an interface above. */
static __always_inline void give_to_rdma(struct frame *frame)
{
    if (frame->part != PART_UPPER)
        frame->part = PART_RDMA;
}

static __always_inline void count_incoming(void *context, u32 ifindex, struct port *port, struct frame *frame,
                                           u32 cpu)
{
    bool lowest, once;

    frame->part = part_of_incoming(port, frame);
    lowest = is_lowest(port, frame->part);
    once = lowest && !(port->flags & PORT_ECHO);
    if (frame->roce.version && is_for_rdma(context, frame, ifindex)) {
        give_to_rdma(frame);
        if (lowest)
            count_roce(frame, ROCE_IN, ifindex, NO_USER);
    }
    count_frame(port, frame, cpu, true, once);
    if (once && frame->ip)
        count_targets(frame, cpu);
}

static __always_inline void count_outgoing(struct __sk_buff *skb, struct port *port, struct frame *frame,
                                           u32 cpu)
{
    u32 from = skb->ingress_ifindex, uid = NO_USER;
    struct port *origin = from ? find_port(from, cpu, frame->epoch) : NULL;
    bool lowest, once;

    frame->part = part_of_outgoing(skb, port, frame, origin);
    lowest = is_lowest(port, frame->part);
    once = lowest && !has_seen(origin);
    if (frame->roce.version && (from || is_from_rdma(skb, frame, &uid))) {
        if (!from)
            give_to_rdma(frame);
        if (lowest)
            count_roce(frame, from ? ROCE_FORWARDED : ROCE_OUT, skb->ifindex, uid);
    }
    count_frame(port, frame, cpu, false, once);
    if (!frame->ip)
        return;
    if (once)
        count_targets(frame, cpu);
    if (!from || !lowest)
        return;
    if (!frame->roce.version)
        count_forwarded(skb, frame);
    if (origin && !(origin->flags & PORT_BRIDGED))
        count_routed(origin, frame, cpu);
}

/* NULL: it has just been taken off the list, though it may be known still. */
static __always_inline struct port *find_monitored(u32 ifindex, u32 cpu, u32 epoch)
{
    struct port *port = find_port(ifindex, cpu, epoch);

    return port && port->index < PORTS ? port : NULL;
}

#define HEADERS_AT_MOST 128 /* Ethernet, two tags, IPv6, some extension headers, TCP's ports */

static __always_inline int count_skb(struct __sk_buff *skb, bool in)
{
    u32 cpu = bpf_get_smp_processor_id();
    u32 ifindex = skb->ifindex, wanted;
    struct frame *frame = new_frame();
    struct port *port;
    void *data, *end;
    struct bth bth;

    port = frame ? find_monitored(ifindex, cpu, frame->epoch) : NULL;
    if (!port || !frame) { /* no frame: for the verifier */
        lose(LOST_NO_PORT);
        return TC_NEXT;
    }
    data = (void *)(long)skb->data;
    end = (void *)(long)skb->data_end;
    if (data + 54 > end) { /* the headers may lie in a fragment */
        wanted = skb->len < HEADERS_AT_MOST ? skb->len : HEADERS_AT_MOST;
        bpf_skb_pull_data(skb, wanted);
        data = (void *)(long)skb->data;
        end = (void *)(long)skb->data_end;
    }
    parse_frame(data, end, port, skb->protocol, skb->vlan_present, frame);
    if (frame->bth && !bpf_skb_load_bytes(skb, frame->bth, &bth, sizeof(bth)))
        take_bth(&bth, frame);
    unfold(skb, port, in, frame);
    if (in)
        count_incoming(skb, ifindex, port, frame, cpu);
    else
        count_outgoing(skb, port, frame, cpu);
    return TC_NEXT;
}

int interface_ingress(struct __sk_buff *skb)
{
    return count_skb(skb, true);
}

int interface_egress(struct __sk_buff *skb)
{
    return count_skb(skb, false);
}

/* Ingress of interfaces that are monitored with XDP. */
int interface_xdp(struct xdp_md *context)
{
    void *data = (void *)(long)context->data;
    void *end = (void *)(long)context->data_end;
    u32 cpu = bpf_get_smp_processor_id();
    u32 ifindex = context->ingress_ifindex;
    struct frame *frame = new_frame();
    struct port *port;
    struct bth *bth;

    port = frame ? find_monitored(ifindex, cpu, frame->epoch) : NULL;
    if (!port || !frame) { /* no frame: for the verifier */
        lose(LOST_NO_PORT);
        return XDP_PASS_ON;
    }
    parse_frame(data, end, port, 0, false, frame);
    bth = data + (frame->bth & LENGTH_BITS);
    if (frame->bth && (void *)(bth + 1) <= end)
        take_bth(bth, frame);
    frame->stack_bytes = end - data;
    if (port->flags & PORT_LOOPBACK) { /* as in unfold() */
        frame->stack_bytes -= frame->link_header;
        frame->link_header = 0;
    }
    frame->wire_packets = 1;
    frame->wire_bytes = frame->stack_bytes;
    measure_packet(frame);
    count_incoming(context, ifindex, port, frame, cpu);
    return XDP_PASS_ON;
}
