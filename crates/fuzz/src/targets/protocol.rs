//! Messages of front ends, with descriptors, on the socket of a port: in sequences that make sense but for a
//! few, and in such that do not.
//!
//! Whatever one front end says, it is answered or hung up on, maps no more than there is of a file, and leaves
//! nothing behind for the next, whose proper session works.

mod connection;
mod message;
mod proper;

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    time::Duration,
};

use device_server::{Device, DeviceConfig, LuConfig, LunAddress};
use vhost_user_scsi::{
    backend::FrontEnd,
    target::{Settings, Target},
};

use self::{
    connection::{Connection, Ended},
    message::{Files, Speaker},
};
use super::Sessions;
use crate::{mutate::once_in, worker::Session};

/// Front ends of a session, beside the proper ones.
const FRONT_ENDS: usize = 12;
/// Messages of a front end at most.
const MESSAGES: usize = 60;
/// Request queues of the port.
const REQUEST_QUEUES: usize = 2;
/// There is nothing to wait for.
const WAIT_LIMIT: Duration = Duration::from_millis(50);

/// A port, listening in the abstract name space, where nothing is left behind.
fn serve(name: &str) -> io::Result<(FrontEnd, SocketAddr)> {
    let unit = (LunAddress { target: 0, lun: 0 }, LuConfig { blocks: 64, ..LuConfig::default() });
    let device = Device::new(DeviceConfig { identifier: 0, units: vec![unit] });
    let settings = Settings { wait_limit: WAIT_LIMIT, ..Settings::new(1, REQUEST_QUEUES) };
    let target = Target::new(device.map_err(io::Error::other)?, settings)?;
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address)?;
    let ended = || panic!("the port is served no more");
    Ok((FrontEnd::start(target, 0, listener, ended)?, address))
}

pub(super) fn prepare() -> anyhow::Result<Sessions> {
    Ok(Box::new(|session| {
        // They remember what was written to them.
        let files = Files::new().expect("descriptors");
        let name = format!("sensecheck-fuzz-{}", std::process::id());
        let (front_end, address) = serve(&name).expect("a socket and threads");
        let before = proper::session(&address, &files);
        for number in 0..FRONT_ENDS {
            session.tell(|| format!("front end {number}"));
            // How it ended is its own affair.
            let _ended = improper(session, &address, &files);
        }
        let after = proper::session(&address, &files);
        assert_eq!(before, after, "something is left of a session");
        front_end.stop().expect("it still serves");
    }))
}

/// One front end that says what it likes.
fn improper(session: &mut Session, address: &SocketAddr, files: &Files) -> Result<(), Ended> {
    let mut connection = Connection::open(address);
    let mut speaker = Speaker::new(&mut session.rng, files);
    let messages = session.rng.usize(1..=MESSAGES);
    for _ in 0..messages {
        let message = speaker.next(&mut session.rng);
        session.send(|| format!("{message:x?}"));
        let is_honest = message.is_honest();
        connection.send(&message)?;
        if !is_honest {
            // The rest is taken for whatever it was announced as: it is said, and no answer waited for.
            for _ in 0..session.rng.usize(0..4) {
                let message = speaker.next(&mut session.rng);
                session.send(|| format!("  {message:x?}"));
                connection.send(&message)?;
            }
            return Ok(());
        }
        if once_in(&mut session.rng, 4) {
            connection.synchronize()?;
        }
    }
    connection.synchronize()?;
    files.check_mappings();
    Ok(())
}
