//! A blocking client of the control socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::{
    CONTROL_VERSION, Command, Faults, Hello, JournalPage, LunAddress, LunSpec, Reply, Request,
    Response,
};

/// Why a control command failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed or timed out.
    #[error("control socket failed: {0}")]
    Io(#[from] io::Error),
    /// The daemon closed the socket: it has ended or died.
    #[error("the target daemon closed its control socket")]
    Closed,
    /// A line that is not a response.
    #[error("control response is not understood: {source}: {}", beginning(line))]
    Malformed {
        /// What the parser said.
        source: serde_json::Error,
        /// The line.
        line: String,
    },
    /// The daemon refused the request; nothing has changed.
    #[error("the target daemon refused {request}: {reason}")]
    Refused {
        /// The request as sent.
        request: String,
        /// The daemon's words.
        reason: String,
    },
    /// The response belongs to another request or another kind of request.
    #[error("unexpected control response: {0}")]
    Unexpected(String),
}

/// As much of a line as one wants to read in an error.
fn beginning(line: &str) -> &str {
    &line[..line.floor_char_boundary(200)]
}

/// An open conversation with a daemon.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    next_id: u64,
    hello: Hello,
}

impl Client {
    /// Connects and says hello. `timeout` bounds every later read and write too.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let hello = Hello { version: 0, pid: 0, luns: Vec::new() };
        let mut client = Client { reader: BufReader::new(stream), next_id: 1, hello };
        match client.call(Command::Hello { version: CONTROL_VERSION })? {
            Reply::Hello(hello) => client.hello = hello,
            other => return Err(ClientError::Unexpected(format!("{other:?}"))),
        }
        Ok(client)
    }

    /// What the daemon said it is when the conversation was opened.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Sends [`Command::ResetLun`] and waits for the barrier.
    pub fn reset_lun(&mut self, address: LunAddress, spec: LunSpec) -> Result<(), ClientError> {
        self.done(Command::ResetLun { address, spec })
    }

    /// Sends [`Command::Faults`] and waits for the barrier.
    pub fn faults(&mut self, address: LunAddress, faults: Faults) -> Result<(), ClientError> {
        self.done(Command::Faults { address, faults })
    }

    /// Sends [`Command::Release`] in order of arrival and waits until nothing of what was held is left.
    pub fn release(&mut self, address: LunAddress) -> Result<(), ClientError> {
        self.done(Command::Release { address, order: None })
    }

    /// Sends [`Command::Release`] in this order and waits until nothing of what was held is left.
    pub fn release_in_order(
        &mut self,
        address: LunAddress,
        order: Vec<u32>,
    ) -> Result<(), ClientError> {
        self.done(Command::Release { address, order: Some(order) })
    }

    /// Sends [`Command::AbortHeld`].
    pub fn abort_held(&mut self, address: LunAddress) -> Result<(), ClientError> {
        self.done(Command::AbortHeld { address })
    }

    /// Reads the journal of a unit.
    pub fn journal(&mut self, address: LunAddress) -> Result<JournalPage, ClientError> {
        match self.call(Command::Journal { address })? {
            Reply::Journal(page) => Ok(page),
            other => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Sends a command whose success has nothing to tell.
    pub fn done(&mut self, command: Command) -> Result<(), ClientError> {
        match self.call(command)? {
            Reply::Done => Ok(()),
            other => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Sends one command and returns its reply.
    pub fn call(&mut self, command: Command) -> Result<Reply, ClientError> {
        let request = Request { id: self.next_id, command };
        self.next_id += 1;
        let mut line = serde_json::to_string(&request).expect("requests have string keys only");
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes())?;

        let mut answer = String::new();
        if self.reader.read_line(&mut answer)? == 0 {
            return Err(ClientError::Closed);
        }
        let response: Response = serde_json::from_str(&answer)
            .map_err(|source| ClientError::Malformed { source, line: answer.clone() })?;
        match response.result {
            Err(reason) => Err(ClientError::Refused { request: line.trim_end().into(), reason }),
            Ok(reply) if response.id == request.id => Ok(reply),
            Ok(_) => Err(ClientError::Unexpected(format!("id {} for {}", response.id, request.id))),
        }
    }
}
