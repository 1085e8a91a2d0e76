/* SPDX-License-Identifier: Apache-2.0 */
/* What cache.c needs of flight.c. */
#ifndef SOV_CACHE_FLIGHT_INTERNAL_H
#define SOV_CACHE_FLIGHT_INTERNAL_H

struct cache;
struct cache_flights;

/* NULL when memory is out. */
struct cache_flights *cache_flights_create(struct cache *cache);
/* All flights have ended and all readers are closed. */
void cache_flights_free(struct cache_flights *flights);

#endif
