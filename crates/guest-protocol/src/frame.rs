//! Frames on a byte stream: a little-endian `u32` length in bytes, then that many bytes of JSON.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Longest accepted frame in bytes. Kernel lines and test output are cut into far smaller pieces; a
/// larger length means the stream is out of step.
pub const FRAME_LEN_MAX: u32 = 16 << 20;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("stream failed: {0}")]
    Io(#[from] io::Error),
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame")]
    Truncated,
    /// The length is beyond [`FRAME_LEN_MAX`].
    #[error("frame of {0} bytes is longer than {FRAME_LEN_MAX}: the stream is out of step")]
    TooLong(u64),
    /// The bytes are not the expected message.
    #[error("frame is not a message: {source}: {text}")]
    Message {
        /// What the parser said.
        source: serde_json::Error,
        /// The beginning of the frame.
        text: String,
    },
}

/// Writes one message as one frame in a single `write_all`, so that a reader never waits for half.
pub fn write<T: Serialize>(mut stream: impl Write, message: &T) -> Result<(), FrameError> {
    let body = serde_json::to_vec(message)
        .map_err(|source| FrameError::Message { source, text: String::new() })?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|len| *len <= FRAME_LEN_MAX)
        .ok_or(FrameError::TooLong(body.len() as u64))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame)?;
    Ok(stream.flush()?)
}

/// Reads one message; `None` is a stream that ended between frames.
pub fn read<T: DeserializeOwned>(mut stream: impl Read) -> Result<Option<T>, FrameError> {
    let mut len = [0; 4];
    match stream.read(&mut len[..1])? {
        0 => return Ok(None),
        _ => read_exact(&mut stream, &mut len[1..])?,
    }
    let len = u32::from_le_bytes(len);
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong(len.into()));
    }
    let mut body = vec![0; len as usize];
    read_exact(&mut stream, &mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(|source| FrameError::Message {
        source,
        text: String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    })
}

fn read_exact(stream: &mut impl Read, bytes: &mut [u8]) -> Result<(), FrameError> {
    stream.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_little_endian_length_and_json() {
        let mut stream = Vec::new();
        write(&mut stream, &vec![1, 2]).expect("written");
        assert_eq!(stream, b"\x05\0\0\0[1,2]");
        assert_eq!(read::<Vec<u8>>(&stream[..]).expect("read"), Some(vec![1, 2]));
        assert_eq!(read::<Vec<u8>>(&b""[..]).expect("end"), None);
    }

    #[test]
    fn half_a_frame_and_a_wild_length_are_errors() {
        assert!(matches!(read::<u8>(&b"\x05\0\0\0[1"[..]), Err(FrameError::Truncated)));
        assert!(matches!(read::<u8>(&b"\x05\0"[..]), Err(FrameError::Truncated)));
        assert!(matches!(read::<u8>(&b"\xff\xff\xff\xff"[..]), Err(FrameError::TooLong(_))));
        assert!(matches!(read::<u8>(&b"\x02\0\0\0[]"[..]), Err(FrameError::Message { .. })));
    }
}
