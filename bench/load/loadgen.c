/* The load generator: one thread, one epoll, N callers and, if asked, the upstream server they talk to.
 *
 * Prints NDJSON on stdout: {"event":"ready"}, {"event":"measuring"}, {"event":"result",…}. A run in which this
 * process was busy for more than 90 % of the window is void: it measured the generator. Exit: 0 with a
 * result, 1 could not run, 2 wrong options. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { MAX_EVENTS = 512, LEAST_WAIT_NS = 200000, READY_TIMEOUT_S = 60 };

options opt = {.host = "127.0.0.1", .path = "/v1/realtime?model=load", .key = "none", .port = 0, .upstream_port = 0,
               .sessions = 10, .mode = MODE_VAD, .tools = 1, .frame_ms = 20, .speech_ms = 1000, .silence_ms = 200,
               .gap_ms = 0, .stagger_ms = 4000, .ramp_ms = 1000, .item_rate = 20, .warmup_s = 5, .seconds_s = 10,
               .reply_ms = 3000, .delta_ms = 40, .tool_every = 2, .look_us = 0};
result res;
int epoll_fd;

static const struct {
    const char *name;
    int *value;
    int least, most;
} NUMBERS[] = {
    {"--port", &opt.port, 1, 65535}, {"--upstream", &opt.upstream_port, 1, 65535}, {"--sessions", &opt.sessions, 1, 20000},
    {"--tools", &opt.tools, 0, 1}, {"--frame-ms", &opt.frame_ms, 10, 80}, {"--speech-ms", &opt.speech_ms, 20, 600000},
    {"--silence-ms", &opt.silence_ms, 0, 10000}, {"--gap-ms", &opt.gap_ms, 0, 600000},
    {"--stagger-ms", &opt.stagger_ms, 0, 600000}, {"--ramp-ms", &opt.ramp_ms, 0, 600000},
    {"--item-rate", &opt.item_rate, 1, 10000}, {"--reply-ms", &opt.reply_ms, 40, 600000},
    {"--delta-ms", &opt.delta_ms, 20, 200}, {"--tool-every", &opt.tool_every, 0, 1000},
    {"--look-us", &opt.look_us, 0, 1000},
};

static void usage(const char *what, const char *value) {
    fprintf(stderr, "loadgen: %s '%s'. Options: --host --path --key TEXT, --mode vad|manual|items|idle|serve|cert, --upstream-cert PATH, "
                    "--warmup --seconds S", what, value);
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        fprintf(stderr, ", %s %d..%d", NUMBERS[i].name, NUMBERS[i].least, NUMBERS[i].most);
    fprintf(stderr, "\n");
    exit(2);
}

static int take_number(const char *name, const char *value) {
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        if (strcmp(name, NUMBERS[i].name) != 0) continue;
        char *end;
        long number = strtol(value, &end, 10);
        if (*end || number < NUMBERS[i].least || number > NUMBERS[i].most) usage(name, value);
        *NUMBERS[i].value = (int)number;
        return 1;
    }
    return 0;
}

static void take_options(int argc, char **argv) {
    static const char *modes[] = {"vad", "manual", "items", "idle", "serve", "cert"};
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (take_number(name, value)) continue;
        if (!strcmp(name, "--host")) opt.host = value;
        else if (!strcmp(name, "--path")) opt.path = value;
        else if (!strcmp(name, "--key")) opt.key = value;
        else if (!strcmp(name, "--upstream-cert")) opt.upstream_cert = value;
        else if (!strcmp(name, "--warmup")) opt.warmup_s = atof(value);
        else if (!strcmp(name, "--seconds")) opt.seconds_s = atof(value);
        else if (!strcmp(name, "--mode")) {
            opt.mode = -1;
            for (int m = 0; m < 6; m++)
                if (!strcmp(value, modes[m])) opt.mode = m;
            if (opt.mode < 0) usage(name, value);
        } else usage("unknown option", name);
    }
    if (!opt.port && opt.mode < MODE_SERVE) usage("expected a port with", "--port");
}

void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + t.tv_nsec / 1e9;
}

static void print_result(double window_s, double busy) {
    printf("{\"event\": \"result\", \"sessions\": %d, \"ready\": %d, \"window_s\": %.3f, \"generator_busy\": %.3f, \"void\": %s, ",
           opt.sessions, clients_ready(), window_s, busy, busy > 0.9 ? "true" : "false");
    printf("\"per_s\": {\"frames_up\": %.1f, \"media_down\": %.1f, \"partial_down\": %.1f, \"commit_down\": %.1f, "
           "\"other_down\": %.1f, \"bytes_down\": %.0f}, ",
           res.frames_up / window_s, res.media_down / window_s, res.partial_down / window_s, res.commit_down / window_s,
           res.other_down / window_s, res.bytes_down / window_s);
    printf("\"turns\": %llu, \"tool_calls\": %llu, \"stalls\": %llu, \"errors\": %llu, \"lost\": %llu, \"dropped_up\": %llu, "
           "\"first_error\": \"%s\", ",
           (unsigned long long)res.turns, (unsigned long long)res.tool_calls, (unsigned long long)res.stalls,
           (unsigned long long)res.errors, (unsigned long long)res.lost, (unsigned long long)res.dropped_up, res.first_error);
    printf("\"upstream_media_per_s\": %.1f, \"upstream_calls\": %llu, \"refused\": %llu, \"first_refused\": \"%s\", ", res.upstream_media / window_s,
           (unsigned long long)res.upstream_calls, (unsigned long long)res.refused, res.first_refused);
    const struct { const char *name; histogram *h; } all[] = {
        {"audio", &res.audio}, {"steady", &res.steady}, {"text", &res.text}, {"held", &res.held}, {"committed", &res.committed},
        {"reply", &res.reply}, {"send_lag", &res.send_lag}, {"upstream_up", &res.upstream_up},
        {"upstream_all", &res.upstream_all}, {"upstream_lag", &res.upstream_lag}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (i) printf(", ");
        histogram_print(stdout, all[i].name, all[i].h);
    }
    printf("}\n");
    fflush(stdout);
}

static void say(const char *event) {
    printf("{\"event\": \"%s\", \"ready\": %d}\n", event, clients_ready());
    fflush(stdout);
}

/* With --look-us nobody wakes this process: it looks at its sockets after so long, as a machine does whose network
 * card holds its interrupts together. On one machine it is the sender that pays for waking a reader that sleeps, 7 us
 * of the gateway's core for each write; over a network it does not. What waits meanwhile counts as delay. */
