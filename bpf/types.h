/*
 * Every structure that crosses to user space, mirrored by netmond/kernel/wire.py.
 *
 * Widths are explicit, padding is named, integers are in host order, addresses and ports as said.
 * An address is always 16 bytes in network order; IPv4 is mapped to ::ffff:a.b.c.d (RFC 4291 2.5.5.2).
 */
#ifndef NETMOND_TYPES_H
#define NETMOND_TYPES_H

#include <linux/types.h>

#define NO_SLOT 0xffffffffU

/*
 * What a socket did in one direction: one cache line, so that the CPU that receives and the one that
 * sends do not share it.
 *
 * Stack figures are what the network stack handled; wire figures are IP packets after segmentation
 * offload is undone. They are kept as base and difference: most packets need two additions only.
 */
struct direction {
    u32 generation; /* of the socket that holds the slot; 0: nobody, see claim() */
    u32 note;       /* in: SLOT_* flags; out: revision of the identity in struct flow */
    u64 bytes;      /* stack bytes, from the IP header on */
    u64 surplus;    /* wire bytes beyond them: the headers segmentation repeats */
    u64 packets;    /* low half stack packets, high half wire packets; both wrap, read often */
    u64 last_seen;  /* ns, CLOCK_MONOTONIC, 0: never */
    u32 srtt_us;    /* in only: smoothed round trip time of TCP */
    u32 retransmits; /* in only: segments retransmitted over the life of the connection */
    u32 ifindex;    /* where its packets pass this way, 0: none yet; for others see struct detour_key */
    u32 unused;
    u64 unused2;
};

/* in.note */
#define SLOT_RELEASED 1 /* the socket was closed; user space takes the slot back */
#define SLOT_FREE 2     /* user space has given it back */

struct slot {
    struct direction in;
    struct direction out;
};

/* Who and what a slot stands for: written when it is claimed, read once per claim by user space. */
struct flow {
    u64 cookie;
    u64 cgroup;     /* cgroup v2 id of the socket */
    u64 netns;      /* cookie of the network namespace, 0: unknown */
    u64 first_seen; /* ns, CLOCK_MONOTONIC */
    u8 local[16];
    u8 remote[16];  /* zeroes: not connected */
    u16 local_port;
    u16 remote_port;
    u8 protocol;    /* IANA number */
    u8 flags;       /* FLOW_* */
    u16 unused;
    u32 generation;
    u32 revision;
    u32 uid;
    u32 pid;        /* 0: unknown */
    u32 ifindex;
    u32 unused2;
    char comm[16];
    u64 unused3[2];
};

#define FLOW_UNCONNECTED 1 /* many peers: see struct peer_key */
#define FLOW_ACCEPTED 2    /* cloned from a listener: pid and comm are the listener's creator */
#define FLOW_OLDER 4       /* the socket was there before the meter: pid and comm unknown */
#define FLOW_LISTENER 8
#define FLOW_RELEASED 16   /* its process has closed it; what it still sends is soon over */
#define FLOW_CONNECTED 32  /* a datagram socket with one peer, which it may give up */
#define FLOW_CONTROL 64    /* the kernel's own, for all network namespaces */
#define FLOW_RDMA 128      /* soft-RoCE's: it has no row */

/* In every socket's own storage; accepted sockets begin with a copy of their listener's. */
struct owner {
    u64 ticket; /* slot number in the low half, its generation in the high half */
    u32 pid;
    u32 epoch;  /* of the last vain search for a slot */
    u64 netns;  /* cookie of its network namespace, 0: not looked for yet, or unknown */
    char comm[16];
    u8 flags;   /* FLOW_* */
    u8 unused[7];
};

/* Both directions of a row in a hash; the same words as struct direction without the slot's. */
struct tally {
    u64 in_bytes;
    u64 in_surplus;
    u64 in_packets; /* low half stack, high half wire */
    u64 out_bytes;
    u64 out_surplus;
    u64 out_packets;
    u64 first_seen;
    u64 last_seen;
};

struct peer_key {
    u64 cookie;
    u8 remote[16];
    u16 remote_port;
    u16 unused[3];
};

struct overflow_key {
    u32 uid;
    u32 ifindex;    /* 0: of another network namespace, or not for interfaces' books */
    u64 cgroup;
};

/* Packets of sockets of our network namespace that passed another interface than the first of their kind. */
struct detour_key {
    u32 home;       /* struct direction's ifindex: their socket's slot has counted them there */
    u32 ifindex;    /* where they passed */
    u32 protocol;
    u32 unused;
};

