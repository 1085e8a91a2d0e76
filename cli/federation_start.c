/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/federation.h"
#include "federation/control.h"
#include "federation/node.h"

enum { THREADS_MAX = 16 };

/* What the signal handler reaches. */
static struct fed_node *running;

static void on_stop(int signal_number)
{
    (void)signal_number;
    fed_node_stop(running); /* an atomic store and a write(2) */
}

static bool catch_signals(struct fed_node *node)
{
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&stop.sa_mask);
    running = node;
    signal(SIGPIPE, SIG_IGN);
    return sigaction(SIGINT, &stop, NULL) == 0 && sigaction(SIGTERM, &stop, NULL) == 0;
}

static int run_node(struct fed_node *node, const char *data_dir)
{
    struct sov_errbuf err = {""};
    struct control *control;
    if (control_open(node, data_dir, &control, &err) != SOV_OK) return cli_error("%s", err.message);
    enum sov_error rc = SOV_OK;
    if (catch_signals(node))
        rc = fed_node_run(node, &err);
    else
        rc = sov_fail(&err, SOV_ERR_IO, "signals cannot be caught (%s)", strerror(errno));
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    control_close(control);
    return rc == SOV_OK ? CLI_OK : cli_error("%s", err.message);
}

void federation_data_dir_add(struct args *args, const char **data_dir)
{
    args_text(args, "--data-dir", "DIR", data_dir,
              "The node's data directory. Default: $XDG_STATE_HOME/sovereign, or "
              "~/.local/state/sovereign.");
}

int federation_data_dir(const char **data_dir, char buffer[PATH_MAX])
{
    struct sov_errbuf err = {""};
    if (*data_dir != NULL) return CLI_OK;
    if (datadir_default(buffer, PATH_MAX, &err) != SOV_OK)
        return cli_error("--data-dir is missing: %s", err.message);
    *data_dir = buffer;
    return CLI_OK;
}

int federation_run(const struct federation_run *run)
{
    struct sov_errbuf err = {""};
    char usual[PATH_MAX], host[FED_HOST_BYTES_MAX];
    uint16_t port = 0;
    struct fed_config config;
    struct datadir *dir = NULL;
    struct fed_node *node = NULL;
    const char *path = run->config_path;
    int n = snprintf(usual, sizeof usual, "%s/" FED_CONFIG_FILE, run->data_dir);
    if (path == NULL && (n < 0 || n >= (int)sizeof usual))
        return cli_error("--data-dir %s: the path is too long", run->data_dir);
    if (path == NULL) path = usual;
    enum sov_error rc = fed_config_load(path, &config, &err);
    if (rc == SOV_OK && run->listen != NULL)
        rc = fed_address_split(run->listen, strlen(run->listen), host, &port, &err);
    if (rc == SOV_OK) rc = datadir_open(run->data_dir, &dir, &err);
    struct fed_node_options options = {
        .config = &config,
        .dir = dir,
        .host = run->listen != NULL ? host : NULL,
        .port = port,
        .threads = run->threads,
        .id_plus_one = run->id_plus_one,
    };
    if (rc == SOV_OK) rc = fed_node_create(&options, &node, &err);
    int status = rc == SOV_OK ? run_node(node, run->data_dir) : cli_error("%s", err.message);
    fed_node_free(node);
    datadir_close(dir);
    return status;
}

int federation_start(int argc, char **argv)
{
    struct args args;
    struct federation_run run = {.threads = 0};
    char buffer[PATH_MAX];
    int status = CLI_OK, id = -1;
    args_init(&args, "federation start", "[--config FILE] [--data-dir DIR]",
              "Runs the node whose key is in the data directory, until SIGINT or SIGTERM. "
              "'sovereign federation init' makes the directory and the configuration.");
    args_text(&args, "--config", "FILE", &run.config_path,
              "The federation's configuration. Default: " FED_CONFIG_FILE
              " in the data directory.");
    federation_data_dir_add(&args, &run.data_dir);
    args_text(&args, "--listen", "HOST:PORT", &run.listen,
              "Where to listen for the other nodes. Default: this node's address in the "
              "configuration.");
    args_int(&args, "--id", "N", &id, 0, MESSAGE_SEATS_MAX - 1,
             "This node's id, when its key is not in the configuration: because a change of the "
             "members brought it, or its new key.");
    args_int(&args, "--threads", "N", &run.threads, 1, THREADS_MAX,
             "Threads that verify signatures when there are many. Default: one for each CPU.");
    args.examples = "  sovereign federation init --nodes 4 --dir fed\n"
                    "  sovereign federation start --data-dir fed/node0\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    run.id_plus_one = id + 1;
    status = federation_data_dir(&run.data_dir, buffer);
    return status == CLI_OK ? federation_run(&run) : status;
}