static void rest(void) {
    struct timespec nap = {.tv_sec = 0, .tv_nsec = opt.look_us * 1000L};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
}

static void wait_and_serve(int64_t until) {
    struct epoll_event events[MAX_EVENTS];
    int64_t left = until - now_ns();
    if (opt.look_us && left > 0) {
        rest();
        left = 0;
    }
    /* Not shorter than 0.2 ms: waking for every single send would burn the core that the callers need. */
    if (left > 0 && left < LEAST_WAIT_NS) left = LEAST_WAIT_NS;
    struct timespec timeout = {.tv_sec = left > 0 ? left / 1000000000 : 0, .tv_nsec = left > 0 ? left % 1000000000 : 0};
    int count = epoll_pwait2(epoll_fd, events, MAX_EVENTS, &timeout, NULL);
    for (int i = 0; i < count; i++) {
        if (upstream_owns(events[i].data.ptr)) upstream_accept();
        else conn_on_epoll(events[i].data.ptr, events[i].events);
    }
}

static void run_until(int64_t end, int stop_when_ready) {
    for (;;) {
        int64_t now = now_ns();
        if (now >= end || (stop_when_ready && clients_ready() == opt.sessions)) return;
        int64_t next = clients_run(now);
        int64_t upstream_next = upstream_run(now);
        if (upstream_next < next) next = upstream_next;
        wait_and_serve(next < end ? next : end);
    }
}

/* Two sockets a session here; the usual soft limit is 1024. */
static void allow_many_files(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
    take_options(argc, argv);
    allow_many_files();
    if (opt.look_us) prctl(PR_SET_TIMERSLACK, 1UL); /* else a rest is 50 us longer than it was asked for */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (opt.mode == MODE_CERT) {
        tls_make(opt.upstream_cert ? opt.upstream_cert : "");
        return 0;
    }
    if (opt.upstream_port) upstream_init();
    if (opt.mode == MODE_SERVE) opt.sessions = 0; /* only the upstream, until the window is over */
    clients_init();
    run_until(now_ns() + (int64_t)(READY_TIMEOUT_S * 1e9) + (int64_t)opt.ramp_ms * 1000000, 1);
    if (clients_ready() < opt.sessions) {
        fprintf(stderr, "loadgen: %d of %d callers ready after %d s; first error: '%s'\n", clients_ready(), opt.sessions,
                READY_TIMEOUT_S, res.first_error);
        return 1;
    }
    say("ready");
    run_until(now_ns() + (int64_t)(opt.warmup_s * 1e9), 0);
    memset(&res, 0, sizeof res);
    say("measuring");
    double cpu = cpu_s();
    int64_t began = now_ns();
    run_until(began + (int64_t)(opt.seconds_s * 1e9), 0);
    double window_s = (now_ns() - began) / 1e9;
    print_result(window_s, (cpu_s() - cpu) / window_s);
    /* The callers stay on for a moment, so that whoever reads memory at the result still sees all sessions. */
    run_until(now_ns() + 300000000, 0);
    return 0;
}
