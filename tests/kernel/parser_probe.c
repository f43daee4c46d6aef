/*
 * What bpf/parse.h reads out of a packet, told to the test: the packet lies behind an Ethernet header of its
 * own, so that it may be as short as it likes, and the type of that header says where it begins.
 */
#include "parse.h"

#define BEGINS_WITH_ETHERNET 0x88b5
#define CARRIER sizeof(struct ethernet)

/* Mirrored by tests/kernel/parsing.py. */
struct verdict {
    u32 link_header; /* 0: not a whole one */
    u16 type;        /* behind it */
    u8 whole;        /* 1: `packet` is filled in */
    u8 unused;
    struct packet packet;
};

/* One element. User space maps it. */
BPF_F_TABLE("array", u32, struct verdict, verdicts, 1, BPF_F_MMAPABLE);

int parser_probe(struct __sk_buff *skb)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct packet nothing = {};
    struct verdict *verdict;
    u32 place = 0, at = 0;
    __be16 type;

    verdict = verdicts.lookup(&place);
    if (!verdict || data + CARRIER > end)
        return 0;
    verdict->packet = nothing;
    verdict->link_header = 0;
    verdict->whole = 0;
    type = ((struct ethernet *)data)->type;
    data += CARRIER;
    if (type == bpf_htons(BEGINS_WITH_ETHERNET)) {
        at = parse_ethernet(data, end, &type, MAX_VLAN_TAGS);
        if (!at)
            return 0;
        verdict->link_header = at;
    }
    verdict->type = bpf_ntohs(type);
    if (type == bpf_htons(ETHERTYPE_IPV4))
        verdict->whole = parse_ipv4(data + at, end, &verdict->packet);
    else if (type == bpf_htons(ETHERTYPE_IPV6))
        verdict->whole = parse_ipv6(data + at, end, &verdict->packet);
    return 0;
}
