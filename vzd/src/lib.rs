//! The node service and the per-VE monitor.
