//! What the names in a rule mean.

use scsi::{Command, Sense, SenseKey, Status, sense::table, task::TaskManagementFunction};
use scsi_fault::Code;

use crate::wire::{self, Response};

/// The number of a value of `all`, by number or name; the names there are, if it is none of them.
fn number<T: Copy>(
    what: &str,
    code: &Code,
    all: impl Iterator<Item = T>,
    name_and_number: impl Fn(T) -> (&'static str, u8),
) -> Result<u8, String> {
    let name = match code {
        Code::Number(number) => return Ok(*number),
        Code::Name(name) => name,
    };
    let all: Vec<_> = all.map(name_and_number).collect();
    let found = all.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, number)| *number).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(known, _)| *known).collect();
        format!("there is no {what} `{name}`; known are {}, and numbers", names.join(", "))
    })
}

pub(super) fn status(code: &Code) -> Result<u8, String> {
    number("status", code, Status::ALL.into_iter(), |status| (status.name(), status.code()))
}

pub(super) fn response(code: &Code) -> Result<u8, String> {
    let number =
        number("response", code, Response::ALL.into_iter(), |one| (one.name(), one as u8))?;
    let last = Response::IncorrectLun as u8;
    if number > last {
        return Err(format!("virtio has no response {number}, the last is {last}"));
    }
    Ok(number)
}

pub(super) fn sense_key(code: &Code) -> Result<SenseKey, String> {
    let all = (0..16).map(SenseKey::from_bits);
    let number = number("sense key", code, all, |key| (key.name(), key.code()))?;
    if number > 0x0f {
        return Err(format!("a sense key has four bits, {number:#x} has more"));
    }
    Ok(SenseKey::from_bits(number))
}

/// The sense with this text.
pub(super) fn sense(name: &str) -> Result<Sense, String> {
    table::from_name(name).ok_or_else(|| {
        format!(
            "there is no additional sense code `{name}` in the table; give `key`, `asc` and `ascq`"
        )
    })
}

/// OPERATION CODE and, for a name, the service action that goes with it.
pub(super) fn command(code: &Code) -> Result<(u8, Option<u8>), String> {
    let name = match code {
        Code::Number(opcode) => return Ok((*opcode, None)),
        Code::Name(name) => name,
    };
    let found = Command::ALL.iter().find(|command| command.name().eq_ignore_ascii_case(name));
    let spec = found
        .map(|command| command.spec())
        .ok_or_else(|| format!("there is no command `{name}` in the table; a number is welcome"))?;
    let action = spec.service_action.map(|action| u8::try_from(action).expect("five bits"));
    Ok((spec.command.opcode(), action))
}

/// A task management function, or any.
pub(super) fn function(code: &Code) -> Result<Option<TaskManagementFunction>, String> {
    if *code == Code::from("any") {
        return Ok(None);
    }
    let all = || (0..).map_while(wire::task_management_function);
    let numbered = || (0..=u8::MAX).zip(all());
    let number =
        number("task management function", code, numbered(), |(number, it)| (it.name(), number))?;
    wire::task_management_function(number.into())
        .map(Some)
        .ok_or_else(|| format!("virtio has no task management function {number}"))
}

/// Bytes in hex; blanks between them are welcome.
pub(super) fn bytes(what: &str, hex: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = |pair: &[u8]| match *pair {
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    bytes.ok_or_else(|| format!("{what} `{hex}` is no whole number of bytes in hex"))
}
