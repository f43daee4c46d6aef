/*
 * Sends from one network namespace to another as fast as it can, and says how fast that was.
 *
 * Usage: traffic NEAR FAR ADDRESS, namespaces as paths, the address is FAR's, of either version. Each line of
 * input, KIND COUNT MILLISECONDS, is answered with a line, the rate at which the far side received:
 *
 *   tcp          bytes a second over COUNT connections
 *   udp          datagrams of 64 bytes a second, COUNT senders
 *   connections  connections a second, opened, asked, answered and closed, COUNT clients
 *
 * Each sender has its receiver on the next CPU.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 5202 /* iperf3 has 5201 */
#define PAIRS 256 /* at most */
#define DATAGRAM 64
#define PIECE (128 << 10)
#define WARM_UP 60 /* ms */

struct pair {
    int sender, receiver;
    int number;
    pthread_t threads[2];
    _Alignas(64) atomic_ulong received;
};

static struct pair pairs[PAIRS];
static struct sockaddr_storage far_end;
static socklen_t far_length;
static int near_space, far_space;
static atomic_bool stopping;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void enter(int space)
{
    if (setns(space, CLONE_NEWNET))
        fail("setns");
}

static int new_socket(int space, int type)
{
    int descriptor, on = 1;
    struct timeval second = {.tv_sec = 1};

    enter(space);
    descriptor = socket(far_end.ss_family, type, 0);
    if (descriptor < 0)
        fail("socket");
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
    return descriptor;
}

static int bound(int type)
{
    int descriptor = new_socket(far_space, type);

    if (bind(descriptor, (void *)&far_end, far_length))
        fail("bind");
    if (type == SOCK_STREAM && listen(descriptor, PAIRS))
        fail("listen");
    return descriptor;
}

static void connect_there(int descriptor)
{
    if (connect(descriptor, (void *)&far_end, far_length))
        fail("connect");
}

