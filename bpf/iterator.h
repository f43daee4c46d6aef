/* What every BPF iterator is given: struct bpf_iter_meta of the kernel's BTF (include/linux/bpf.h). */
#ifndef NETMOND_ITERATOR_H
#define NETMOND_ITERATOR_H

#include "types.h"

struct bpf_iter_meta {
    struct seq_file *seq;
    u64 session_id;
    u64 seq_num;
};

#endif
