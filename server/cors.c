/* SPDX-License-Identifier: Apache-2.0 */
#include "server/cors.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

enum { CORS_HEADER_LIST_MAX = 1024, CORS_HOST_MAX = 256 };

bool cors_any(const char *allowed)
{
    return strcmp(allowed, "*") == 0;
}

/* host, host:port, [v6] or [v6]:port, where the host is an address or localhost. */
static bool cors_host_is_fixed(const char *host)
{
    char name[CORS_HOST_MAX];
    struct in6_addr address;
    size_t length = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    const char *start = host;
    if (host[0] == '[') {
        start++;
        length--;
    }
    if (length == 0 || length >= sizeof name) return false;
    memcpy(name, start, length);
    name[length] = '\0';
    if (host[0] == '[') return inet_pton(AF_INET6, name, &address) == 1;
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, &address) == 1;
}

static bool cors_same_origin(const char *origin, const char *host)
{
    const char *rest = strstr(origin, "://");
    return host != NULL && rest != NULL && strcasecmp(rest + 3, host) == 0 &&
           cors_host_is_fixed(host);
}

bool cors_allows(const char *allowed, const char *origin, const char *host)
{
    static const char SEPARATORS[] = ", \t";
    if (cors_any(allowed) || cors_same_origin(origin, host)) return true;
    if (strcmp(allowed, "none") == 0) return false;
    for (const char *p = allowed; *p != '\0';) {
        p += strspn(p, SEPARATORS);
        size_t length = strcspn(p, SEPARATORS);
        if (length > 0 && strlen(origin) == length && strncasecmp(p, origin, length) == 0)
            return true;
        p += length;
    }
    return false;
}

bool cors_header_list_valid(const char *value)
{
    size_t length = strlen(value);
    if (length == 0 || length > CORS_HEADER_LIST_MAX) return false;
    for (size_t i = 0; i < length; i++) {
        char c = value[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && strchr("-_, ", c) == NULL) return false;
    }
    return true;
}
