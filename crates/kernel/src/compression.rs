//! The compressions that kernels and their modules come in.

use std::io::Read;

/// A way to compress, recognised by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Zstandard, RFC 8878.
    Zstd,
    /// The xz container of LZMA2.
    Xz,
    /// RFC 1952.
    Gzip,
    /// With lz4's legacy frames, as the kernel's build writes them.
    Lz4,
}

/// At its highest level, which the kernel's build uses, zstd looks back 128 MiB.
const ZSTD_WINDOW: u64 = 128 << 20;

impl Format {
    /// The format of `data`, or the name of one that cannot be undone here.
    pub fn of(data: &[u8]) -> Result<Format, &'static str> {
        match data {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Format::Xz),
            [0x1f, 0x8b, ..] => Ok(Format::Gzip),
            [0x02, 0x21, 0x4c, 0x18, ..] => Ok(Format::Lz4),
            [b'B', b'Z', b'h', ..] => Err("bzip2"),
            [0x5d, 0, 0, ..] => Err("lzma"),
            [0x89, b'L', b'Z', b'O', ..] => Err("lzo"),
            _ => Err("an unknown method"),
        }
    }

    /// Appends what `data` decompresses to.
    pub fn undo(self, data: &[u8], into: &mut Vec<u8>) -> Result<(), String> {
        let read = match self {
            Format::Zstd => {
                let decoder =
                    ruzstd::decoding::StreamingDecoder::new_with_max_window_size(data, ZSTD_WINDOW);
                decoder.map_err(|error| error.to_string())?.read_to_end(into)
            }
            Format::Xz => lzma_rust2::XzReader::new(data, false).read_to_end(into),
            Format::Gzip => flate2::read::GzDecoder::new(data).read_to_end(into),
            Format::Lz4 => lz4_flex::frame::FrameDecoder::new(data).read_to_end(into),
        };
        read.map(drop).map_err(|error| error.to_string())
    }
}
