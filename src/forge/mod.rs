//! (room forge)
