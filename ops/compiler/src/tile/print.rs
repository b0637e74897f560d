//! Text out: the Triton dialect, parsed back to the same program.