/* A packet of a user whose packets are logged: a row of the log, also if the stack handled several as one. */
struct logged_packet {
    u64 time; /* ns, CLOCK_MONOTONIC */
    u8 source[16]; /* zeroes: its IP header is damaged, as a raw socket may send it */
    u8 destination[16];
    u32 bytes; /* wire, of all its packets */
    u32 uid;
    u32 slot; /* of its socket, NO_SLOT: it has none */
    u32 generation;
    u16 source_port;
    u16 destination_port;
    u16 packets; /* wire; the kernel counts segments in as many bits */
    u8 protocol;
    u8 direction; /* PACKET_* */
};

#define PACKET_IN 0
#define PACKET_OUT 1

#define EVERYONE 0xffffffffU /* in the place of a user */

/* Wire packets without a row. */
struct gap {
    u64 in_packets;
    u64 in_bytes;
    u64 out_packets;
    u64 out_bytes;
};

/* What is missing in the log of a user's packets: what it has and this are all there was. */
struct unlogged {
    struct gap lost; /* no room in the ring */
    struct gap skipped; /* not drawn into the sample */
};

/* A frame that was captured, before its bytes. */
struct captured_frame {
    u64 time; /* ns, CLOCK_MONOTONIC */
    u64 cgroup; /* v2 id of its socket's, 0: unknown */
    u32 length; /* bytes, as on the wire: with all VLAN tags */
    u32 captured; /* bytes that follow */
    u32 ifindex;
    u32 uid; /* NO_USER: unknown */
    u32 slot; /* of its socket, NO_SLOT: unknown */
    u32 generation;
    u8 direction; /* PACKET_* */
    u8 link_type; /* LINK_* */
    u8 doubtful; /* nobody has said yet whether its cgroup is wanted */
    u8 unused[5];
};

#define NO_USER 0xffffffffU
#define LINK_ETHERNET 0
#define LINK_RAW 1 /* begins with its IP header */

/* What a capture did with the frames of an interface in one direction: seen is the sum of the next four. */
struct tapped {
    u64 seen;
    u64 filtered; /* the filter does not want them */
    u64 others; /* their owner is not wanted */
    u64 captured;
    u64 dropped; /* no room in the ring */
    u64 bytes; /* of those captured, as long as they were */
};

/* An interface that is captured from, on one CPU. */
struct tap {
    struct tapped in;
    struct tapped out;
    u64 link_type; /* LINK_* */
};

struct forwarded_key {
    u8 source[16];
    u8 destination[16];
    u16 source_port;
    u16 destination_port;
    u8 protocol;
    u8 unused[3];
    u32 ifindex; /* where it left */
    u32 unused2;
};

/* RDMA over Ethernet: packets of one kind from one address to another, at one interface. Unused parts are 0. */
struct roce_key {
    u8 source[16]; /* of version 1 the GIDs of its global route header */
    u8 destination[16];
    u32 queue_pair; /* the destination's */
    u32 ifindex; /* where they came in or left */
    u32 uid; /* out: whose queue pair sent it, as soft-RoCE's socket says; NO_USER: unknown */
    u16 partition_key;
    u8 opcode;
    u8 version; /* ROCE_V* */
    u8 way; /* ROCE_* */
    u8 unused[7];
};

#define ROCE_V1 1 /* InfiniBand Architecture Specification 1, annex A16 */
#define ROCE_V2 2 /* annex A17 */

/* in: it came in for this machine; out: it was made here; forwarded: it left, but came in elsewhere */
enum { ROCE_IN, ROCE_OUT, ROCE_FORWARDED };

struct roce_tally {
    struct tally tally; /* what was forwarded is out */
    u32 sequence; /* of the last packet */
    u32 unused;
};

/* One interface, one CPU, one direction; frames with their link-layer header. */
enum { CLASS_IPV4, CLASS_IPV6, CLASS_ARP, CLASS_OTHER, CLASS_MULTICAST, CLASSES };

/* Whose a frame is, as far as the interface can tell. Every frame is in one of the first four, or the last. */
enum {
    PART_SOCKETS,     /* out: of a socket here; in: TCP, UDP and the like, for one or to be routed */
    PART_KERNEL,      /* out: no socket's; in: all other protocols */
    PART_UPPER,       /* from or for an interface above: bridge, bond, VLAN */
    PART_FORWARDED,   /* out: came in elsewhere; in: for another port of the bridge */
    PART_ROUTED,      /* in: of PART_SOCKETS what left elsewhere, noted there */
    PART_ROUTED_KERNEL, /* in: the same of PART_KERNEL */
    PART_FRAGMENTS,   /* of PART_SOCKETS: what its datagrams are in pieces beyond what they are as a whole */
    PART_ROUTED_FRAGMENTS, /* in: of that what left elsewhere */
    PART_RDMA,        /* RoCE from or for this machine, which no socket's owner has */
    PARTS,
};

