//! Functions that a format lacks, written with those it has.
