//! File and line for the addresses in what a kernel prints: `scsi_done+0x1c/0x90 [scsi_mod]`.

use kernel::{
    Kernel,
    debug_info::{DebugInfo, Frame},
};

use crate::outcome::TestRecord;

/// A place in code as the kernel prints it (`lib/vsprintf.c`, `%pS`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place<'a> {
    symbol: &'a str,
    offset: u64,
    len_bytes: u64,
    module: Option<&'a str>,
    /// Whether the instruction itself is meant: elsewhere it is where a call returns to.
    is_exact: bool,
}

/// Adds places in the source to the lines of reports.
#[derive(Debug)]
pub struct Decoder {
    info: Option<DebugInfo>,
    /// Why nothing is decoded, not told yet.
    trouble: Option<String>,
}

impl Decoder {
    /// For one kernel; reads nothing yet.
    pub fn new(kernel: &Kernel) -> Decoder {
        Decoder { info: kernel.debug.clone().map(DebugInfo::new), trouble: None }
    }

    /// Decodes what the kernel said during a test, and its stacks.
    pub fn decode(&mut self, record: &mut TestRecord) {
        for line in record.kernel.iter_mut().filter(|line| line.facility == 0) {
            self.add_places(&mut line.text);
        }
        let lines = record.stacks.lines().map(|line| {
            let mut line = line.to_owned();
            self.add_places(&mut line);
            line
        });
        record.stacks = lines.collect::<Vec<_>>().join("\n");
        if let Some(trouble) = self.trouble.take() {
            record.output.push_str(&format!("\n(no lines of the source: {trouble})"));
        }
    }

    fn add_places(&mut self, line: &mut String) {
        let Some(info) = &mut self.info else { return };
        let Some(place) = place(line) else { return };
        match frames(info, &place) {
            Ok(frames) if frames.is_empty() => {}
            Ok(frames) => line.push_str(&format!("  ({})", words(&frames))),
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.info = None;
            }
        }
    }
}

/// The function the place is in, after those inlined into it.
fn frames(
    info: &mut DebugInfo,
    place: &Place<'_>,
) -> Result<Vec<Frame>, kernel::debug_info::Error> {
    let object = match place.module {
        Some(module) => info.module(module)?,
        None => Some(info.vmlinux()?),
    };
    let Some(object) = object else { return Ok(Vec::new()) };
    let addresses = object.symbol_plus(place.symbol, place.offset, Some(place.len_bytes));
    // Several functions of one name and length: a guess would mislead.
    let [address] = addresses.as_slice() else { return Ok(Vec::new()) };
    object.frames(if place.is_exact { *address } else { address.saturating_sub(1) })
}

/// `drivers/scsi/sg.c:12, inlined into sg_open at drivers/scsi/sg.c:40`.
fn words(frames: &[Frame]) -> String {
    let place = |frame: &Frame| {
        let file = frame.file.as_deref().unwrap_or("?");
        match frame.line {
            Some(line) => format!("{file}:{line}"),
            None => file.to_owned(),
        }
    };
    let inner = frames.first().map(place).unwrap_or_default();
    let outer = frames[1..].iter().map(|frame| {
        let function = frame.function.as_deref().unwrap_or("?");
        format!(", inlined into {function} at {}", place(frame))
    });
    inner + &outer.collect::<String>()
}

/// The first place in a line.
fn place(line: &str) -> Option<Place<'_>> {
    let plus = line.find("+0x")?;
    let is_symbol = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let start = line[..plus].rfind(|c| !is_symbol(c)).map_or(0, |at| at + 1);
    let symbol = &line[start..plus];
    let (offset, rest) = hex(&line[plus + 1..])?;
    let (len_bytes, rest) = hex(rest.strip_prefix('/')?)?;
    let module = rest
        .strip_prefix(" [")
        .and_then(|rest| rest.split([']', ' ']).next())
        .filter(|name| !name.is_empty() && name.chars().all(is_symbol));
    let is_exact = line[..start].ends_with("RIP: 0010:") || line.starts_with("WARNING: ");
    (!symbol.is_empty()).then_some(Place { symbol, offset, len_bytes, module, is_exact })
}

/// A number such as `0x1c` at the start of a text, and what follows it.
fn hex(text: &str) -> Option<(u64, &str)> {
    let digits = text.strip_prefix("0x")?;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    Some((u64::from_str_radix(&digits[..end], 16).ok()?, &digits[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_as_the_kernel_prints_them() {
        let of = |symbol, offset, len_bytes, module, is_exact| {
            Some(Place { symbol, offset, len_bytes, module, is_exact })
        };
        for (line, expected) in [
            (
                "RIP: 0010:partition_tape+0x2f/0x80 [scsi_debug]",
                of("partition_tape", 0x2f, 0x80, Some("scsi_debug"), true),
            ),
            (
                " ? blk_mq_dispatch.part.0+0x1/0x20",
                of("blk_mq_dispatch.part.0", 1, 0x20, None, false),
            ),
            (
                "[<0>] io_wq_put_and_exit+0xd/0x100",
                of("io_wq_put_and_exit", 0xd, 0x100, None, false),
            ),
            ("WARNING: CPU: 0 PID: 9 at block/a.c:7 f+0x3/0x9", of("f", 3, 9, None, true)),
            (
                " sd_probe+0x10/0x30 [sd_mod 4f5e]",
                of("sd_probe", 0x10, 0x30, Some("sd_mod"), false),
            ),
            ("RSP: 0018:ffffc900 EFLAGS: 00010246", None),
            ("crash+0xzz/0x1", None),
            ("+0x1/0x2", None),
        ] {
            assert_eq!(place(line), expected, "{line}");
        }
    }

    #[test]
    fn inlined_functions_come_before_what_they_are_in() {
        let frame = |function: &str, file: &str, line| Frame {
            function: Some(function.into()),
            file: Some(file.into()),
            line: Some(line),
        };
        let frames = [frame("g", "a.h", 3), frame("f", "a.c", 40)];
        assert_eq!(words(&frames), "a.h:3, inlined into f at a.c:40");
        assert_eq!(words(&frames[1..]), "a.c:40");
    }
}
