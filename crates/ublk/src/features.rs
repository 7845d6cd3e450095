//! Feature flags, `UBLK_F_*`.

use bitflags::bitflags;

bitflags! {
    /// What a driver knows (`GET_FEATURES`) and a device has ([`crate::uapi::DevInfo::flags`]). `ADD_DEV` clears the
    /// flags its driver does not know: what comes back is what was agreed on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// Data of requests can be registered with a ring.
        const SUPPORT_ZERO_COPY = 1 << 0;
        /// Always there: commands complete in the server's task.
        const URING_CMD_COMP_IN_TASK = 1 << 1;
        /// A WRITE is announced first and gets its buffer then.
        const NEED_GET_DATA = 1 << 2;
        /// The disk outlives its server. What the server had fails, what comes waits.
        const USER_RECOVERY = 1 << 3;
        /// With `USER_RECOVERY`: what the server had is delivered to the next.
        const USER_RECOVERY_REISSUE = 1 << 4;
        /// Whoever makes the device owns it.
        const UNPRIVILEGED_DEV = 1 << 5;
        /// Always there: commands are encoded as ioctls.
        const CMD_IOCTL_ENCODE = 1 << 6;
        /// The server reads and writes data through the char device.
        const USER_COPY = 1 << 7;
        /// The device has zones.
        const ZONED = 1 << 8;
        /// With `USER_RECOVERY`: what comes fails too.
        const USER_RECOVERY_FAIL_IO = 1 << 9;
        /// `UPDATE_SIZE` is known.
        const UPDATE_SIZE = 1 << 10;
        /// Data of requests is registered with the ring of the fetch before it completes.
        const AUTO_BUF_REG = 1 << 11;
        /// `QUIESCE_DEV` is allowed; with `USER_RECOVERY`.
        const QUIESCE = 1 << 12;
        /// Always there: each tag has a task of its own.
        const PER_IO_DAEMON = 1 << 13;
        /// Always there: any task may register data of a request.
        const BUF_REG_OFF_DAEMON = 1 << 14;
        /// Requests are fetched and committed in batches, and only so.
        const BATCH_IO = 1 << 15;
        /// Requests have metadata; with `USER_COPY`.
        const INTEGRITY = 1 << 16;
        /// Always there: `TRY_STOP_DEV` is known.
        const SAFE_STOP_DEV = 1 << 17;
        /// Nobody looks for partitions at the start.
        const NO_AUTO_PART_SCAN = 1 << 18;
        /// Shared memory can be registered, and requests that lie in it need no copy. A [`crate::Server`] fails those
        /// with EOPNOTSUPP; [`crate::RawQueue`] sees them.
        const SHMEM_ZC = 1 << 19;
        /// The size of a descriptor is the server's choice (Linux 7.3).
        const IO_DESC_SIZE = 1 << 20;

        // A newer driver may tell of more; they are kept.
        const _ = !0;
    }
}

impl Features {
    /// The flags of which each says how data moves. With none of them the driver copies at once.
    pub const DATA: Features = Features::NEED_GET_DATA
        .union(Features::USER_COPY)
        .union(Features::SUPPORT_ZERO_COPY)
        .union(Features::AUTO_BUF_REG);

    /// Names as the header has them without `UBLK_F_`, and a number for each bit that has none.
    pub fn names(self) -> Vec<String> {
        let named = self.iter_names().map(|(name, _)| name.to_owned());
        let known = Features::from_name_bits();
        let rest = self.bits() & !known;
        let unnamed = (0..64).filter(|bit| rest >> bit & 1 == 1).map(|bit| format!("BIT_{bit}"));
        named.chain(unnamed).collect()
    }

    /// All bits that have a name.
    fn from_name_bits() -> u64 {
        Features::all().iter_names().fold(0, |bits, (_, flag)| bits | flag.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// include/uapi/linux/ublk_cmd.h.
    #[test]
    fn flags_have_the_header_s_bits_and_names() {
        let two = Features::from_bits_retain(0x10_0001);
        assert_eq!(two.names(), ["SUPPORT_ZERO_COPY", "IO_DESC_SIZE"]);
        assert_eq!(Features::from_name_bits(), 0x1f_ffff);
        assert_eq!(Features::from_bits_retain(1 << 40).names(), ["BIT_40"]);
        assert_eq!(Features::DATA.bits(), 0x885);
    }
}
