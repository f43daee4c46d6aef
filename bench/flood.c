/*
 * Has Ethernet frames arrive at a device as fast as the kernel takes them, or not faster than wanted.
 *
 * Usage: flood DEVICE SIZE. The frames are UDP over IPv4, SIZE bytes with all headers, for nobody's address: the
 * stack looks at them and drops them. They come from test runs of an XDP program that lets them pass
 * (Documentation/bpf/bpf_prog_run.rst, Linux 5.18): nobody has to send them, so that most of what a frame costs
 * is what whoever captures it costs. Each line of input, COUNT FRAMES-A-SECOND (0: as fast as it goes), is answered
 * with a line, the seconds it took, and those that the CPU worked on it. It stays on the first CPU.
 */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCH 256 /* at most */
#define ROUNDS 64 /* as long as nobody waits between them */
#define HEADERS 42 /* Ethernet, IPv4, UDP */

static unsigned char frame[1514] = {
    2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0, /* Ethernet */
    0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 23, 0, 8, 10, 23, 0, 9, /* IPv4 */
    0, 7, 0, 7, 0, 0, 0, 0, /* UDP */
};

static double now(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void set16(int at, int value)
{
    frame[at] = value >> 8;
    frame[at + 1] = value;
}

static int bpf(int command, union bpf_attr *attributes)
{
    int result = syscall(SYS_bpf, command, attributes, sizeof(*attributes));

    if (result < 0) {
        perror("bpf");
        exit(1);
    }
    return result;
}

/* A program that lets everything pass, attached: only then does the device have queues for what it is run with. */
static int attached_program(int device)
{
    static const struct bpf_insn code[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_XDP,
        .insns = (unsigned long)code,
        .insn_cnt = 2,
        .license = (unsigned long)"GPL",
    };
    union bpf_attr link = {};

    link.link_create.prog_fd = bpf(BPF_PROG_LOAD, &load);
    link.link_create.target_ifindex = device;
    link.link_create.attach_type = BPF_XDP;
    bpf(BPF_LINK_CREATE, &link); /* until the process ends */
    return link.link_create.prog_fd;
}

int main(int argc, char **argv)
{
    struct xdp_md context = {};
    union bpf_attr run = {};
    long count, rate, sent;
    cpu_set_t first;
    double began, worked;

    if (argc != 3)
        return 2;
    context.ingress_ifindex = if_nametoindex(argv[1]);
    context.data_end = atoi(argv[2]);
    if (!context.ingress_ifindex || context.data_end < HEADERS || context.data_end > sizeof(frame)) {
        perror(argv[1]);
        return 1;
    }
    set16(16, context.data_end - 14);
    set16(38, context.data_end - 34);
    run.test.prog_fd = attached_program(context.ingress_ifindex);
    run.test.data_in = (unsigned long)frame;
    run.test.data_size_in = context.data_end;
    run.test.ctx_in = (unsigned long)&context;
    run.test.ctx_size_in = sizeof(context);
    run.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    run.test.batch_size = BATCH;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof(first), &first);
    while (scanf("%ld %ld", &count, &rate) == 2) {
        began = now(CLOCK_MONOTONIC);
        worked = now(CLOCK_PROCESS_CPUTIME_ID);
        for (sent = 0; sent < count; sent += run.test.repeat) {
            while (rate && sent > rate * (now(CLOCK_MONOTONIC) - began))
                ;
            run.test.repeat = rate ? BATCH : ROUNDS * BATCH;
            if (run.test.repeat > count - sent)
                run.test.repeat = count - sent;
            bpf(BPF_PROG_TEST_RUN, &run);
        }
        printf("%.9f %.9f\n", now(CLOCK_MONOTONIC) - began, now(CLOCK_PROCESS_CPUTIME_ID) - worked);
        fflush(stdout);
    }
    return 0;
}
