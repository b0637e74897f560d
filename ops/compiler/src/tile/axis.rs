//! What is known of integers and pointers: contiguity, divisibility, constancy along each axis.
