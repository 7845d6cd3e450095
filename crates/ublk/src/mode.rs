//! How data moves between a request and its server.

use crate::{features::Features, uapi::DevInfo};

/// How the data of a device's requests moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataMode {
    /// The driver copies it from and to a buffer of the server's.
    Copy,
    /// The same, but for a WRITE only once the server asks.
    GetData,
    /// The server copies it, by reads and writes of the char device.
    UserCopy,
    /// The server registers it with its ring, whose operations move it.
    ZeroCopy,
    /// The driver registers it with the ring of the fetch.
    AutoBuf,
}

impl DataMode {
    /// All of them.
    pub const ALL: [DataMode; 5] = [
        DataMode::Copy,
        DataMode::GetData,
        DataMode::UserCopy,
        DataMode::ZeroCopy,
        DataMode::AutoBuf,
    ];

    /// The flags that ask for it. Automatic registration comes with the manual kind, to fall back on.
    pub fn features(self) -> Features {
        match self {
            DataMode::Copy => Features::empty(),
            DataMode::GetData => Features::NEED_GET_DATA,
            DataMode::UserCopy => Features::USER_COPY,
            DataMode::ZeroCopy => Features::SUPPORT_ZERO_COPY,
            DataMode::AutoBuf => Features::AUTO_BUF_REG | Features::SUPPORT_ZERO_COPY,
        }
    }

    /// What a server does with a device of these flags: with more than one of them, the way with the fewest copies.
    pub fn of(info: &DevInfo) -> Self {
        let flags = Features::from_bits_retain(info.flags);
        let by_flag = [
            (Features::AUTO_BUF_REG, DataMode::AutoBuf),
            (Features::SUPPORT_ZERO_COPY, DataMode::ZeroCopy),
            (Features::USER_COPY, DataMode::UserCopy),
            (Features::NEED_GET_DATA, DataMode::GetData),
        ];
        let found = by_flag.iter().find(|(flag, _)| flags.contains(*flag));
        found.map_or(DataMode::Copy, |(_, mode)| *mode)
    }

    /// Whether commands give the driver a buffer of the server's.
    pub(crate) fn lends_buffer(self) -> bool {
        matches!(self, DataMode::Copy | DataMode::GetData)
    }

    /// Whether data is registered with a ring.
    pub(crate) fn registers(self) -> bool {
        matches!(self, DataMode::ZeroCopy | DataMode::AutoBuf)
    }
}

/// What automatic registration does when it cannot register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The driver fails the request, without the server.
    #[default]
    Fail,
    /// The server registers the data itself.
    Register,
    /// The same; and the server names a buffer that its table has not, so that it happens each time.
    Provoked,
}
