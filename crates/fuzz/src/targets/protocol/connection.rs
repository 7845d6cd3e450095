//! A front end's end of the socket.

use std::{
    io::{ErrorKind, IoSlice, Read as _},
    mem::MaybeUninit,
    os::{
        fd::AsFd as _,
        unix::net::{SocketAddr, UnixStream},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::message::{FILES_MAX, Message, code};

/// An answer is late after this: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer is longer: GET_CONFIG may have so much, and is not offered.
const ANSWER_LEN_MAX: usize = 0x1000;

/// The device has hung up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended;

/// The connection of a front end.
pub(super) struct Connection {
    stream: UnixStream,
    /// What was sent and may still be answered.
    asked: Vec<u32>,
}

impl Connection {
    pub(super) fn open(address: &SocketAddr) -> Self {
        let stream = UnixStream::connect_addr(address).expect("the port listens");
        for result in
            [stream.set_read_timeout(Some(PATIENCE)), stream.set_write_timeout(Some(PATIENCE))]
        {
            result.expect("a socket");
        }
        Connection { stream, asked: Vec::new() }
    }

    /// Sends a message as it is.
    pub(super) fn send(&mut self, message: &Message<'_>) -> Result<(), Ended> {
        let files: Vec<_> = message.files.iter().map(|(_, file)| file.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)), "there is room");
        }
        self.asked.push(message.code);
        let bytes = message.bytes();
        match sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            // Messages are shorter than the socket's buffer.
            Ok(sent) => assert_eq!(sent, bytes.len()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Err(Ended),
            Err(error) => panic!("nobody takes messages: {error}"),
        }
        Ok(())
    }

    /// Waits until everything that was sent has been dealt with.
    pub(super) fn synchronize(&mut self) -> Result<(), Ended> {
        self.send(&Message::get(code::GET_FEATURES))?;
        loop {
            let (code, body) = self.answer()?;
            check_body(code, &body);
            if code == code::GET_FEATURES && self.asked.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends a message that is answered, and takes the answer.
    pub(super) fn ask(&mut self, message: &Message<'_>) -> Vec<u8> {
        self.send(message).expect("a proper session");
        let (_, body) = self.answer().expect("a proper session");
        body
    }

    /// The next answer: whose, and its body. What was sent before that needs none.
    fn answer(&mut self) -> Result<(u32, Vec<u8>), Ended> {
        let mut header = [0; 12];
        self.read(&mut header)?;
        let [code, flags, len] = [0, 4, 8]
            .map(|at| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")));
        // VERSION 1 and REPLY, and nothing that asks us for something.
        assert_eq!(flags & !8, 0b101, "no header of an answer: {header:x?}");
        let len = usize::try_from(len).expect("64 bits");
        assert!(len <= ANSWER_LEN_MAX, "an answer of {len} bytes to message {code}");
        let at = self.asked.iter().position(|asked| *asked == code);
        let at = at.unwrap_or_else(|| panic!("an answer to message {code}, not asked for"));
        self.asked.drain(..=at);
        let mut body = vec![0; len];
        self.read(&mut body)?;
        Ok((code, body))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Ended> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Err(Ended),
                _ => panic!("neither an answer nor an end in {PATIENCE:?}: {error}"),
            },
        }
    }
}

/// What holds of answers (vhost-user, Back-end message types).
fn check_body(code: u32, body: &[u8]) {
    let word = || u64::from_le_bytes(body.try_into().expect("eight bytes"));
    match code {
        code::GET_FEATURES => assert_ne!(word() >> 32 & 1, 0, "VIRTIO_F_VERSION_1"),
        code::GET_QUEUE_NUM => assert_eq!(word(), 2 + super::REQUEST_QUEUES as u64),
        // The index in the lower half; the upper has 16 bits.
        code::GET_VRING_BASE => assert!(word() >> 48 == 0, "{body:x?}"),
        // Lengths up to 256 queues of 32768 entries of 16 bytes.
        code::GET_INFLIGHT_FD => {
            let len = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
            assert!((1..256 << 20).contains(&len), "{body:x?}");
        }
        _ => {}
    }
}