static void stay_on(int number)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(number % sysconf(_SC_NPROCESSORS_ONLN), &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* -- tcp and udp ------------------------------------------------------------------------------------ */

static size_t piece;

static void *send_all(void *argument)
{
    struct pair *pair = argument;
    char *buffer = calloc(1, piece);

    stay_on(pair->number);
    while (!stopping)
        send(pair->sender, buffer, piece, MSG_NOSIGNAL);
    free(buffer);
    return NULL;
}

/* Of TCP counts bytes, of UDP datagrams. */
static void *receive_all(void *argument)
{
    struct pair *pair = argument;
    char *buffer = malloc(PIECE);
    bool datagrams = piece == DATAGRAM;
    ssize_t got;

    stay_on(pair->number + 1);
    while (!stopping) {
        got = recv(pair->receiver, buffer, PIECE, 0);
        if (got > 0)
            pair->received += datagrams ? 1 : got;
    }
    free(buffer);
    return NULL;
}

static void open_tcp(int count)
{
    int listener = bound(SOCK_STREAM), i;

    for (i = 0; i < count; i++) {
        pairs[i].sender = new_socket(near_space, SOCK_STREAM);
        connect_there(pairs[i].sender);
        pairs[i].receiver = accept(listener, NULL, NULL);
        if (pairs[i].receiver < 0)
            fail("accept");
    }
    close(listener);
}

static void open_udp(int count)
{
    struct sockaddr_storage near_end;
    socklen_t length;
    int i, on = 1;

    for (i = 0; i < count; i++) { /* both ends connected: a flow each */
        pairs[i].receiver = new_socket(far_space, SOCK_DGRAM);
        setsockopt(pairs[i].receiver, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
        if (bind(pairs[i].receiver, (void *)&far_end, far_length))
            fail("bind");
        pairs[i].sender = new_socket(near_space, SOCK_DGRAM);
        connect_there(pairs[i].sender);
        length = sizeof(near_end);
        getsockname(pairs[i].sender, (void *)&near_end, &length);
        if (connect(pairs[i].receiver, (void *)&near_end, length))
            fail("connect");
    }
}

/* -- connections ------------------------------------------------------------------------------------ */

static void *ask(void *argument)
{
    struct pair *pair = argument;
    char answer[DATAGRAM] = {0};
    struct timeval second = {.tv_sec = 1};
    int descriptor;

    stay_on(pair->number);
    enter(near_space);
    while (!stopping) {
        descriptor = socket(far_end.ss_family, SOCK_STREAM, 0);
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
        if (!connect(descriptor, (void *)&far_end, far_length) &&
            send(descriptor, answer, sizeof(answer), MSG_NOSIGNAL) > 0 &&
            recv(descriptor, answer, sizeof(answer), 0) > 0)
            pair->received++;
        close(descriptor);
    }
    return NULL;
}

static void *answer(void *argument)
{
    struct pair *pair = argument;
    struct linger reset = {.l_onoff = 1}; /* no TIME_WAIT: ports would run out */
    char question[DATAGRAM];
    int descriptor;

    stay_on(pair->number + 1);
    while (!stopping) {
        descriptor = accept(pair->receiver, NULL, NULL);
        if (descriptor < 0)
            continue;
        if (recv(descriptor, question, sizeof(question), 0) > 0)
            send(descriptor, question, sizeof(question), MSG_NOSIGNAL);
        recv(descriptor, question, sizeof(question), 0); /* until the client is done */
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(descriptor);
    }
    return NULL;
}

static void open_connections(int count)
{
    int listener = bound(SOCK_STREAM), i;

    for (i = 0; i < count; i++) {
        pairs[i].sender = -1;
        pairs[i].receiver = dup(listener);
    }
    close(listener);
}

/* ---------------------------------------------------------------------------------------------------- */

static unsigned long received(int count)
{
    unsigned long sum = 0;

    while (count--)
        sum += pairs[count].received;
    return sum;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static double measure(const char *kind, int count, int milliseconds)
{
    bool connections = !strcmp(kind, "connections"), udp = !strcmp(kind, "udp");
    unsigned long before;
    double began, rate;
    int i;

    piece = udp ? DATAGRAM : PIECE;
    stopping = false;
    (connections ? open_connections : udp ? open_udp : open_tcp)(count);
    for (i = 0; i < count; i++) {
        pairs[i].number = i;
        pairs[i].received = 0;
        pthread_create(&pairs[i].threads[0], NULL, connections ? answer : receive_all, &pairs[i]);
        pthread_create(&pairs[i].threads[1], NULL, connections ? ask : send_all, &pairs[i]);
    }
    usleep(WARM_UP * 1000);
    before = received(count);
    began = now();
    usleep(milliseconds * 1000);
    rate = (received(count) - before) / (now() - began);
    stopping = true;
    for (i = 0; i < count; i++) {
        shutdown(pairs[i].receiver, SHUT_RDWR);
        if (pairs[i].sender >= 0)
            shutdown(pairs[i].sender, SHUT_RDWR);
    }
    for (i = 0; i < count; i++) {
        pthread_join(pairs[i].threads[1], NULL);
        pthread_join(pairs[i].threads[0], NULL);
        close(pairs[i].receiver);
        if (pairs[i].sender >= 0)
            close(pairs[i].sender);
    }
    return rate;
}

static int open_space(const char *path)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);

    if (descriptor < 0)
        fail(path);
    return descriptor;
}

int main(int argc, char **argv)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
    int count, milliseconds;
    char kind[16], port[8];

    snprintf(port, sizeof(port), "%d", PORT);
    if (argc != 4 || getaddrinfo(argv[3], port, &hints, &found))
        return 2;
    memcpy(&far_end, found->ai_addr, found->ai_addrlen);
    far_length = found->ai_addrlen;
    near_space = open_space(argv[1]);
    far_space = open_space(argv[2]);
    while (scanf("%15s %d %d", kind, &count, &milliseconds) == 3 && count > 0 && count <= PAIRS) {
        printf("%.0f\n", measure(kind, count, milliseconds));
        fflush(stdout);
    }
    return 0;
}
