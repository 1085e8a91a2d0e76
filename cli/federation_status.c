/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/federation.h"
#include "federation/control.h"
#include "federation/node.h"
#include "json/json_strict.h"

static long long number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    return value != NULL ? value : "";
}

static void print_peer(const json_t *peer)
{
    bool self = json_is_true(json_object_get(peer, "self"));
    bool connected = json_is_true(json_object_get(peer, "connected"));
    printf("%4lld  %-22s ", number(peer, "id"), text(peer, "address"));
    if (self) {
        printf("this node\n");
        return;
    }
    printf("%-12s %10lld %6lld", connected ? "connected" : "not there", number(peer, "executed"),
           number(peer, "lag"));
    if (connected)
        printf(" %8.2f ms", (double)number(peer, "round_trip_us") / 1000);
    else
        printf("  %s", text(peer, "trouble"));
    putchar('\n');
}

static void print_status(const json_t *s)
{
    const json_t *peers = json_object_get(s, "peers"), *peer;
    size_t i;
    printf("node        %lld of %lld, %lld of them may be faulty\n", number(s, "id"),
           number(s, "members"), number(s, "f"));
    printf("federation  %s\n", text(s, "federation"));
    printf("state       %s\n", text(s, "state"));
    printf("view        %lld of epoch %lld; the primary is node %lld\n", number(s, "view"),
           number(s, "epoch"), number(s, "primary"));
    printf("sequence    %lld, %lld behind; durable to %lld, checkpoint at %lld\n",
           number(s, "sequence"), number(s, "lag"), number(s, "durable"), number(s, "checkpoint"));
    printf("head        %s\n", text(s, "head"));
    if (text(s, "store_problem")[0] != '\0') printf("storage     %s\n", text(s, "store_problem"));
    printf("\n  id  address                link           sequence    lag   round trip\n");
    json_array_foreach(peers, i, peer) print_peer(peer);
}

int federation_status(int argc, char **argv)
{
    struct args args;
    const char *data_dir = NULL;
    char buffer[PATH_MAX];
    bool json = false;
    struct control_client *client = NULL;
    struct strbuf answer = {0};
    struct sov_errbuf err = {""};
    json_t *object = NULL;
    int status = CLI_OK;
    args_init(&args, "federation status", "[--data-dir DIR] [--json]",
              "Shows the view, the primary, the sequence number, the last checkpoint and the other "
              "nodes, as the node that runs here sees them.");
    federation_data_dir_add(&args, &data_dir);
    args_switch(&args, "--json", &json, "Print everything that the node tells, as JSON.");
    if (!args_parse(&args, argc, argv, &status)) return status;
    status = federation_data_dir(&data_dir, buffer);
    if (status != CLI_OK) return status;
    enum sov_error rc = control_connect(data_dir, &client, &err);
    if (rc == SOV_OK) rc = control_call(client, "status\n", 7, CONTROL_ANSWER_MS, &answer, &err);
    if (rc == SOV_OK) rc = json_strict_object(strbuf_text(&answer), answer.length, &object, &err);
    if (rc != SOV_OK) {
        status = cli_error("%s", err.message);
    } else if (json) {
        printf("%s\n", answer.data);
        status = cli_flush_output();
    } else {
        print_status(object);
        status = cli_flush_output();
    }
    json_decref(object);
    control_disconnect(client);
    strbuf_free(&answer);
    return status;
}
