//! (room rollout)
