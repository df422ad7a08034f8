//! (room controller)
