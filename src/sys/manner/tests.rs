//! Files of all kinds.
