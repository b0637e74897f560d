//! Discovery: finds backends, judges them without running their code, loads and negotiates with them.
