/* Programs that do nothing at each kind of hook: what hooks cost by themselves. */
#include <linux/types.h>

int empty_cgroup(struct __sk_buff *skb)
{
    return 1;
}

int empty_tc(struct __sk_buff *skb)
{
    return -1; /* TC_ACT_UNSPEC: on to whoever is next */
}

int empty_xdp(struct xdp_md *context)
{
    return 2; /* XDP_PASS */
}
