/* A plugin for discovery tests: whole unless a macro spoils it. The structs above it are printed from the contract's descriptions. */
#include <unistd.h>
#ifndef NAME
#define NAME "good"
#endif
#ifndef ENTRY
#define ENTRY flagos_backend_query_v1
#endif
#ifndef BUILT
#define BUILT 0
#endif
#ifndef NEEDED
#define NEEDED 0
#endif
#ifndef DOMAINS
#define DOMAINS 0
#endif
#ifndef SANITIZER
#define SANITIZER 0
#endif
#define TEXT(s) { s, sizeof(s) - 1 }

static void *stub(void) { return 0; }
#define F ((void *)stub)

static struct DeviceTable device = { .size = sizeof(device), .kind = 0x12, .open = F, .close = F, .info = F, .sync = F };
static struct MemoryTable memory = { .size = sizeof(memory), .kind = 0x23,
#ifndef NO_COPY
    .copy = F,
#endif
#ifdef MAP_ALONE
    .map = F,
#endif
    .alloc = F, .free = F, .read = F, .write = F, .fill = F };
static struct StreamTable stream = { .size = sizeof(stream), .kind = 0x31, .create = F, .destroy = F, .sync = F, .query = F, .event_create = F,
    .event_destroy = F, .signal = F, .wait = F, .event_query = F, .event_sync = F };
static struct PlanTable plans = { .size = sizeof(plans), .kind = 0x54, .info = F, .launch = F, .destroy = F };
static struct OpTable op = { .size = sizeof(op), .kind = 0x55, .query = F, .plan = F, .plans = &plans };

static struct BackendV1 backend = {
    .size = sizeof(backend),
    .kind = 0xA1,
    .abi_minor_built = BUILT,
    .abi_minor_needed = NEEDED,
    .name = TEXT(NAME),
    .version = TEXT("1.2.3"),
    .vendor = TEXT("tests"),
    .build_id = TEXT("build-1"),
    .sanitizer = SANITIZER,
    .domains = DOMAINS,
    .probe = F,
    .shutdown = F,
    .device = &device,
    .memory = &memory,
    .stream = &stream,
#ifdef OP
    .op = &op,
#endif
};

#ifdef DECLINE
static void release(struct Status *status) { (void)status; }
static struct Status why = { .size = sizeof(why), .kind = 1, .code = 5, .argument = -1, .message = TEXT("the driver is asleep"), .release = (void *)release };
#endif

#ifdef HANG_CONSTRUCTOR
__attribute__((constructor)) static void constructor(void) { for (;;) pause(); }
#endif

#ifndef NO_ENTRY
const struct BackendV1 *ENTRY(const struct HostV1 *host, struct Status **why_not) {
    (void)op;
#ifdef HANG
    for (;;) pause();
#endif
#ifdef ALLOC
    ((void *(*)(void *, uint64_t, uint64_t))host->alloc)(host->context, 40, 8);
#endif
#ifdef DECLINE
    *why_not = &why;
    return 0;
#elif defined SILENT
    return 0;
#elif defined MISALIGNED
    return (void *)((char *)&backend + 4);
#else
    (void)host;
    (void)why_not;
#ifdef SHORT
    device.size = 16;
#endif
#ifdef KIND
    device.kind = KIND;
#endif
#ifdef NOT_UTF8
    backend.vendor.ptr = "\xff\xfe";
    backend.vendor.len = 2;
#endif
    backend.layout_hash = (struct LayoutHash){ HASH_LO, HASH_HI };
    return &backend;
#endif
}
#endif
