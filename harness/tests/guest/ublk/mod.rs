//! Userspace block devices.
