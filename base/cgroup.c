/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Whether a list separated by commas has the word. */
static bool cgroup_list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        if (*at == ',') at++;
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* mount and every folder on the way from it to mount + path, the longest first. */
static void cgroup_visit_up(const char *mount, const char *path,
                            void (*visit)(void *user, const char *folder), void *user)
{
    char folder[CGROUP_PATH_MAX];
    int length = snprintf(folder, sizeof folder, "%s%s", mount, path);
    if (length < 0 || (size_t)length >= sizeof folder) return;
    size_t least = strlen(mount);
    for (;;) {
        char *slash = strrchr(folder, '/');
        if (slash != NULL && slash[1] == '\0' && (size_t)(slash - folder) >= least) {
            *slash = '\0'; /* of "/" alone, or at the end */
            continue;
        }
        visit(user, folder);
        if (strlen(folder) <= least || slash == NULL) return;
        *slash = '\0';
    }
}

/* A line of /proc/self/cgroup: "number:controllers:path", with no controllers in version 2. */
static void cgroup_visit_line(const char *root, char *line, const char *controller,
                              void (*visit)(void *user, const char *folder), void *user)
{
    char mount[CGROUP_PATH_MAX];
    char *controllers = strchr(line, ':');
    char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (path == NULL) return;
    *path++ = '\0';
    controllers++;
    path[strcspn(path, "\n")] = '\0';
    if (controllers[0] == '\0') {
        snprintf(mount, sizeof mount, "%.2000s/sys/fs/cgroup", root);
        cgroup_visit_up(mount, path, visit, user);
        /* Where both versions are in use, the second has a folder of its own. */
        snprintf(mount, sizeof mount, "%.2000s/sys/fs/cgroup/unified", root);
        cgroup_visit_up(mount, path, visit, user);
    } else if (cgroup_list_has(controllers, controller)) {
        snprintf(mount, sizeof mount, "%.2000s/sys/fs/cgroup/%s", root, controller);
        cgroup_visit_up(mount, path, visit, user);
        if (strcmp(controllers, controller) == 0) return;
        snprintf(mount, sizeof mount, "%.2000s/sys/fs/cgroup/%.1000s", root, controllers);
        cgroup_visit_up(mount, path, visit, user);
    }
}

void cgroup_walk(const char *root, const char *controller,
                 void (*visit)(void *user, const char *folder), void *user)
{
    char name[CGROUP_PATH_MAX], line[CGROUP_PATH_MAX];
    snprintf(name, sizeof name, "%.2000s/proc/self/cgroup", root);
    FILE *file = fopen(name, "re");
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL)
        cgroup_visit_line(root, line, controller, visit, user);
    fclose(file);
}
