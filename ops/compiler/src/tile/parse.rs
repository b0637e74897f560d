//! Text in: the Triton dialect as Triton 3.4 to 3.9 prints it.
