//! SIGINT, SIGTERM and SIGHUP as a question the bench asks at every turn of its loops.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
};

/// How a process ends that SIGINT has ended, as a shell says it.
pub const EXIT_CODE: u8 = 130;

static PENDING: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes over the signals. A second one ends the process at once; its children go with it.
pub fn install() -> io::Result<()> {
    let pending = Arc::clone(PENDING.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), Arc::clone(&pending))?;
        flag::register(signal, Arc::clone(&pending))?;
    }
    // A limit on the size of files is an error of the write, like a full disk, and no reason to die.
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// Whether the user wants the bench to stop.
pub fn pending() -> bool {
    PENDING.get().is_some_and(|pending| pending.load(Ordering::Relaxed))
}