struct amount {
    u64 packets;
    u64 bytes;
};

struct port_direction {
    u64 stack_packets;
    u64 stack_bytes;
    struct amount class[CLASSES]; /* wire; multicast repeats what the others hold */
    u64 tagged;                /* frames with a VLAN tag beside them, which drivers count or not */
    struct amount once;        /* wire; what no other interface has counted on the packet's way */
    struct amount part[PARTS]; /* stack; of IP packets the bytes from the IP header on, without padding */
};

struct port_counters {
    struct port_direction in;
    struct port_direction out;
};

/* A socket that a process has open, as the iterator over open files reports it. */
struct held_socket {
    u64 cookie;
    u64 started; /* the process; nanoseconds since the machine's start */
    u32 pid;
    u32 unused;
    char comm[16];
};

/* A thread, as the iterator over tasks reports it. */
struct task {
    u64 cgroup;
    u32 tid; /* as the reader's process namespace has it */
    u32 pid; /* of its process, as the first namespace has it */
    u32 uid; /* as whom it opens files and sockets, in the first user namespace */
    u32 unused;
    char comm[16]; /* of its process */
};

/* An interface that is monitored. */
struct port {
    u32 index; /* its place in the counters */
    u16 flags; /* PORT_* */
    u16 link_header; /* bytes of link-layer header, 0 on layer-3 devices */
    u32 master; /* the bridge or bond it belongs to, 0: none */
    u8 address[6]; /* the bridge's */
    u16 unused;
};

#define NO_PLACE 0xffffffffU /* index of one that is not monitored, but others need to know of */

#define PORT_LOOPBACK 1 /* its link-layer header is a dummy */
#define PORT_ECHO 2     /* what comes in was counted as it left: lo; a veth whose other end is monitored here */
#define PORT_UPPER 4    /* stands on interfaces that are all monitored, which count its packets, too */
#define PORT_SHARED 8   /* an interface above stands on others as well, some not monitored: it counts once */
#define PORT_SLAVE 16   /* all its frames are its master's (bond, team) */
#define PORT_BRIDGED 32 /* belongs to a bridge */
#define PORT_TRUNK 64   /* tagged frames are those of VLAN interfaces above */

struct target_counters {
    u64 in_packets; /* sent to the target */
    u64 in_bytes;
    u64 out_packets; /* sent by the target */
    u64 out_bytes;
};

struct target4_key {
    u32 prefix_length;
    u8 address[4];
};

struct target6_key {
    u32 prefix_length;
    u8 address[16];
};

/* Bits of a target filter: as a power of two, and its words. */
#define FILTER_BITS 16
#define FILTER_WORDS ((1 << FILTER_BITS) / 64)

/* What passes a stage on its way through the kernel, see path.c. */
struct path_event {
    u64 time;        /* ns, CLOCK_MONOTONIC */
    u64 packet;      /* address of the struct sk_buff, 0: the stage knows a socket only */
    u64 data;        /* address of its data (skb->head), which clones of a packet share */
    u64 socket;      /* cookie of the socket, 0: unknown, or it has none yet */
    u64 location;    /* of drops and resets: the address in the kernel's code */
    u8 source[16];   /* zeroes: unknown */
    u8 destination[16];
    u16 source_port; /* 0 where there is none */
    u16 destination_port;
    u8 protocol;     /* IANA number */
    u8 flags;        /* TCP: its flags; ICMP: its type */
    u8 stage;
    u8 event;        /* PATH_* */
    u32 sequence;    /* TCP, of calls the first byte sent; ICMP: the word behind the checksum (of echoes identifier and sequence number) */
    u32 acknowledgement;
    u32 length;      /* of the IP packet, headers included; at stages of sockets that of the call */
    u32 ifindex;     /* 0: unknown */
    u32 uid;         /* 0xffffffff: unknown */
    u32 pid;         /* of the process that calls; 0: not a stage of calls */
    u32 reason;      /* of a drop: enum skb_drop_reason; 0: unknown */
    char name[16];   /* of the process if there is a pid, else of the interface */
    u16 id;          /* of the IPv4 header or the fragment */
    u8 ttl;          /* or hop limit */
    u8 linked;       /* 1: the packet is the one this CPU handled last for the same connection */
};

