//! The virtio-serial port to the supervisor.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use guest_protocol::{
    frame,
    message::{FromGuest, PORT_NAME, ToGuest},
};
use harness::wait;

/// Both directions of the port. Frames are written whole, one at a time.
pub(crate) struct Link {
    reader: Mutex<File>,
    writer: Mutex<File>,
}

impl Link {
    /// Finds the port by name and opens it.
    pub(crate) fn open() -> Result<Self, String> {
        let port =
            wait::until(Duration::from_secs(5), "the supervisor's virtio-serial port", find_port)
                .map_err(|error| error.to_string())?;
        let reader = File::options().read(true).write(true).open(&port);
        let reader = reader.map_err(|error| format!("cannot open {}: {error}", port.display()))?;
        let writer = reader.try_clone().map_err(|error| error.to_string())?;
        Ok(Link { reader: Mutex::new(reader), writer: Mutex::new(writer) })
    }

    /// Sends one message. A supervisor that is gone has taken the machine with it, so a failure here
    /// has nobody left to hear of it but the console.
    pub(crate) fn send(&self, message: &FromGuest) {
        let mut writer = self.writer.lock().expect("no thread panics while it writes");
        if let Err(error) = frame::write(&mut *writer, message) {
            eprintln!("agent: cannot send: {error}");
        }
    }

    /// Keeps everybody from sending.
    pub(crate) fn silence(&self) -> MutexGuard<'_, File> {
        self.writer.lock().expect("no thread panics while it writes")
    }

    /// Waits for one message; `None` when the supervisor is gone.
    pub(crate) fn receive(&self) -> Option<ToGuest> {
        let mut reader = self.reader.lock().expect("one thread reads");
        match frame::read(&mut *reader) {
            Ok(message) => message,
            Err(error) => {
                eprintln!("agent: cannot receive: {error}");
                None
            }
        }
    }
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let port = ports.filter_map(Result::ok).find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    })?;
    let node = PathBuf::from("/dev").join(port.file_name());
    node.exists().then_some(node)
}

/// Writes a whole value to a kernel file such as one of sysfs in a single write.
pub(crate) fn write_value(path: &str, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all_at(value.as_bytes(), 0)
}
