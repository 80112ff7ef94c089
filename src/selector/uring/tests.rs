//! What the selector makes of what the kernel tells.