enum { PATH_PASS, PATH_DROP, PATH_RETRANSMIT, PATH_RESET };

#define PATH_STAGES 64 /* at most */
#define PATH_BUCKETS 64

/* One stage, one CPU. Of what matched, all but suppressed and lost is in the ring. */
struct path_counters {
    u64 matched;
    u64 bytes;
    u64 suppressed; /* above the rate */
    u64 lost;       /* no room in the ring; of drops in statistics: in the table of reasons */
    u64 timed;      /* packets seen at an earlier stage */
    u64 waited;     /* ns since then, all together */
    u64 unused[2];
};

/* One stage, one CPU: of the packets timed how many had waited 2^n ns or more, but less than twice that. */
struct path_latency {
    u64 buckets[PATH_BUCKETS];
};

struct path_drop_key {
    u64 location;
    u32 reason;
    u32 stage;
};

/* What differs between the programs of stages. User space writes it into the code of each, see path.c. */
enum { VARIANT_STAGE, VARIANT_EVENT, VARIANT_TRAITS, VARIANT_FAMILY, VARIANT_PROTOCOL, VARIANT_RESULT };

/* What a hook hands over, likewise: struct sk_buff, struct sock, and numbers. */
enum { HANDED_PACKET, HANDED_SOCKET, HANDED_LENGTH, HANDED_REASON, HANDED_LOCATION };

/* Bits of VARIANT_TRAITS */
#define PATH_OUT 1        /* on the way out: a socket's own address is the source */
#define PATH_BY_SOCKET 2  /* the packet has no IP header (yet): who talks to whom is known by the socket */
#define PATH_AT_DATA 4    /* the IP header is where the data begins */
#define PATH_CALL 8       /* the current process has called */
#define PATH_OWNED 16     /* only packets that a socket of IPv4 or IPv6 owns */
#define PATH_PAYLOAD 32   /* only TCP segments with data */
#define PATH_LINKED 64    /* a socket's stage that follows the packet in hand */
#define PATH_ASIDE 128    /* not on the way: no time since the stage before */
#define PATH_DONE 256     /* the call is over, the length what came of it */
#define PATH_TYPED 512    /* the kernel knows the types of what is handed over: no copies needed to read it */
#define PATH_CONTEXT 1024 /* the context is a struct __sk_buff */
#define PATH_SHARED 2048  /* several stages have the hook in common: which it is, protocol and family tell */
#define PATH_CONNECTED 4096 /* of a connection, the ends of the packet are those of the socket */

#define PATH_SHARED_STAGES 4 /* of a hook: TCP and UDP, each over IPv4 and IPv6 */
#define PATH_SHARED_HOOKS 8  /* at most */

/* One word each for user space to tell the programs. */
enum {
    SETTING_EPOCH,    /* sockets.c: grows when slots were given back; interfaces.c: when targets or ports do */
    SETTING_TARGETS4, /* interfaces.c: how many targets there are */
    SETTING_TARGETS6,
    SETTING_NETNS,    /* sockets.c: cookie of the network namespace whose interfaces count */
    SETTINGS,
};

/* Loss ledger of sockets.c: what could not be counted as it should, and where it went instead. */
enum {
    LOST_NO_SLOT_SOCKETS,  /* sockets that found no free slot */
    LOST_NO_SLOT_PACKETS,  /* their packets: counted per user and cgroup */
    LOST_NO_STORAGE,       /* packets whose socket could get no storage: counted likewise */
    LOST_OVERFLOW_FULL,    /* packets beyond that: counted under nobody */
    LOST_PEERS_FULL,       /* packets counted in their socket's row, not in a peer's */
    LOST_NO_SOCKET,        /* packets at the hook without a socket: counted under nobody */
    LOST_NO_PEER,          /* packets whose IP header names no peer: counted in their socket's row */
    LOST_DETOURS_FULL,     /* packets counted at another interface of their socket */
    LOST_RDMA,             /* packets that soft-RoCE sent: counted at the interface */
    SOCKET_LOSSES,
};

/* Loss ledger of interfaces.c */
enum {
    LOST_FORWARDED_FULL, /* packets not in the flow table: counted in interface and target */
    LOST_MALFORMED,      /* frames whose IP header is cut short or wrong: counted as other */
    LOST_NO_PORT,        /* packets on an interface that has just been taken off the list */
    LOST_ROCE_FULL,      /* RoCE packets not in the flow table: counted in interface and target */
    INTERFACE_LOSSES,
};

#endif
