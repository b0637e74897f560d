//! Runs thread programs directly, all threads of a block in step: the judge of the emitters.
