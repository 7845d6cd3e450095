//! REPORT SUPPORTED OPERATION CODES parameter data (SPC).

use crate::command::CommandSpec;

/// REPORTING OPTIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportingOptions {
    /// 000b: all commands.
    All,
    /// 001b: one operation code, which must have no service actions.
    Opcode,
    /// 010b: one operation code and service action; the operation code must have service actions.
    ServiceAction,
    /// 011b: one command, with a service action of zero if the operation code has none.
    OpcodeAndServiceAction,
}

impl ReportingOptions {
    /// From bits 2 to 0 of byte 2; `None` for reserved values.
    #[must_use]
    pub const fn from_bits(byte: u8) -> Option<Self> {
        match byte & 0x07 {
            0 => Some(ReportingOptions::All),
            1 => Some(ReportingOptions::Opcode),
            2 => Some(ReportingOptions::ServiceAction),
            3 => Some(ReportingOptions::OpcodeAndServiceAction),
            _ => None,
        }
    }
}

/// Command timeouts descriptor of 12 bytes: its length behind the length field, then no timeout
/// reported.
const TIMEOUTS: [u8; 12] = [0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// CTDP in a command descriptor.
const DESCRIPTOR_CTDP: u8 = 0x02;
/// SERVACTV in a command descriptor.
const SERVACTV: u8 = 0x01;
/// CTDP in the one_command parameter data.
const ONE_CTDP: u8 = 0x80;
/// SUPPORT: the command is not supported.
const NOT_SUPPORTED: u8 = 0x01;
/// SUPPORT: the command is supported as a standard says.
const STANDARD: u8 = 0x03;

/// all_commands parameter data.
#[must_use]
pub fn all_commands<'a>(
    commands: impl IntoIterator<Item = &'a CommandSpec>,
    timeouts: bool,
) -> Vec<u8> {
    let mut data = vec![0; 4];
    for spec in commands {
        let [high, low] = spec.service_action.unwrap_or(0).to_be_bytes();
        let servactv = if spec.service_action.is_some() { SERVACTV } else { 0 };
        let ctdp = if timeouts { DESCRIPTOR_CTDP } else { 0 };
        let [len_high, len_low] = cdb_len(spec);
        let flags = servactv | ctdp;
        data.extend_from_slice(&[spec.usage[0], 0, high, low, 0, flags, len_high, len_low]);
        if timeouts {
            data.extend_from_slice(&TIMEOUTS);
        }
    }
    let len = u32::try_from(data.len() - 4).expect("a few hundred commands");
    data[..4].copy_from_slice(&len.to_be_bytes());
    data
}

/// one_command parameter data; `None` is a command that is not supported.
#[must_use]
pub fn one_command(spec: Option<&CommandSpec>, timeouts: bool) -> Vec<u8> {
    let Some(spec) = spec else {
        return vec![0, NOT_SUPPORTED, 0, 0];
    };
    let [high, low] = cdb_len(spec);
    let ctdp = if timeouts { ONE_CTDP } else { 0 };
    let mut data = vec![0, ctdp | STANDARD, high, low];
    data.extend_from_slice(&spec.usage_data());
    if timeouts {
        data.extend_from_slice(&TIMEOUTS);
    }
    data
}

fn cdb_len(spec: &CommandSpec) -> [u8; 2] {
    u16::try_from(spec.usage.len()).expect("at most 16").to_be_bytes()
}
