/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control groups this process is in (Linux cgroups(7), versions 1 and 2). A limit of any group
 * holds for all groups below it, so a reader of limits looks at every folder from the process's own
 * group up to the root.
 */
#ifndef SOV_BASE_CGROUP_H
#define SOV_BASE_CGROUP_H

enum { CGROUP_PATH_MAX = 4096 };

/*
 * Calls visit for each of those folders for a controller ("cpu", "memory"), version 2's and version
 * 1's. Folders named by /proc that cannot be seen from here (as inside a container) are visited all
 * the same: the files in them do not open. root: "" for this machine; tests give a folder that has
 * proc and sys.
 */
void cgroup_walk(const char *root, const char *controller,
                 void (*visit)(void *user, const char *folder), void *user);

#endif
