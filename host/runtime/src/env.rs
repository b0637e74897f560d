//! The environment variables of libflagos, in one table.
