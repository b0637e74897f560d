//! Builder: tile programs written in Rust that read like the kernel they describe.
