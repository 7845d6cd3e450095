//! The QEMU Machine Protocol, as far as the bench speaks it: JSON lines, commands with an answer,
//! and events in between.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("QMP socket failed: {0}")]
    Io(#[from] io::Error),
    /// QEMU is gone or does not answer.
    #[error("QEMU did not answer the QMP command {0}")]
    NoAnswer(String),
    /// QEMU refused the command.
    #[error("QEMU refused the QMP command {command}: {reason}")]
    Refused {
        /// Name of the command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

/// An open monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    writer: UnixStream,
    answers: mpsc::Receiver<Value>,
    deadline: Duration,
    next_id: u64,
}

impl Qmp {
    /// Negotiates capabilities on a fresh connection. Events go to `on_event` as (name, data), from a
    /// reading thread. `deadline` bounds every command.
    pub(super) fn open(
        stream: UnixStream,
        deadline: Duration,
        mut on_event: impl FnMut(&str, &Value) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(event) = message["event"].as_str() {
                    on_event(event, &message["data"]);
                } else if message.get("QMP").is_none() && sender.send(message).is_err() {
                    return;
                }
            }
        });
        stream.set_write_timeout(Some(deadline))?;
        let mut qmp = Qmp { writer: stream, answers, deadline, next_id: 1 };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returned.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "execute": command, "arguments": arguments, "id": id });
        let mut line = request.to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes())?;
        let deadline = Instant::now() + self.deadline;
        let mut answer = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left);
            let answer = answer.map_err(|_| QmpError::NoAnswer(command.to_owned()))?;
            // An answer to a command that was given up earlier is nobody's.
            if answer["id"] == id {
                break answer;
            }
        };
        match answer["error"]["desc"].as_str() {
            Some(reason) => {
                Err(QmpError::Refused { command: command.into(), reason: reason.into() })
            }
            None => Ok(answer["return"].take()),
        }
    }
}
