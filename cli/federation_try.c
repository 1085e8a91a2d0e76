/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A federation on one machine, each node a process of its own, for trying what it survives. A node that
 * is killed is started again after a while, so that one can watch it catch up.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/federation.h"
#include "federation/init.h"

enum {
    NODES_DEFAULT = 4,
    PORT_DEFAULT = 7100,
    RESTART_S = 3,
    STOP_SECONDS = 10,
};

struct attempt {
    const char *dir;
    int nodes, port;
    char made[PATH_MAX]; /* a folder of our own, "": the user's */
    pid_t processes[PBFT_MEMBERS_MAX];
    time_t restart_at[PBFT_MEMBERS_MAX];
};

static volatile sig_atomic_t stopped;

static void on_stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static int make_folder(struct attempt *t)
{
    struct sov_errbuf err = {""};
    char node[PATH_MAX];
    const char *tmp = getenv("TMPDIR");
    if (t->dir == NULL) {
        snprintf(t->made, sizeof t->made, "%s/sovereign-federation-XXXXXX",
                 tmp != NULL && *tmp == '/' ? tmp : "/tmp");
        if (mkdtemp(t->made) == NULL) return cli_error("%s: %s", t->made, strerror(errno));
        t->dir = t->made;
    }
    int n = snprintf(node, sizeof node, "%s/node0", t->dir);
    if (n < 0 || n >= (int)sizeof node) return cli_error("--dir %s: the path is too long", t->dir);
    struct stat st;
    if (stat(node, &st) == 0) return CLI_OK; /* it goes on from where it was */
    struct fed_config config;
    struct fed_init_options options = {.folder = t->dir,
                                       .nodes = (uint32_t)t->nodes,
                                       .host = "127.0.0.1",
                                       .base_port = (uint16_t)t->port};
    if (fed_init(&options, &config, &err) != SOV_OK) return cli_error("%s", err.message);
    return CLI_OK;
}

/* How many nodes the folder has. */
static int count_nodes(const struct attempt *t)
{
    int count = 0;
    for (struct stat st; count < PBFT_MEMBERS_MAX; count++) {
        char node[PATH_MAX];
        snprintf(node, sizeof node, "%.4000s/node%d", t->dir, count);
        if (stat(node, &st) != 0) break;
    }
    return count;
}

static void start_node(struct attempt *t, int i)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.4000s/node%d", t->dir, i);
    pid_t parent = getpid(), pid = fork();
    t->restart_at[i] = 0;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(CLI_FAILED);
        setpgid(0, 0); /* a Ctrl-C is for the parent, which stops the nodes one after the other */
        struct federation_run run = {.data_dir = folder};
        exit(federation_run(&run));
    }
    if (pid < 0) {
        log_error("federation: node %d cannot be started: %s", i, strerror(errno));
        t->restart_at[i] = time(NULL) + RESTART_S;
    }
    t->processes[i] = pid > 0 ? pid : 0;
}

static void reap(struct attempt *t)
{
    int how;
    for (pid_t pid; (pid = waitpid(-1, &how, WNOHANG)) > 0;) {
        for (int i = 0; i < t->nodes; i++) {
            if (t->processes[i] != pid) continue;
            t->processes[i] = 0;
            t->restart_at[i] = time(NULL) + RESTART_S;
            if (WIFSIGNALED(how))
                log_warn("federation: node %d was killed (signal %d); it is started again in %d s",
                         i, WTERMSIG(how), RESTART_S);
            else
                log_warn("federation: node %d ended; it is started again in %d s", i, RESTART_S);
        }
    }
}

static bool any_runs(const struct attempt *t)
{
    for (int i = 0; i < t->nodes; i++)
        if (t->processes[i] != 0) return true;
    return false;
}

static void stop_nodes(struct attempt *t)
{
    struct timespec tenth = {.tv_nsec = 100000000};
    for (int turn = 0; turn < STOP_SECONDS * 10 && any_runs(t); turn++) {
        for (int i = 0; turn == 0 && i < t->nodes; i++)
            if (t->processes[i] != 0) kill(t->processes[i], SIGTERM);
        nanosleep(&tenth, NULL);
        for (int i = 0; i < t->nodes; i++)
            if (t->processes[i] != 0 && waitpid(t->processes[i], NULL, WNOHANG) > 0)
                t->processes[i] = 0;
    }
    for (int i = 0; i < t->nodes; i++)
        if (t->processes[i] != 0) kill(t->processes[i], SIGKILL);
}

static void explain(const struct attempt *t)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0)
        self[n] = '\0';
    else
        snprintf(self, sizeof self, "sovereign");
    printf("%d nodes in %s. In another terminal:\n\n"
           "  %s federation status --data-dir %s/node0\n"
           "  echo '{\"hello\": \"world\"}' | %s federation propose - --data-dir %s/node0\n"
           "  kill -9 %d        # node 0; it is started again after %d s\n\n"
           "Ctrl-C ends it%s.\n",
           t->nodes, t->dir, self, t->dir, self, t->dir, (int)t->processes[0], RESTART_S,
           t->made[0] != '\0' ? " and removes the folder (--dir keeps one)" : "");
    fflush(stdout);
}

static void run_nodes(struct attempt *t)
{
    struct timespec wait = {.tv_nsec = 200000000};
    for (int i = 0; i < t->nodes; i++) start_node(t, i);
    explain(t);
    while (!stopped) {
        nanosleep(&wait, NULL);
        reap(t);
        for (int i = 0; i < t->nodes && !stopped; i++)
            if (t->restart_at[i] != 0 && time(NULL) >= t->restart_at[i]) start_node(t, i);
    }
    stop_nodes(t);
}

/* The folder that was made, and what nodes leave in theirs. */
static void remove_folder(const struct attempt *t)
{
    if (t->made[0] == '\0') return;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--", t->made, (char *)NULL);
        _exit(CLI_FAILED);
    }
    if (pid > 0) waitpid(pid, NULL, 0);
}

int federation_try(int argc, char **argv)
{
    struct args args;
    struct attempt t = {.nodes = NODES_DEFAULT, .port = PORT_DEFAULT};
    struct sigaction stop = {.sa_handler = on_stop};
    int status = CLI_OK;
    args_init(
        &args, "federation try", "[--nodes N] [--dir DIR] [--port P]",
        "Starts a federation of several nodes on this machine, each a process of its own, and "
        "says how to speak to it. A node that is killed is started again after some seconds.");
    args_int(&args, "--nodes", "N", &t.nodes, PBFT_MEMBERS_MIN, PBFT_MEMBERS_MAX,
             "How many. Default 4, of which one may be faulty.");
    args_text(&args, "--dir", "DIR", &t.dir,
              "Folder for their data directories, which stays. A federation that is there already "
              "goes on. Default: a new one, which is removed at the end.");
    args_int(&args, "--base-port", "P", &t.port, 1, 65535 - PBFT_MEMBERS_MAX,
             "Port of node 0; the others' follow. Default 7100.");
    if (!args_parse(&args, argc, argv, &status)) return status;
    sigemptyset(&stop.sa_mask);
    if (sigaction(SIGINT, &stop, NULL) != 0 || sigaction(SIGTERM, &stop, NULL) != 0)
        return cli_error("signals cannot be caught (%s)", strerror(errno));
    status = make_folder(&t);
    if (status == CLI_OK) {
        t.nodes = count_nodes(&t);
        run_nodes(&t);
    }
    remove_folder(&t);
    return status;
}
