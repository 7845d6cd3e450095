//! Control commands with every field in the test's hand.

use std::time::{Duration, Instant};

use ublk::{Buffer, Control, Errno, Pointer, uapi::CtrlCmd};

/// Number of a device that no test makes: the last that the driver allows.
pub(crate) const NO_SUCH_DEVICE: u32 = (1 << 20) - 1;

/// Sends a command with a buffer of `bytes` whose length is told truly, and returns what the driver
/// says and the buffer afterwards.
#[track_caller]
pub(crate) fn exchange(
    control: &mut Control,
    op: u32,
    mut command: CtrlCmd,
    bytes: &[u8],
) -> (Result<i32, Errno>, Vec<u8>) {
    command.len = u16::try_from(bytes.len()).expect("control buffers are short");
    let memory = match bytes {
        [] => Pointer::Null,
        _ => Buffer::copy_of(bytes).expect("memory").into(),
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let token = control.begin(op, command, memory).expect("submitted");
    let reply = control.finish(token, deadline).expect("answered");
    let result = match reply.res {
        0.. => Ok(reply.res),
        negative => Err(Errno::from_raw_os_error(-negative)),
    };
    (result, reply.memory.buffer().map_or_else(Vec::new, |buffer| buffer.to_vec()))
}

/// Sends a command without a buffer.
#[track_caller]
pub(crate) fn plain(control: &mut Control, op: u32, command: CtrlCmd) -> Result<i32, Errno> {
    exchange(control, op, command, &[]).0
}
