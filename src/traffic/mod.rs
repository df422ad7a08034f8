//! (room traffic)
