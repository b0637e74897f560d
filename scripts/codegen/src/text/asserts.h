
/* Layout assertions for every C since C99 and every C++ since C++11. */
#if defined(__cplusplus)
#define FLAGOS_ASSERT_LAYOUT(name, condition) static_assert(condition, #name)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define FLAGOS_ASSERT_LAYOUT(name, condition) _Static_assert(condition, #name)
#else
#define FLAGOS_ASSERT_LAYOUT(name, condition) typedef char name[(condition) ? 1 : -1]
#endif
#define FLAGOS_ASSERT_SIZE(type, bytes) FLAGOS_ASSERT_LAYOUT(type##_is_##bytes##_bytes, sizeof(type) == (bytes))
#define FLAGOS_ASSERT_OFFSET(type, field, at) FLAGOS_ASSERT_LAYOUT(type##_##field##_is_at_##at, offsetof(type, field) == (at))

FLAGOS_ASSERT_LAYOUT(flagos_needs_a_64_bit_platform, sizeof(void *) == 8);
