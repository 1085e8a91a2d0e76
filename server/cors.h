/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which web pages may use the API (https://fetch.spec.whatwg.org/#http-cors-protocol). Only
 * browsers send Origin; other clients are not concerned. Pure functions.
 *
 * "*" lets any page use it, without cookies or other credentials of the browser. With a list, or
 * "none", a request from another page is refused outright, since a browser sends simple requests
 * without asking first. Our own page is of the same origin, which counts only when the host it was
 * reached by is an address or localhost: a name could have been rebound to this machine by whoever
 * owns it.
 */
#ifndef SOV_SERVER_CORS_H
#define SOV_SERVER_CORS_H

#include <stdbool.h>

/*
 * allowed: "*", "none", or origins separated by commas or blanks. host: the Host header, may be
 * NULL.
 */
bool cors_allows(const char *allowed, const char *origin, const char *host);
bool cors_any(const char *allowed);
/* Whether a value is a list of header names that may be sent back in Access-Control-Allow-Headers.
 */
bool cors_header_list_valid(const char *value);

#endif
