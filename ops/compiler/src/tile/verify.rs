//! What holds of every program the rest of the compiler sees: types, shapes, dominance.
