/*
 * Who a task is: runs once for every thread of every process and writes a struct task for it (a BPF
 * iterator: kernel/bpf/task_iter.c). The threads are those that the reader's process namespace has.
 *
 * Compile-time settings, without which nothing is reported: the places of members in the kernel's
 * structures, TASK_*_OFFSET, PID_*_OFFSET, CRED_*_OFFSET, CSS_SET_CGROUP_OFFSET, CGROUP_NODE_OFFSET,
 * NODE_ID_OFFSET.
 */
#include "iterator.h"
#include "peek.h"
#include "types.h"

#define UPID_SIZE 16 /* struct upid: a number and its namespace (include/linux/pid.h) */

/* The iterator's context: bpf_iter__task of the kernel's BTF. */
struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
};

#ifdef TASK_PID_OFFSET
/* How deep the reader's process namespace is: 0 is the first one. */
static __always_inline u32 readers_level(void)
{
    void *pid = NULL;
    u32 level = 0;

    peek(&pid, bpf_get_current_task(), TASK_PID_OFFSET);
    peek(&level, pid, PID_LEVEL_OFFSET);
    return level;
}

static __always_inline u64 cgroup_of(void *process)
{
    void *set = NULL, *cgroup = NULL, *node = NULL;
    u64 id = 0;

    peek(&set, process, TASK_CGROUPS_OFFSET);
    peek(&cgroup, set, CSS_SET_CGROUP_OFFSET);
    peek(&node, cgroup, CGROUP_NODE_OFFSET);
    peek(&id, node, NODE_ID_OFFSET);
    return id;
}

static __always_inline void report_task(struct bpf_iter__task *context)
{
    void *task = context->task, *process = NULL, *pid = NULL, *credentials = NULL;
    struct task found = {};

    if (!task) /* the end */
        return;
    peek(&process, task, TASK_LEADER_OFFSET);
    peek(&pid, task, TASK_PID_OFFSET);
    peek(&found.tid, pid, PID_NUMBERS_OFFSET + readers_level() * UPID_SIZE);
    peek(&found.pid, task, TASK_TGID_OFFSET);
    peek(&credentials, task, TASK_CRED_OFFSET);
    peek(&found.uid, credentials, CRED_UID_OFFSET);
    found.cgroup = cgroup_of(process);
    peek(&found.comm, process, TASK_COMM_OFFSET);
    bpf_seq_write(context->meta->seq, &found, sizeof(found));
}
#else
static __always_inline void report_task(struct bpf_iter__task *context) {}
#endif

/* iter/task: asked for by user space when it meets a task that it does not know. */
BPF_ITER(task)
{
    report_task(ctx);
    return 0;
}
