//! WRITE BUFFER and READ BUFFER (SPC), of the echo buffer alone: there is no microcode, and no other buffer.

use scsi::cdb;

use super::Execution;
use crate::error::CommandError;

/// MODE: write data to echo buffer, or read it.
const ECHO: u8 = 0x0a;
/// MODE: read echo buffer descriptor.
const ECHO_DESCRIPTOR: u8 = 0x0b;
/// BUFFER CAPACITY of the echo buffer in bytes, the most there may be.
const CAPACITY: u16 = 4096;
/// EBOS: an initiator learns that another one has overwritten what it wrote.
const EBOS: u8 = 0x01;

pub(super) fn write_buffer(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::Buffer>();
    if cdb.mode != ECHO {
        return Err(CommandError::field_bit(1, 4));
    }
    let len = length(cdb);
    if len > CAPACITY.into() {
        return Err(CommandError::field(6));
    }
    if let Some(data) = execution.data.take(len)
        && len > 0
    {
        execution.unit.echo.write(execution.nexus, data);
    }
    Ok(())
}

pub(super) fn read_buffer(execution: &mut Execution<'_, '_, '_>) -> Result<(), CommandError> {
    let cdb = execution.cdb::<cdb::Buffer>();
    let data = match cdb.mode {
        ECHO => execution.unit.echo.read(execution.nexus)?,
        ECHO_DESCRIPTOR => {
            let [high, low] = CAPACITY.to_be_bytes();
            vec![EBOS, 0, high, low]
        }
        _ => return Err(CommandError::field_bit(1, 4)),
    };
    execution.data.send(&data, length(cdb));
    Ok(())
}

fn length(cdb: &cdb::Buffer) -> u32 {
    let [high, middle, low] = cdb.len;
    u32::from_be_bytes([0, high, middle, low])
}
