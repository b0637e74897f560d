#if defined(_WIN32)
#define FLAGOS_EXPORT __declspec(dllexport)
#else
#define FLAGOS_EXPORT __attribute__((visibility("default")))
#endif

/* Type of the entry. On refusal it returns NULL and gives the reason in *why_not. */
typedef const flagos_backend_v1_t *(*flagos_backend_query_v1_t)(const flagos_host_v1_t *host, flagos_status_t **why_not);

/* The one symbol a backend exports. Pure; callable many times; the result is static. */
FLAGOS_EXPORT const flagos_backend_v1_t *ENTRY_SYMBOL(const flagos_host_v1_t *host, flagos_status_t **why_not);

/* Whether the bytes of a struct beyond the `known` ones are zero, as they must be where its `size` says it is longer (0 or 1). */
static inline int flagos_tail_is_zero(const void *object, uint32_t size, uint32_t known)
{
    const unsigned char *bytes = (const unsigned char *)object;
    uint32_t i;
    for (i = known; i < size; i++)
        if (bytes[i] != 0)
            return 0;
    return 1;
}
