//! Runs tile programs directly on byte buffers: the judge of everything after it.
