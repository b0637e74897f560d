/* What the examples do with a status that is not NULL: print it and leave. */
#ifndef EXAMPLES_CHECK_H
#define EXAMPLES_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include <flagos_ops.h>

static inline void check(flagos_status_t *status, const char *what)
{
    char *text = NULL;
    if (!status)
        return;
    flagos_status_release(flagos_status_text(status, &text));
    fprintf(stderr, "%s: %s\n", what, text ? text : "?");
    flagos_status_release(flagos_text_free(text));
    flagos_status_release(status);
    exit(1);
}

#define CHECK(call) check((call), #call)

#endif
