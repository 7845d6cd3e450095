//! The listening end: one front end at a time, one session after another.

use std::{
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread::{Builder, JoinHandle},
};

use tracing::{debug, info, warn};
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};

use super::{QueueHandler, session::Session};
use crate::poll::either_readable;

/// Serves front ends on a socket, one session after another, until stopped.
#[derive(Debug)]
pub struct FrontEnd {
    stop: Arc<Stop>,
    /// Closing it wakes the thread out of its wait for a connection.
    wake: UnixStream,
    thread: JoinHandle<io::Result<()>>,
}

/// How the running session is told to end.
#[derive(Debug, Default)]
struct Stop {
    state: Mutex<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    asked: bool,
    session: Option<UnixStream>,
}

impl FrontEnd {
    /// Starts serving `device` as its port `port` to whoever connects to `listener`. `ended` is called
    /// if serving ends without having been stopped.
    ///
    /// # Errors
    /// If the system gives no thread or descriptor.
    pub fn start(
        device: Arc<dyn QueueHandler>,
        port: usize,
        listener: UnixListener,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        // A connection that is gone again before it is accepted must not keep the thread.
        listener.set_nonblocking(true)?;
        let stop = Arc::new(Stop::default());
        let (wake, woken) = UnixStream::pair()?;
        let thread = {
            let stop = Arc::clone(&stop);
            Builder::new().name(format!("front-end-{port}")).spawn(move || {
                let result = serve(&device, port, &listener, &woken, &stop);
                if !stop.asked() {
                    ended();
                }
                result
            })?
        };
        Ok(FrontEnd { stop, wake, thread })
    }

    /// Ends the session, if there is one, waits for its workers and stops listening.
    ///
    /// # Errors
    /// What ended the serving before.
    pub fn stop(self) -> io::Result<()> {
        self.stop.ask();
        drop(self.wake);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Stop {
    fn ask(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.asked = true;
        if let Some(session) = state.session.take() {
            hang_up(&session);
        }
    }

    fn asked(&self) -> bool {
        self.state.lock().expect("no holder panics").asked
    }

    fn session(&self, session: Option<UnixStream>) {
        let mut state = self.state.lock().expect("no holder panics");
        match session {
            Some(session) if state.asked => hang_up(&session),
            session => state.session = session,
        }
    }
}

/// The connection of a session, for whoever wants it to end.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl Connection {
    /// Ends the session: its front end finds the socket closed.
    pub fn hang_up(&self) {
        hang_up(&self.0);
    }
}

/// Whoever waits for a message reads the end of the stream.
fn hang_up(session: &UnixStream) {
    // An error means that the front end has gone, which is what is wanted.
    let _gone = session.shutdown(Shutdown::Both);
}

fn serve(
    device: &Arc<dyn QueueHandler>,
    port: usize,
    listener: &UnixListener,
    woken: &UnixStream,
    stop: &Stop,
) -> io::Result<()> {
    loop {
        either_readable(listener, woken)?;
        if stop.asked() {
            return Ok(());
        }
        match listener.accept() {
            Ok((stream, _)) => serve_one(device, port, stream, stop)?,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// One session, to its end.
fn serve_one(
    device: &Arc<dyn QueueHandler>,
    port: usize,
    stream: UnixStream,
    stop: &Stop,
) -> io::Result<()> {
    info!(port, "front end connected");
    stop.session(Some(stream.try_clone()?));
    device.session_began(port, Connection(stream.try_clone()?));
    let session = Arc::new(Mutex::new(Session::new(Arc::clone(device), port)));
    let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&session));
    let error = loop {
        if let Err(error) = messages.handle_request() {
            break error;
        }
    };
    session.lock().expect("no holder panics").end();
    stop.session(None);
    match error {
        // How a session ends when the front end just closes its socket, even within a message.
        ProtocolError::Disconnected
        | ProtocolError::PartialMessage
        | ProtocolError::SocketBroken(_) => {
            info!(port, "front end disconnected");
            debug!(%error, "end of session");
        }
        error => warn!(port, %error, "message refused, session ended"),
    }
    Ok(())
}
