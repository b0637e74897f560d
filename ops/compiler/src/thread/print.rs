//! Thread programs as text, for people.
