//! The listening end: one front end at a time, one session after another.

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread::{Builder, JoinHandle},
};

use tracing::{debug, info, warn};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::{QueueHandler, handler::Handler};
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
#[derive(Default)]
struct Stop {
    state: Mutex<StopState>,
}

#[derive(Default)]
struct StopState {
    asked: bool,
    session: Option<ShutdownHandle>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
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
        let stop = Arc::new(Stop::default());
        let (wake, woken) = UnixStream::pair()?;
        let thread = {
            let stop = Arc::clone(&stop);
            Builder::new().name(format!("front-end-{port}")).spawn(move || {
                let result = serve(&device, port, listener, &woken, &stop);
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
            session.shutdown();
        }
    }

    fn asked(&self) -> bool {
        self.state.lock().expect("no holder panics").asked
    }

    fn session(&self, session: Option<ShutdownHandle>) {
        let mut state = self.state.lock().expect("no holder panics");
        match session {
            Some(session) if state.asked => session.shutdown(),
            session => state.session = session,
        }
    }
}

fn serve(
    device: &Arc<dyn QueueHandler>,
    port: usize,
    listener: UnixListener,
    woken: &UnixStream,
    stop: &Stop,
) -> io::Result<()> {
    let waiting = listener.try_clone()?;
    let mut listener = Listener::from(listener);
    loop {
        either_readable(&waiting, woken)?;
        if stop.asked() {
            return Ok(());
        }
        serve_one(device, port, &mut listener, stop)?;
    }
}

/// One session, from the connection that is waiting to its end. When this returns, no thread of it is
/// left and nothing touches its guest's memory any more.
fn serve_one(
    device: &Arc<dyn QueueHandler>,
    port: usize,
    listener: &mut Listener,
    stop: &Stop,
) -> io::Result<()> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let handler = Arc::new(Handler::new(Arc::clone(device), port));
    let name = "vhost-user".to_owned();
    // The error type of the crate is no `std::error::Error`.
    let failed = |error: DaemonError| io::Error::other(error.to_string());
    let mut daemon = VhostUserDaemon::new(name, Arc::clone(&handler), memory).map_err(failed)?;
    daemon.start(listener).map_err(failed)?;
    info!(port, "front end connected");
    stop.session(daemon.shutdown_handle());
    let result = daemon.wait();
    stop.session(None);
    drop(daemon);
    handler.close_exit_events();
    device.session_ended(port);
    match result {
        Ok(()) => info!(port, "front end disconnected"),
        // How a session ends when the front end just closes its socket, even within a message.
        Err(DaemonError::HandleRequest(
            error @ (ProtocolError::Disconnected
            | ProtocolError::PartialMessage
            | ProtocolError::SocketBroken(_)),
        )) => {
            info!(port, "front end disconnected");
            debug!(%error, "end of session");
        }
        Err(error) => warn!(port, %error, "session with the front end ended"),
    }
    Ok(())
}
