/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report RECORDS MACHINE FOLDER: prints the table and writes FOLDER/bench.json and the plots.
 * Exit status 1 when a figure is below its floor or could not be held against it, or none has a floor; 2 when something could not be read or written.
 */
#include <stdio.h>

#include "bench/report/report.h"

int main(int argc, char **argv)
{
    static struct report r;
    if (argc != 4) {
        fprintf(stderr, "usage: report RECORDS MACHINE FOLDER\n");
        return 2;
    }
    bool ok = report_read_records(&r, argv[1]) && report_read_machine(&r, argv[2]);
    bool met = false;
    if (ok) {
        report_medians(&r);
        report_judge(&r);
        met = report_print(&r);
        ok = report_write_json(&r, argv[3]) && report_write_plots(&r, argv[3]);
    }
    json_decref(r.machine);
    json_decref(r.runs);
    return ok ? !met : 2;
}
