/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/init.h"

#include <sodium.h>
#include <stdio.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/federation.h"

enum { NODES_DEFAULT = 4, PORT_DEFAULT = 7100 };

static void print_result(const struct fed_init_options *options, const struct fed_config *config)
{
    char hex[2 * MESSAGE_KEY_BYTES + 1];
    uint32_t n = config->member_count, f = pbft_faulty_max(n);
    sodium_bin2hex(hex, sizeof hex, config->federation.bytes, MESSAGE_DIGEST_BYTES);
    printf("federation %s: %u nodes, of which %u may be faulty\n", hex, n, f);
    for (uint32_t i = 0; i < n; i++) {
        const struct message_member *m = &config->members[i];
        sodium_bin2hex(hex, sizeof hex, m->key, sizeof m->key);
        printf("  %s/node%u  %.*s  key %s\n", options->folder, i, m->address_length, m->address,
               hex);
    }
    printf(
        "Each folder goes to its node and to nobody else: node.key in it is that node's secret.\n");
}

int federation_init(int argc, char **argv)
{
    struct args args;
    struct fed_init_options options = {.host = "127.0.0.1"};
    struct fed_config config;
    struct sov_errbuf err = {""};
    int status = CLI_OK, nodes = NODES_DEFAULT, port = PORT_DEFAULT;
    args_init(
        &args, "federation init", "--dir D [flags]",
        "Makes what the nodes of a new federation need: for each a data directory nodeN with its "
        "key, an empty log, and federation.json, which is the same in all of them and names "
        "all nodes with their addresses and public keys.\n\n"
        "Nothing is overwritten. Addresses may be edited in federation.json before the nodes "
        "start, on each node by itself.");
    args_text(&args, "--dir", "D", &options.folder,
              "Folder that gets node0, node1, ... Made if absent.");
    args_int(&args, "--nodes", "N", &nodes, PBFT_MEMBERS_MIN, PBFT_MEMBERS_MAX,
             "How many nodes, 4 to 64: (N - 1) / 3 of them may be faulty. Default 4.");
    args_text(&args, "--host", "H", &options.host,
              "Host of all addresses: a name, an IPv4 address, or an IPv6 address in brackets. "
              "Default 127.0.0.1.");
    args_int(&args, "--base-port", "P", &port, 1, UINT16_MAX,
             "Port of node 0; the others have the ports that follow. Default 7100.");
    args.examples =
        "  sovereign federation init --nodes 4 --dir fed\n"
        "  sovereign federation init --nodes 7 --dir fed --host 10.0.0.5 --base-port 9000\n";
    if (!args_parse(&args, argc, argv, &status)) return status;
    if (options.folder == NULL || options.folder[0] == '\0')
        return cli_usage_error("federation init", "--dir D is needed: where the folders shall be");
    if (sodium_init() < 0) return cli_error("libsodium cannot be initialised");
    options.nodes = (uint32_t)nodes;
    options.base_port = (uint16_t)port;
    if (fed_init(&options, &config, &err) != SOV_OK) return cli_error("%s", err.message);
    print_result(&options, &config);
    return cli_flush_output();
}
