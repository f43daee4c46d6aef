/*
 * Gives the interface programs another destination address in every run of a test run, and the empty ones.
 *
 * A program rewrites the frame, which the test run keeps from one run to the next, and ends in a tail call
 * to the program under test. With an empty one there, the cost of the rewriting is known.
 *
 * Compile-time setting: ADDRESSES, how many before they repeat (a power of two).
 */
#include <linux/types.h>

/* Key: 0. Value: the program under test. One array for each program type: the kernel allows no mixing. */
BPF_PROG_ARRAY(next_tc, 1);
BPF_PROG_ARRAY(next_xdp, 1);
/* Key: 0. Value: frames so far. */
BPF_ARRAY(turn, u64, 1);

#define IPV4_DESTINATION 30 /* in an Ethernet frame */
#define IPV6_DESTINATION 38

/* Scatters numbers as frames.py does. */
static __always_inline u32 scattered(void)
{
    u32 zero = 0;
    u64 *count = turn.lookup(&zero);

    return count ? (u32)((*count)++ % ADDRESSES * 2654435761U) & 0xffffff : 0;
}

static __always_inline void vary4(void *data, void *end)
{
    if (data + IPV4_DESTINATION + 4 <= end)
        *(u32 *)(data + IPV4_DESTINATION) = bpf_htonl(10 << 24 | scattered());
}

static __always_inline void vary6(void *data, void *end)
{
    u32 number;

    if (data + IPV6_DESTINATION + 16 > end)
        return;
    number = bpf_htonl(scattered());
    *(u32 *)(data + IPV6_DESTINATION + 4) = number;
    *(u32 *)(data + IPV6_DESTINATION + 12) = number;
}

int vary4_tc(struct __sk_buff *skb)
{
    vary4((void *)(long)skb->data, (void *)(long)skb->data_end);
    next_tc.call(skb, 0);
    return -1;
}

int vary6_tc(struct __sk_buff *skb)
{
    vary6((void *)(long)skb->data, (void *)(long)skb->data_end);
    next_tc.call(skb, 0);
    return -1;
}

int vary4_xdp(struct xdp_md *context)
{
    vary4((void *)(long)context->data, (void *)(long)context->data_end);
    next_xdp.call(context, 0);
    return 2;
}

int vary6_xdp(struct xdp_md *context)
{
    vary6((void *)(long)context->data, (void *)(long)context->data_end);
    next_xdp.call(context, 0);
    return 2;
}
